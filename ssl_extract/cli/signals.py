"""Signals that end the process, such as Ctrl-C and a scheduler's SIGTERM."""

import contextlib
import os
import signal
from types import FrameType

_CAUSES = {
    signal.SIGINT: 'interrupted',
    signal.SIGTERM: 'terminated (SIGTERM)',
    signal.SIGHUP: 'the terminal was closed (SIGHUP)',
}


def line(command: str, number: int = signal.SIGINT) -> str:
    """Writes how to go on after a signal.

    >>> line('ssl-extract --config=quickstart')
    'interrupted: what is finished is kept; to go on, write: ssl-extract --config=quickstart'

    Args:
        command: the command line, as a shell reads it.
        number: the signal.
    """
    return f'{_CAUSES[number]}: what is finished is kept; to go on, write: {command}'


def end_on_signals(command: str) -> None:
    """Lets a signal end this process at once, with one line on stderr and the exit code 128 + n.

    A KeyboardInterrupt would not do: JAX's callback of the garbage collection swallows it, and an
    interpreter that shuts down while XLA compiles may crash. The files of a workdir are whole at
    every moment, whatever ends the process: see `runtime.files`. A signal that this process was
    told to ignore, as by nohup, stays ignored.

    Args:
        command: the command line, as a shell reads it.
    """
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() == process:  # a forked child ends in silence
            _write(f'\n{line(command, number)}\n')  # below a progress bar
        os._exit(128 + number)

    for number in _CAUSES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def _write(text: str) -> None:
    """Writes past Python's buffers, which the interrupted code may be writing to."""
    with contextlib.suppress(OSError):  # there is no reader anymore
        os.write(2, text.encode(errors='replace'))
