"""Several processes, one or more on each host, that compute one run.

All processes run the same program on the same config: each compiled program spans the devices of
all of them. What is no such program follows three rules.

1. The first process (index 0) writes files, and the others read them after `wait`. The functions of
   `runtime.files` write nothing in another process.
2. What a process could see differently decides nothing: whether a file exists, what a folder lists,
   a clock, an answer of a service. The first process looks, and `agreed` tells the others. They do
   not look themselves: a network file system would remember for a minute that nothing was there.
3. A process that fails ends, and the others end with it: their next collective operation fails, or
   JAX's coordination service misses the heartbeats of the process.

Without `join` there is one process, and everything here returns at once.
"""

import contextlib
import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ssl_extract.errors import UserError

START_SECONDS = 300  # until all processes must have been started
HEARTBEAT_SECONDS = 60  # without a heartbeat, after which a process counts as dead
_FOREVER = 30 * 86_400_000  # milliseconds: for another job's lock, or a slow service
_SEEN_SECONDS = 60.0  # in which a file must be seen everywhere; a network file system remembers

# What a collective operation, the coordination service or its client says of a dead process.
_LOST = re.compile(
    r'Gloo .* failed|Connection closed by peer|coordination.?service|heartbeat timeout'
    r'|Socket closed|NCCL .*(abort|error|remote)|Connection re(set|fused) by peer',
    re.IGNORECASE | re.DOTALL,
)


class _Joined(NamedTuple):
    index: int
    number: int


_joined = _Joined(0, 1)
_turns = itertools.count()  # the same in all processes: they take the same turns
_is_alone = False  # in what the first process makes, while the others wait for the result


