"""Errors as one line that says what to do."""

import errno
import json
import os
import re
import sys
import zipfile
import zlib

from ssl_extract.errors import UserError
from ssl_extract.runtime import hosts

AGAIN = 'then give the same command again: it goes on from what is finished'
LOST = (
    'error: another process of this run has ended, and this one ends too: see what the other says, '
    'then start all of them again: they go on from what is finished'
)
_FULL = 'make room there or in the quota'
_FORBIDDEN = 'write another folder, or change the rights'
_MISPLACED = 'a file lies where a folder belongs, or a folder where a file does: move it away'
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENOTDIR: _MISPLACED,
    errno.EISDIR: _MISPLACED,
    errno.EEXIST: _MISPLACED,
    errno.EPIPE: 'the reader of the output, or a connection, has ended',
}
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    UnicodeDecodeError,
    json.JSONDecodeError,
)


def explain(error: Exception) -> str | None:
    """Explains an error in one line; None for a bug, which needs its traceback."""
    error = _of_tensorstore(error) or error
    if hosts.is_loss(error):
        return LOST
    if isinstance(error, UserError | FloatingPointError):
        text = str(error)
    elif isinstance(error, OSError):
        text = _system(error)
    elif isinstance(error, MemoryError) or _is_device_memory(error):
        text = (
            'out of memory: make victim.batch_size, attack.batch_size or the encoder smaller, or '
            f'add devices, {AGAIN} ({_first_line(error)})'
        )
    elif isinstance(error, _DAMAGED):
        text = (
            f'a file is damaged ({type(error).__name__}: {_first_line(error)}): --verbosity=1 '
            f'shows which; move it away, {AGAIN}'
        )
    else:
        return None
    return f'error: {" ".join(text.split())}'


def _of_tensorstore(error: Exception) -> OSError | None:
    """Returns the operating system's error that the writer of checkpoints hides in a message."""
    told = re.search(r'"(/[^"]+)".*os_error_code=\'(\d+)\'', str(error), re.DOTALL)
    return told and OSError(int(told[2]), os.strerror(int(told[2])), told[1])


def _system(error: OSError) -> str:
    reason = error.strerror or _first_line(error)
    path = error.filename2 or error.filename  # of two, the new name of a file
    where = f'{path}: {reason}' if path else reason
    number = error.errno or (errno.EISDIR if isinstance(error, IsADirectoryError) else 0)
    return f'{where}: {_ADVICE.get(number, "put that right")}, {AGAIN}'


def _is_device_memory(error: BaseException) -> bool:
    jax = sys.modules.get('jax')  # it raised nothing where it was never imported
    raised = jax is not None and isinstance(error, jax.errors.JaxRuntimeError)
    return raised and 'RESOURCE_EXHAUSTED' in str(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
