"""Standard streams that are closed, full or read no more."""

import os
import select
import sys
from typing import TextIO

_last: TextIO | None = None  # of `tell`, in place of stderr


def open_closed() -> None:
    """Opens the standard streams that the shell closed, as by `2>&-`.

    Otherwise the next file that is opened takes a stream's number, and a library that logs to
    stderr would write into that file. What would go to a closed stderr goes to stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115  (as long as the process)
    if sys.stderr is None:
        sys.stderr = sys.stdout


def is_read_enough() -> bool:
    """Tells whether the reader of stdout, such as head, has ended while that of stderr has not.

    Then nothing more is written to stdout.
    """
    enough = _has_no_reader(sys.stdout) and not _has_no_reader(sys.stderr)
    if enough:
        discard(sys.stdout)
    return enough


def tell(line: str) -> None:
    """Prints the last line of a process to stderr, or to stdout where stderr cannot be written.

    Args:
        line: the line.
    """
    told = False
    for stream in (_last or sys.stderr, sys.stdout):
        try:
            print(end='' if told else f'{line}\n', file=stream, flush=True)
            told = True
        except OSError:
            discard(stream)


def tell_to(stream: TextIO) -> None:
    """Lets `tell` print to a stream, whatever becomes of stderr."""
    global _last
    _last = stream


def mute() -> None:
    """Drops what this process prints from now on, but for what it tells: see `tell_to`."""
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: SIM115  (as long as the process)


def discard(stream: TextIO) -> None:
    """Drops what a stream still holds: the interpreter flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has_no_reader(stream: TextIO) -> bool:
    poll = select.poll()
    try:
        poll.register(stream, 0)  # an error is told even where nothing is asked for
    except OSError:  # no file of the system
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
