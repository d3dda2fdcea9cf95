"""Messages of libraries: one line each, or on demand.

An error that a library logs, or prints from one of its threads, is raised again where it matters
and told there in one line. --verbosity=1 shows everything.
"""

import pathlib
import sys
import traceback
import warnings
from logging import LogRecord
from typing import Any

from absl import logging

_LOGGED_AND_RAISED = {'orbax', 'asyncio'}  # folders of sources


def reduce_logs() -> None:
    """Lets libraries log errors only, without tracebacks."""
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_is_shown)
    logging.set_verbosity(logging.ERROR)


def reduce_prints() -> None:
    """Lets warnings take one line, and errors in destructors and callbacks none."""
    warnings.formatwarning = _warning_line
    shown = sys.unraisablehook
    sys.unraisablehook = lambda error: shown(error) if is_debugging() else None


def is_debugging() -> bool:
    """Returns whether --verbosity=1 was given."""
    return logging.get_verbosity() >= logging.DEBUG


def show_traceback(error: Exception) -> None:
    """Prints the traceback of an error if --verbosity=1 was given.

    Args:
        error: as it was raised.
    """
    if is_debugging():
        traceback.print_exception(error)


def _is_shown(record: LogRecord) -> bool:
    if is_debugging():
        return True
    record.exc_info = None
    return _LOGGED_AND_RAISED.isdisjoint(pathlib.Path(record.pathname).parts)


def _warning_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f'warning: {" ".join(str(message).split())}\n'
