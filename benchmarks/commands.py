"""The frame of a command: flags of its own, and errors in one line."""

import sys
from collections.abc import Callable

from absl import app, flags

from ssl_extract.cli import arguments
from ssl_extract.errors import UserError


def parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parses flags and returns the other words.

    Args:
        values: the flags of the command.
        argv: the program's name and its arguments.

    Raises:
        UserError: a flag is unknown, or has a wrong value or none.
    """
    flags.FLAGS.mark_as_parsed()  # libraries read their flags from there
    values.set_gnu_getopt(True)  # a flag may stand behind a folder
    return arguments.parse(values, argv)


def run(main: Callable[[list[str]], None], values: flags.FlagValues, text: str) -> int:
    """Runs a command with the words of this process and returns its exit code.

    Args:
        main: the command; it takes the program's name and the arguments.
        values: its flags, for `--help`.
        text: what `--help` prints before the flags.
    """
    if {'--help', '-h'} & {*sys.argv[1:]}:
        print(f'{text}\n{values.get_help()}')
        return 0
    try:
        main(sys.argv)
    except UserError as error:
        print('error:', error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted: nothing was written', file=sys.stderr)
        return 130
    return 0


def start(main: Callable[[list[str]], None]) -> None:
    """Runs a command whose flags are those of absl, and ends this process.

    Args:
        main: the command; it takes the program's name and the words that are no flags.
    """

    def told(argv: list[str]) -> int:
        try:
            main(argv)
        except UserError as error:
            print('error:', error, file=sys.stderr)
            return 2
        return 0

    app.run(told)