def join(
    address: str = '',
    index: int | None = None,
    number: int | None = None,
    timeout: int = START_SECONDS,
) -> None:
    """Joins the processes of one run; to be called before JAX looks for devices.

    Call `parallel.meet` next, so that no process waits for the first exchange until it fails. On
    Slurm, on TPU pods and under Open MPI no argument is needed.

    Args:
        address: 'HOST:PORT' of the first process, where it can listen; '' looks it up.
        index: of this process, from 0; None looks it up.
        number: of all processes; None looks it up.
        timeout: seconds until all processes must have been started.

    Raises:
        UserError: the index does not fit the number, the processes do not find each other in time,
            or nothing can be looked up here.
    """
    global _joined
    import jax

    if index is not None and number is not None and not 0 <= index < number:
        raise UserError(f'process {index} of {number}: write an index from 0 to {number - 1}')
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM for itself
    try:
        jax.distributed.initialize(
            address or None,
            number,
            index,
            cluster_detection_method='deactivate' if address else None,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = ' '.join(str(error).split())[:200]
        if not address:
            raise UserError(
                '--hosts=auto: this is no job of Slurm, Open MPI or a TPU pod; write '
                f'--hosts=ADDRESS:PORT,INDEX,NUMBER, as in 10.0.0.1:8476,0,2 ({reason})'
            ) from error
        raise UserError(f'{unmet(address, index, number, timeout)} ({reason})') from error
    state = _state()
    _joined = _Joined(state.process_id, state.num_processes)


def unmet(address: str, index: int | None, number: int | None, timeout: int) -> str:
    """Says what to do where the processes do not find each other; see `join`."""
    if not address:
        return f'the processes did not find each other within {timeout} s: start all of the job'
    return (
        f'process {index} of {number}: the processes did not find each other at {address} within '
        f'{timeout} s: start all {number}, each with an index of its own and this address, at '
        'which process 0 listens'
    )


def index() -> int:
    """Returns the index of this process, from 0."""
    return _joined.index


def number() -> int:
    """Returns the number of processes."""
    return _joined.number


def is_first() -> bool:
    """Tells whether this process writes files and speaks; without `join` it does."""
    return _joined.index == 0


def named(line: str) -> str:
    """Begins a line with the process that it is of, where there are several."""
    return line if number() == 1 else f'process {index()} of {number()}: {line}'


def wait() -> None:
    """Waits until all processes are here; what was written before can be read afterwards."""
    if number() > 1 and not _is_alone:
        _state().client.wait_at_barrier(f'ssl_extract/wait/{next(_turns)}', _FOREVER)


def agreed(make: Callable[[], Any]) -> Any:
    """Returns in all processes what `make()` returns in the first; the others do not call it.

    >>> agreed(lambda: 3)
    3

    Args:
        make: returns a value that JSON can hold. What it calls may write files and take locks; it
            may run no program that spans the devices of several processes.

    Raises:
        UserError: the first process raised it.
    """
    global _is_alone
    if number() == 1 or _is_alone:
        return make()
    key, client = f'ssl_extract/agreed/{next(_turns)}', _state().client
    if not is_first():
        told = json.loads(client.blocking_key_value_get(key, _FOREVER))
        if 'error' in told:
            raise UserError(told['error'])
        return told['value']
    try:
        _is_alone = True
        value = make()
    except UserError as error:
        client.key_value_set(key, json.dumps({'error': str(error)}))
        raise
    finally:
        _is_alone = False
    client.key_value_set(key, json.dumps({'value': value}))
    return value


def agreed_arrays(make: Callable[[], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Returns in all processes the arrays that `make()` returns in the first; see `agreed`."""
    if number() == 1 or _is_alone:
        return make()
    from jax.experimental import multihost_utils

    arrays: tuple[np.ndarray, ...] = ()

    def describe() -> list[Any]:
        nonlocal arrays
        arrays = tuple(map(np.asarray, make()))
        return [[array.dtype.str, list(array.shape)] for array in arrays]

    described = agreed(describe)
    given = arrays or tuple(np.zeros(shape, kind) for kind, shape in described)
    return tuple(multihost_utils.broadcast_one_to_all(given))


def check_same(what: str, value: Any) -> None:
    """Checks that a value, as JSON, is that of the first process.

    Args:
        what: the value's name, for an error message.
        value: in this process.

    Raises:
        UserError: it differs, and names this process.
    """
    if number() == 1:
        return
    value = json.loads(json.dumps(value))
    if agreed(lambda: value) != value:
        raise UserError(
            f'{what} of process {index()} differs from that of process 0: start all processes '
            'with the same command, versions, data and modules'
        )


def check_shared(folder: epath.Path) -> None:
    """Checks that this process sees what the first process writes into a folder.

    Args:
        folder: made where it is missing.

    Raises:
        UserError: it does not, as with a folder on a disk of one host.
    """
    if number() == 1:
        return
    token = agreed(lambda: uuid.uuid4().hex)
    path = folder / f'.hosts-{token}'
    with _written(path, token):
        due = time.monotonic() + _SEEN_SECONDS
        while not path.exists():
            if time.monotonic() > due:
                raise UserError(
                    f'workdir={os.fspath(folder)}: process {index()} does not see what process 0 '
                    'writes there; write a folder that all hosts share, or a bucket'
                )
            time.sleep(0.2)


@contextlib.contextmanager
def _written(path: epath.Path, content: str) -> Iterator[None]:
    """Lets the first process write a file, and remove it when all are done."""
    if is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    wait()
    yield
    wait()
    if is_first():
        path.unlink()


def is_loss(error: BaseException) -> bool:
    """Tells whether an error says that another process has ended."""
    return number() > 1 and isinstance(error, RuntimeError | ValueError) and is_lost(str(error))


def is_lost(message: str) -> bool:
    """Tells whether a library's message says that another process has ended.

    >>> is_lost('UNKNOWN: Gloo all-reduce failed: Connection closed by peer [10.0.0.2]:1')
    True
    """
    return bool(_LOST.search(message))


def _state() -> Any:
    from jax._src import distributed  # JAX has no public name for the coordination service

    return distributed.global_state
