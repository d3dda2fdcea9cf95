"""Locks between processes that share a workdir."""

import contextlib
import sys
from collections.abc import Iterator

import filelock
from etils import epath


@contextlib.contextmanager
def lock(path: epath.PathLike, what: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; a killed process lets go of it.

    A process that has to wait says so once, in one line. In a bucket there are no locks: give each
    process a workdir of its own there, and merge their results.

    Args:
        path: the lock file; its folder is created.
        what: the result that is waited for, for the message.
    """
    path = epath.Path(path)
    if '://' in str(path):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(str(path))
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        print(f'  waiting for another process: {what}', file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()
