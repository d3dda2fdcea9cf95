"""Memory that the process keeps from one training step to the next."""

import ctypes
import functools
import importlib.util
import os
import platform

import jax

# mallopt's options, from malloc.h, and their values here.
_OPTIONS = {
    'M_ARENA_MAX': (-8, 1),  # threads with an arena of their own take large arrays from the kernel
    'M_MMAP_MAX': (-4, 0),
    'M_TRIM_THRESHOLD': (-1, 2**30),  # bytes at the end of the heap before they are given back
}


@functools.cache
def keep() -> None:
    """Lets the C library keep freed memory on CPU, instead of giving it back to the kernel.

    A training step's temporary arrays are one block of some hundred MB. The block is freed after
    each step, and the kernel has to clear every page when the next step takes it. To be called
    before JAX starts its threads. It does nothing where JAX may find an accelerator, without the
    GNU C library, or where the user set MALLOC_* or GLIBC_TUNABLES.
    """
    given = any(name.startswith(('MALLOC_', 'GLIBC_TUNABLES')) for name in os.environ)
    if given or platform.libc_ver()[0] != 'glibc' or not is_cpu_only():
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in _OPTIONS.values():
        mallopt(option, value)


def is_cpu_only() -> bool:
    """Tells, without starting JAX, whether it will use the CPU."""
    if jax.config.jax_platforms:
        return jax.config.jax_platforms == 'cpu'
    return not any(map(importlib.util.find_spec, ('jax_plugins', 'libtpu')))
