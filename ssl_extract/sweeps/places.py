"""Places of workers: the cores or the GPUs of this machine that each gets."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_extract.errors import UserError


class Place(NamedTuple):
    """The part of the machine that a worker gets.

    Attributes:
        cores: the numbers of the cores; () is all.
        env: variables of the environment that differ.
    """

    cores: tuple[int, ...] = ()
    env: dict[str, str] = {}  # noqa: RUF012  (never changed)


ANYWHERE = Place()


def share(things: Sequence[Any], count: int) -> list[tuple]:
    """Shares things out in order; where there are too few, several parts get the same one.

    >>> share([0, 1, 2, 3, 4], 2), share(['gpu'], 2)
    ([(0, 1), (2, 3, 4)], [('gpu',), ('gpu',)])

    Args:
        things: at least one.
        count: the number of parts.
    """
    n = len(things)
    if n < count:
        return [(things[part * n // count],) for part in range(count)]
    return [tuple(things[part * n // count : (part + 1) * n // count]) for part in range(count)]


def on_cpu(workers: int) -> list[Place]:
    """Shares the cores of this process out among workers, so that none takes another's.

    A system that cannot bind a process to cores, such as macOS, shares them out itself.

    Args:
        workers: the number of workers.

    Raises:
        UserError: there are more workers than cores.
    """
    if not hasattr(os, 'sched_getaffinity'):
        return [ANYWHERE] * workers
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores):
        raise UserError(
            f'--workers={workers}: there are {len(cores)} cores here; write at most {len(cores)}'
        )
    return [Place(part) for part in share(cores, workers)]


def on_accelerators(workers: int, platforms: str | None) -> list[Place]:
    """Shares the GPUs of this machine out among workers; where JAX finds none, the cores.

    Workers on one GPU share its memory, unless the user set XLA_PYTHON_CLIENT_MEM_FRACTION. A
    process of its own counts the GPUs: the one that counts holds a part of each.

    Args:
        workers: the number of workers.
        platforms: the value of JAX_PLATFORMS, or None.

    Raises:
        UserError: JAX cannot use its devices, or they are TPUs, which one process holds.
    """
    code = 'import jax; print(jax.default_backend(), jax.local_device_count())'
    env = os.environ | ({'JAX_PLATFORMS': platforms} if platforms else {})
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ['it says nothing'])[-1]
        raise UserError(
            f'--workers={workers}: JAX cannot use its devices; write JAX_PLATFORMS=cpu, or nothing '
            f'to take the best ones ({reason})'
        )
    backend, count = done.stdout.split()[-2:]
    if backend == 'cpu':
        return on_cpu(workers)
    if backend == 'tpu':
        raise UserError(f'--workers={workers}: one process holds all TPUs; leave the flag out')
    given = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    gpus = given if given != [''] else [str(number) for number in range(int(count))]
    memory = {}
    if workers > len(gpus) and 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in os.environ:
        memory = {'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{0.9 / -(-workers // len(gpus)):.2f}'}
    parts = share(gpus, workers)
    return [Place((), {'CUDA_VISIBLE_DEVICES': ','.join(part), **memory}) for part in parts]
