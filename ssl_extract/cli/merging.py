"""The command `report`: one report on several workdirs."""

import os

from etils import epath

from ssl_extract import report
from ssl_extract.cli import arguments
from ssl_extract.errors import UserError


def main(argv: list[str]) -> int:
    """Writes the report that the flags describe and prints its path.

    Args:
        argv: the program's name, workdirs and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: a workdir or a flag is missing or wrong.
    """
    values = arguments.new_values('report')
    words = arguments.parse(values, argv)
    workdirs = [_folder(word) for word in words]
    if not workdirs:
        raise UserError('report: name the workdirs, as in report runs/a runs/b --out=runs/both')
    for word, workdir in zip(words, workdirs, strict=True):
        if not word or not workdir.is_dir():
            raise UserError(f'report {word!r}: there is no such folder')
    if len(workdirs) > 1 and not values.out:
        raise UserError(f'report: {len(workdirs)} workdirs: write --out=DIR, where to put it')
    out = _folder(values.out) if values.out else workdirs[0]

    report.write_from(out, workdirs, values.title or out.absolute().name)
    print(f'report: {out / "report.html"}')
    return 0


def _folder(word: str) -> epath.Path:
    """Returns a folder or bucket that can be looked at; it need not exist."""
    try:
        path = epath.Path(word).expanduser()
        path.exists()
    except (KeyError, ImportError) as error:  # an unknown kind of bucket, or its library is missing
        raise UserError(f'report {word}: {error}; write a folder, or gs://...') from error
    if os.fspath(path).startswith('~'):
        raise UserError(f'report {word}: there is no home folder {path.parts[0]}')
    return path
