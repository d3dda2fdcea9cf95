"""Compiled programs, which all processes of a machine share."""

import contextlib
import hashlib
import os
import pathlib
import platform
import sys
import zlib
from typing import Any

import jax
from jax._src import compilation_cache

KEPT_BYTES = 2**30  # of all programs; the 5,000 of the whole test suite take a tenth

# The lines of /proc/cpuinfo that say which instructions there are, on x86 and on ARM.
_PROCESSOR = (
    *('vendor_id', 'cpu family', 'model', 'flags'),
    *('CPU implementer', 'CPU part', 'Features'),
)


def keep() -> None:
    """Lets JAX keep compiled programs in the user's cache folder, for all later processes.

    The folder is `ssl_extract/compiled` below XDG_CACHE_HOME or ~/.cache, with one folder in it for
    each kind of processor: JAX would load a program for instructions that are not there. A folder
    that the user gave to JAX, by JAX_COMPILATION_CACHE_DIR or otherwise, is left as it is.

    Programs that were not read for the longest time are removed here when all take more than
    KEPT_BYTES. JAX's own limit (jax_compilation_cache_max_size) is not used: a kill between its two
    files of a program makes every later writing fail. JAX never replaces a program. Those that a
    kill or a full disk cut off are removed: JAX would warn of each in every process.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_cut_off(folder)
        _remove_oldest(folder.parent)
    except (OSError, RuntimeError) as error:  # no home, or no right to write there
        print(f'note: compiled programs are not kept: {error}', file=sys.stderr, flush=True)
        return
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def keep_out(mark: str) -> None:
    """Keeps programs whose text holds a word out of every folder of compiled programs.

    Args:
        mark: the word, such as the name of a call that the compiler cannot write to a file.
    """
    put = compilation_cache.put_executable_and_time

    def put_others(key: str, name: str, executable: Any, *rest: Any) -> None:
        if not any(mark in module.to_string() for module in executable.hlo_modules()):
            put(key, name, executable, *rest)

    compilation_cache.put_executable_and_time = put_others


def _folder() -> pathlib.Path:
    given = os.environ.get('XDG_CACHE_HOME', '')
    base = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / '.cache'
    return base / 'ssl_extract' / 'compiled' / _processor()


def _processor() -> str:
    """Returns a name that is another one for another set of instructions."""
    try:
        first = pathlib.Path('/proc/cpuinfo').read_text().split('\n\n')[0].splitlines()
        facts = [line for line in first if line.split('\t')[0].split(':')[0].strip() in _PROCESSOR]
    except OSError:  # not Linux: as if each machine had a processor of its own
        facts = [platform.processor(), platform.node()]
    return hashlib.sha256('\n'.join([platform.machine(), *facts]).encode()).hexdigest()[:12]


def _remove_cut_off(folder: pathlib.Path) -> None:
    """Removes programs that are not whole, of those written since the last time."""
    stamp = folder / 'checked'
    since = stamp.stat().st_mtime_ns if stamp.exists() else 0
    stamp.touch()
    for path in folder.glob('*-cache'):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if path.stat().st_mtime_ns >= since and _is_cut_off(path.read_bytes()):
                path.unlink()


def _is_cut_off(program: bytes) -> bool:
    if program and program[0] != 0x78:  # not the first byte of zlib: JAX found another library
        return False
    try:
        return not zlib.decompress(program)
    except zlib.error:
        return True


def _remove_oldest(folder: pathlib.Path) -> None:
    found = []
    for path in folder.glob('*/*-cache'):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_atime_ns, path.stat().st_size, path))
    room = KEPT_BYTES
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)
