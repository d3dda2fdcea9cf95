"""Locks between processes that share a workdir."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator

import filelock
from etils import epath

from ssl_extract.runtime import files, hosts


@contextlib.contextmanager
def lock(path: epath.PathLike, what: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; the system frees it of a killed process.

    Of several processes of one run the first one holds the lock for all. They enter the block
    together and leave it together, so that all see what was written in it.

    A process that has to wait prints one line, once, that names the process that holds the lock. A
    bucket has no locks: give each process a separate workdir there, and merge the results.

    Args:
        path: the lock file; the folder is created.
        what: the result that the process waits for, as the message names it.
    """
    path = epath.Path(path)
    holds = hosts.is_first() and files.is_local(path)
    with _held(path, what) if holds else contextlib.nullcontext():
        hosts.wait()
        yield
        hosts.wait()


@contextlib.contextmanager
def _held(path: epath.Path, what: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    held, holder = filelock.FileLock(str(path)), path.with_suffix('.holder')
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        who = holder.read_text() if holder.exists() else ''  # '' too while it is written
        who = f' ({who})' if who else ''
        print(f'  waiting for another process{who}: {what}', file=sys.stderr, flush=True)
        held.acquire()
    try:
        with files.named(holder):
            holder.write_text(f'{os.getpid()} on {platform.node()}')
        yield
    finally:
        held.release()
