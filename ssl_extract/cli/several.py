"""The flag `--hosts`, and what each of several processes prints.

The first process speaks for all of them; the others print nothing but the error that ends them.
"""

import os
import re
import subprocess
import sys

from ssl_extract.cli import failures, noise, streams
from ssl_extract.errors import UserError
from ssl_extract.runtime import hosts

# Reads what libraries in C++ write to stderr. JAX's client of the coordination service writes a
# page and aborts the process when another process is dead or does not come; no setting and no
# callback replaces it. One line stands for that page: the last one that came behind a zero byte.
_FILTER = """
import os, sys
marks, told, ended = sys.argv[1].encode().split(b'|'), b'', False
for line in iter(sys.stdin.buffer.readline, b''):
    if line.startswith(b'\\0'):
        told = line[1:]
    elif not ended and any(mark in line for mark in marks):
        ended = True
        os.write(2, told)
    elif not ended:
        os.write(2, line)
"""
_MARKS = (
    'Terminating process because the JAX distributed service',
    'Use error polling to propagate',
    'Polled an error from coordination service',
    failures.LOST,
)


def join(value: str, timeout: int = hosts.START_SECONDS) -> None:
    """Joins the processes of one run as the flag `--hosts` says.

    Args:
        value: 'auto', or 'ADDRESS:PORT,INDEX,NUMBER'.
        timeout: seconds until all processes must have been started.

    Raises:
        UserError: the value is neither, or the processes do not find each other.
    """
    parts = re.fullmatch(r'(\S+:\d+),(\d+),([1-9]\d*)', value)
    if not parts and value != 'auto':
        raise UserError(
            f'--hosts={value}: write auto, or ADDRESS:PORT,INDEX,NUMBER: where process 0 listens, '
            'the index of this process from 0, and the number of processes, as in '
            '10.0.0.1:8476,0,2'
        )
    where = (parts[1], int(parts[2]), int(parts[3])) if parts else ('', None, None)
    if not noise.is_debugging():
        _filter_stderr()
        _stand_for_pages(f'error: {hosts.unmet(*where, timeout)}')
    hosts.join(*where, timeout)
    if hosts.number() == 1:
        return
    if not noise.is_debugging():
        _stand_for_pages(hosts.named(failures.LOST))
    streams.tell_to(os.fdopen(2, 'w', closefd=False, errors='backslashreplace'))
    if not hosts.is_first():
        streams.mute()


def _filter_stderr() -> None:
    """Lets another process read what goes to the file 2; what Python prints goes past it."""
    terminal = os.dup(2)
    child = subprocess.Popen(
        [sys.executable, '-I', '-S', '-c', _FILTER, '|'.join(_MARKS)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # it outlives a Ctrl-C that ends this process
    )
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    sys.stderr = os.fdopen(terminal, 'w', buffering=1, errors='backslashreplace')


def _stand_for_pages(line: str) -> None:
    os.write(2, f'\0{line}\n'.encode())
