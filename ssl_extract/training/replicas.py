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
from ssl_extract.training.dispatch import Cuts, steps_of
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
    steps_per_dispatch: int = 1,
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
        checkpoint_every, log_every, steps_per_dispatch, log_to: see `fit`.
        description: the title of the progress bar.

    Raises:
        UserError: the replicas differ in shapes, or cannot be shared out evenly.
    """
    _check(replicas, mesh)
    stored = replicas[0].data['inputs']
    example = jax.ShapeDtypeStruct((1, *stored.shape[1:]), stored.dtype)
    input_shape = jax.eval_shape(decode, example).shape[1:]
    init = loop.make_init(recipe, optimizer, input_shape, mesh)
    cuts = Cuts(num_steps, steps_per_dispatch, (checkpoint_every, log_every))
    step = _compile(recipe, optimizer, schedule, mesh, decode, steps_per_dispatch > 1)
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
                _train(step, group, start, cuts, batch_size, mesh, title)


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
    recipe: Recipe,
    optimizer: str,
    schedule: str,
    mesh: jax.sharding.Mesh,
    decode: Callable,
    several: bool,
) -> Callable:
    """Compiles `step(states, batches, rates, counts) -> (states, metrics)` of all replicas.

    The counts are the steps of the training, and of the program where it has several.
    """
    step = loop.step_of(recipe, optimizer, schedule, decode)
    step = steps_of(step, mesh.devices.flat[0].platform) if several else step

    def one(state: TrainState, batch: Any, rate: jax.Array, counts: tuple) -> tuple[Any, Any]:
        state, measured, _ = step(state, batch, None, rate, *counts)
        return state, measured

    return parallel.compile_replicas(one, mesh)


def _train(
    step: Callable,
    group: list[_Started],
    start: int,
    cuts: Cuts,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    description: str,
) -> None:
    """Trains replicas that are at the same step; see the notes in `loop.fit` on the order."""
    num_steps, (checkpoint_every, log_every) = cuts.stop, cuts.every
    count, began = len(group), time.monotonic()
    rows_of = _make_rows_of([started.replica for started in group], batch_size)
    take = _make_take([started.replica.data for started in group], mesh)
    states = parallel.stack([started.state for started in group], mesh)
    rates = np.float32([started.replica.learning_rate for started in group])
    flops, pending = group[0].meta['flops'], []
    rows: list[list[dict[str, float]]] = [[] for _ in group]
    finite = [True] * count
    bar = progress.progress(total=num_steps, initial=start, desc=description, unit='step')
    with bar:
        for first in cuts.firsts(start):
            steps = cuts.steps(first)
            batch = take(cuts.rows(rows_of, first))
            counts = (num_steps,) if cuts.most == 1 else (num_steps, len(steps))
            args = (states, batch, rates, counts)
            if first == start:
                program = loop.compile_ahead(step, args, mesh, description)
                flops = flops or program.flops * mesh.size / count
            states, measured = step(*args)
            if parallel.is_emulated(mesh):
                jax.block_until_ready(measured)
            pending.append((steps, measured))
            done = steps.stop
            saves = done == num_steps or done % checkpoint_every == 0
            if saves or done % log_every == 0:
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
                        loggers.write_part(started.replica.folder / 'metrics', done, rows[index])
                        spent = started.meta['seconds'] + seconds
                        meta = {'step': done, 'seconds': spent, 'flops': flops}
                        checkpoint.save(started.manager, done, state, meta)
                rows = [[] for _ in group]
            bar.update(len(steps))


def _make_rows_of(replicas: list[Replica], batch_size: int) -> Callable[[int], np.ndarray]:
    """Makes the choice of the rows of all replicas: a step -> int [R, B]."""
    size = len(replicas[0].data['inputs'])

    @functools.lru_cache(maxsize=2)
    def orders(epoch: int) -> np.ndarray:
        return np.stack([loop.epoch_order(replica.seed, epoch, size) for replica in replicas])

    def rows_of(step: int) -> np.ndarray:
        epoch, position = divmod(step, size // batch_size)
        return orders(epoch)[:, position * batch_size : (position + 1) * batch_size]

    return rows_of


def _make_take(data: list[dict[str, np.ndarray]], mesh: jax.sharding.Mesh) -> Callable:
    """Makes the look-up of rows of every replica.

    It takes int [R, B] to arrays [R, B, ...], and int [K, R, B] of K steps to [R, K, B, ...].
    """
    if sum(x.nbytes for arrays in data for x in arrays.values()) <= loop.RESIDENT_BYTES:
        stacked = {name: np.stack([arrays[name] for arrays in data]) for name in data[0]}
        look_up = functools.partial(parallel.compile_take_each(mesh), parallel.put(stacked, mesh))
    else:

        def look_up(of_each: np.ndarray) -> Any:
            pairs = [*zip(data, of_each, strict=True)]
            chosen = {name: np.stack([arrays[name][i] for arrays, i in pairs]) for name in data[0]}
            return parallel.put(chosen, mesh)

    return lambda indices: look_up(np.moveaxis(indices, -2, 0))


def _fetch(
    pending: list[tuple[range, Any]], count: int, mesh: jax.sharding.Mesh
) -> list[list[dict[str, float]]]:
    """Brings metrics from the device, for each replica."""
    fetched = parallel.fetch([measured for _, measured in pending], mesh)
    return [
        [
            {'step': step, **{k: float(np.ravel(v[index])[i]) for k, v in measured.items()}}
            for (steps, _), measured in zip(pending, fetched, strict=True)
            for i, step in enumerate(steps)
        ]
        for index in range(count)
    ]
