"""The command line of `launch.py` and `ssl-extract`."""

import importlib
import sys
import traceback
from collections.abc import Sequence
from logging import LogRecord

from absl import logging

import ssl_extract
from ssl_extract.cli import arguments, failures, signals, streams
from ssl_extract.errors import UserError

_HOMES = {  # imported when they are called: JAX takes seconds
    'list': 'ssl_extract.cli.catalog',
    'report': 'ssl_extract.cli.merging',
    'run': 'ssl_extract.cli.running',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the program's name, a command and its flags; by default those of this process, which
            signals then end: see `signals.end_on_signals`.

    Returns:
        The exit code: 0; 2 after an error, which is told in one line; 130 after an interrupt.
    """
    words = list(sys.argv if argv is None else argv)
    streams.open_closed()
    if argv is None:
        signals.end_on_signals(arguments.shown_command(words))
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_without_traceback)
    logging.set_verbosity(logging.ERROR)
    try:
        exit_code = _dispatch(words)
        sys.stdout.flush()
        return exit_code
    except KeyboardInterrupt:
        streams.tell(signals.line(arguments.shown_command(words)))
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and streams.has_no_reader(sys.stdout):
            streams.discard(sys.stdout)  # its reader, such as head, has seen enough
            return 0
        line = failures.explain(error)
        if line is None:
            raise
        if _debugging():
            traceback.print_exception(error)
        streams.tell(line)
        return 2


def _dispatch(argv: list[str]) -> int:
    program, words = argv[0], argv[1:]
    for word in words:
        if word != word.encode(errors='replace').decode():
            raise UserError(f'{word!r} is not UTF-8: write it in UTF-8, or rename the file')
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
