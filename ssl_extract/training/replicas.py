"""Several trainings of one recipe as one compiled program.

A replica is a training that `fit` would run: it has arrays, a seed, a learning rate and a folder of
its own. All replicas have arrays of the same shapes, and take their steps together: `jax.vmap` of
the training step, with the replicas shared out over the devices. Each replica's checkpoints and
metrics are those that `fit` writes, up to the rounding of another program, so that `fit` goes on in
its folder, or has nothing left to do there.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ssl_extract import numerics
from ssl_extract.augment import to_float
from ssl_extract.errors import UserError
from ssl_extract.runtime import checkpoint, loggers, parallel, progress
from ssl_extract.training import loop
from ssl_extract.training.recipe import Recipe, TrainState


class Replica(NamedTuple):
    """One of several trainings; the arguments of `fit` in which they may differ.

    Attributes:
        data: arrays [N, ...], of the same shapes and types in all replicas.
        seed: of initialization, order and draws.
        learning_rate: the factor of the schedule.
        folder: of checkpoints and metrics.
        frozen, initial: see `init_state`.
    """

    data: dict[str, np.ndarray]
    seed: int
    learning_rate: float
    folder: epath.Path
    frozen: dict[str, Any] | None = None
    initial: dict[str, Any] | None = None


def fit_together(
    recipe: Recipe,
    replicas: Sequence[Replica],
    *,
    num_steps: int,
    batch_size: int,
    optimizer: str = 'adam',
    schedule: str = 'cosine',
    mesh: jax.sharding.Mesh,
    decode: Callable = to_float,
    checkpoint_every: int = 500,
    log_every: int = 25,
    log_to: str = '',
    description: str = 'train',
) -> None:
    """Trains replicas for `num_steps` steps, or goes on from their newest checkpoints.

    Replicas that are not at the same step are trained in groups that are. Of a group that the
    devices cannot share out evenly, the last replicas are left at their checkpoints, and `fit` on
    their folders goes on there. A replica whose loss or state stops being finite is left at its
    last checkpoint, and the others go on: `fit` on its folder comes to the same step, and says what
    is wrong.

    Args:
        recipe: see `Recipe`; it asks no queries.
        replicas: the trainings.
        num_steps, batch_size, optimizer, schedule, decode: see `fit`; of each replica.
        mesh: the replicas are shared out over its devices.
        checkpoint_every, log_every, log_to: see `fit`.
        description: the title of the progress bar.

    Raises:
        UserError: the replicas differ in shapes, or cannot be shared out evenly.
    """
    _check(replicas, mesh)
    stored = replicas[0].data['inputs']
    example = jax.ShapeDtypeStruct((1, *stored.shape[1:]), stored.dtype)
    input_shape = jax.eval_shape(decode, example).shape[1:]
    init = loop.make_init(recipe, optimizer, input_shape, mesh)
    step = _compile(recipe, optimizer, schedule, mesh, decode)
    with contextlib.ExitStack() as stack:
        groups: dict[int, list[_Started]] = {}
        for replica in replicas:
            manager = checkpoint.manager(replica.folder / 'checkpoints')
            stack.enter_context(checkpoint.closing(manager))
            state = init(jax.random.key(replica.seed), (), replica.frozen, replica.initial)
            restored = checkpoint.restore(manager, state, mesh)
            state, meta = restored or (state, {'step': 0, 'seconds': 0.0, 'flops': 0.0})
            loop.drop_parts_after(replica.folder, meta['step'])
            training = loggers.Training(description, replica.folder, meta['step'], num_steps)
            log = stack.enter_context(loggers.opened(log_to, training))
            groups.setdefault(meta['step'], []).append(_Started(replica, manager, state, meta, log))
        for start, group in groups.items():
            group = group[: len(group) - len(group) % mesh.size]
            if group and start < num_steps:
                title = f'{description}, {len(group)} together'
                every = (checkpoint_every, log_every)
                _train(step, group, start, num_steps, batch_size, mesh, every, title)


class _Started(NamedTuple):
    replica: Replica
    manager: Any
    state: TrainState
    meta: dict[str, Any]
    log: Callable[[list[dict[str, float]]], None]


def _check(replicas: Sequence[Replica], mesh: jax.sharding.Mesh) -> None:
    shapes = [{k: (v.shape, v.dtype) for k, v in replica.data.items()} for replica in replicas]
    for number, other in enumerate(shapes):
        if other != shapes[0]:
            raise UserError(
                f'replica {number} has arrays {other}, and replica 0 has {shapes[0]}: train it '
                'apart'
            )
    if len(replicas) % mesh.size:
        raise UserError(
            f'{len(replicas)} replicas cannot be shared out over {mesh.size} devices: write a '
            'multiple of the devices'
        )


@functools.cache
def _compile(
    recipe: Recipe, optimizer: str, schedule: str, mesh: jax.sharding.Mesh, decode: Callable
) -> Callable:
    """Compiles `step(states, batches, rates, num_steps) -> (states, metrics)` of all replicas."""
    step = loop.step_of(recipe, optimizer, schedule, decode)

    def one(state: TrainState, batch: Any, rate: jax.Array, num_steps: Any) -> tuple[Any, Any]:
        state, measured, _ = step(state, batch, None, rate, num_steps)
        return state, measured

    return parallel.compile_replicas(one, mesh)


def _train(
    step: Callable,
    group: list[_Started],
    start: int,
    num_steps: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    every: tuple[int, int],
    description: str,
) -> None:
    """Trains replicas that are at the same step; see the notes in `loop.fit` on the order."""
    checkpoint_every, log_every = every
    count, began = len(group), time.monotonic()
    size = len(group[0].replica.data['inputs'])
    steps_per_epoch = size // batch_size
    take = _make_take([started.replica.data for started in group], mesh)
    states = parallel.stack([started.state for started in group], mesh)
    rates = np.float32([started.replica.learning_rate for started in group])
    flops, pending = group[0].meta['flops'], []
    rows: list[list[dict[str, float]]] = [[] for _ in group]
    finite = [True] * count
    bar = progress.progress(total=num_steps, initial=start, desc=description, unit='step')
    with bar:
        for number in range(start, num_steps):
            epoch, position = divmod(number, steps_per_epoch)
            if position == 0 or number == start:
                seeds = [started.replica.seed for started in group]
                orders = np.stack([loop.epoch_order(seed, epoch, size) for seed in seeds])
            batch = take(orders[:, position * batch_size : (position + 1) * batch_size])
            args = (states, batch, rates, num_steps)
            if number == start:
                program = loop.compile_ahead(step, args, mesh, description)
                flops = flops or program.flops * mesh.size / count
            states, measured = step(*args)
            if parallel.is_emulated(mesh):
                jax.block_until_ready(measured)
            pending.append((number, measured))
            saves = number + 1 == num_steps or (number + 1) % checkpoint_every == 0
            if saves or (number + 1) % log_every == 0:
                for index, fetched in enumerate(_fetch(pending, count, mesh)):
                    rows[index] += fetched
                    finite[index] &= bool(np.isfinite([row['loss'] for row in fetched]).all())
                    if finite[index]:
                        group[index].log(fetched)
                pending.clear()
            if saves:
                seconds = (time.monotonic() - began) / count
                for index, started in enumerate(group):
                    state = parallel.unstack(states, index, mesh)
                    finite[index] &= numerics.is_finite((state.params, state.batch_stats))
                    if finite[index]:
                        loggers.write_part(
                            started.replica.folder / 'metrics', number + 1, rows[index]
                        )
                        spent = started.meta['seconds'] + seconds
                        meta = {'step': number + 1, 'seconds': spent, 'flops': flops}
                        checkpoint.save(started.manager, number + 1, state, meta)
                rows = [[] for _ in group]
            bar.update()


def _make_take(data: list[dict[str, np.ndarray]], mesh: jax.sharding.Mesh) -> Callable:
    """Makes the look-up of rows of every replica, int [R, B] -> arrays [R, B, ...]."""
    stacked = {name: np.stack([arrays[name] for arrays in data]) for name in data[0]}
    if sum(x.nbytes for x in stacked.values()) > loop.RESIDENT_BYTES:
        rows = np.arange(len(data))[:, None]
        return lambda indices: parallel.put(
            {name: x[rows, indices] for name, x in stacked.items()}, mesh
        )
    resident = parallel.put(stacked, mesh)
    return functools.partial(parallel.compile_take_each(mesh), resident)


def _fetch(
    pending: list[tuple[int, Any]], count: int, mesh: jax.sharding.Mesh
) -> list[list[dict[str, float]]]:
    """Brings metrics from the device, for each replica."""
    fetched = parallel.fetch([measured for _, measured in pending], mesh)
    return [
        [
            {'step': step, **{name: float(values[index]) for name, values in measured.items()}}
            for (step, _), measured in zip(pending, fetched, strict=True)
        ]
        for index in range(count)
    ]
