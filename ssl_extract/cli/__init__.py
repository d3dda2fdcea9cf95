"""The command line of `launch.py` and `ssl-extract`."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from logging import LogRecord

from absl import logging

import ssl_extract
from ssl_extract.cli import arguments, failures
from ssl_extract.errors import UserError

_HOMES = {  # imported when they are called: JAX takes seconds
    'list': 'ssl_extract.cli.catalog',
    'report': 'ssl_extract.cli.merging',
    'run': 'ssl_extract.cli.running',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the program's name, a command and its flags; by default those of this process.

    Returns:
        The exit code: 0; 2 after an error, which is told in one line; 130 after an interrupt.
    """
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_without_traceback)
    logging.set_verbosity(logging.ERROR)
    try:
        exit_code = _dispatch(list(sys.argv if argv is None else argv))
        sys.stdout.flush()
        return exit_code
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        failure = failures.explain(error)
        if failure is None:
            raise
        if _debugging():
            traceback.print_exception(error)
        print(failure.line, file=sys.stderr)
        return failure.exit_code


def _dispatch(argv: list[str]) -> int:
    program, words = argv[0], argv[1:]
    if '--version' in words:
        print(f'ssl-extract {ssl_extract.__version__}')
        return 0
    if {'--help', '-h', '-help'} & {*words}:
        print(arguments.help_text())
        return 0
    named = bool(words) and not words[0].startswith('-')
    name = words[0] if named else 'run'
    if name not in arguments.COMMANDS:
        raise UserError(
            f'{name!r} is no command: write {", ".join(arguments.COMMANDS)}, or --config=...'
        )
    command = importlib.import_module(_HOMES[name]).main
    return command([program, *words[named:]])


def _debugging() -> bool:
    return logging.get_verbosity() >= logging.DEBUG


def _without_traceback(record: LogRecord) -> bool:
    """Leaves out the traceback of an error that a library logs and then raises."""
    if not _debugging():
        record.exc_info = None
    return True
