"""The command `store`: a finished victim as one file."""

from ssl_extract.cli import arguments, running
from ssl_extract.errors import UserError
from ssl_extract.pipeline import storing


def main(argv: list[str]) -> int:
    """Stores the victim of the experiment that the flags describe, and prints the file's path.

    Args:
        argv: the program's name, the victim's name and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: a flag or a field of the config is wrong, or there is no such victim.
    """
    request = running.read('store', argv)
    running.check_devices()
    if len(request.words) != 1:
        raise UserError('store: write one name, as in store my_victim --config=... --workdir=...')
    (name,) = request.words
    trained_by = [word for word in argv if word not in (name, '--int16')]
    path = storing.store(
        request.values.config,
        name,
        workdir=request.workdir,
        fixed=request.fixed,
        command=arguments.shown_command(trained_by),
        run_index=request.values.run_index,
        int16=request.values.int16,
    )
    print(f'victim: {path}')
    return 0
