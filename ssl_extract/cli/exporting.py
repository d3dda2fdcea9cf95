"""The command `export`: an encoder as a file for other programs."""

from ssl_extract import api
from ssl_extract.cli import arguments
from ssl_extract.errors import UserError
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.runtime import files


def main(argv: list[str]) -> int:
    """Exports the encoder of a folder, and prints the file's path and what was checked.

    Args:
        argv: the program's name, the folder and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: the folder, a flag or a module is missing or wrong, or the encoder cannot be
            exported.
    """
    values = arguments.new_values('export')
    words = arguments.parse(values, argv)
    if len(words) != 1 or not values.format:
        raise UserError('export: write one folder, as in export FOLDER --format=safetensors')
    folder = files.absolute(words[0])
    out = values.out or f'{folder.name.removesuffix(".safetensors")}.{values.format}'
    if not out.endswith(f'.{values.format}'):
        raise UserError(f'--out={out}: write a name that ends in .{values.format}')

    import_modules(tuple(values.modules))
    about = api.export(folder, out)
    print(f'{about["encoder"]}: {about["inputs"]} to float32 [batch, {about["dim"]}]')
    print(f'read back and run: representations move by {about["difference"]:.1e} of their size')
    print(f'exported: {out}')
    return 0
