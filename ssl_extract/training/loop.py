"""The training loop and its one compiled step.

A victim's pretraining and an attack are both a `Recipe`: the initialization, the preparation of a
batch on the device (views, queries), and the objective. `fit` trains any recipe.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from ssl_extract import numerics
from ssl_extract.augment import to_float
from ssl_extract.data import Records
from ssl_extract.runtime import checkpoint, files, hosts, loggers, parallel, progress
from ssl_extract.runtime.ahead import ahead
from ssl_extract.training.dispatch import Cuts, steps_of
from ssl_extract.training.optimizers import SCHEDULES, make_tx
from ssl_extract.training.recipe import Fit, Recipe, TrainState

RESIDENT_BYTES = 4 * 2**30  # larger sets stay on the host and are sent batch by batch
SAID_SECONDS = 1.0  # of a compilation that a line tells of


@functools.cache
def make_step(
    recipe: Recipe,
    optimizer: str,
    schedule: str,
    mesh: jax.sharding.Mesh,
    decode: Callable = to_float,
    steps_per_dispatch: int = 1,
) -> Callable:
    """Compiles `step_of` for one training on the mesh; several steps as `dispatch.steps_of` does.

    The same recipe gives the same compiled step, whatever the set size, rate and number of steps.

    Args:
        recipe, optimizer, schedule, decode: see `step_of`.
        mesh: batches are sharded over the mesh.
        steps_per_dispatch: the most steps of a program.
    """
    step = step_of(recipe, optimizer, schedule, decode)
    if steps_per_dispatch > 1:
        step = steps_of(step, mesh.devices.flat[0].platform)
    return parallel.compile_step(step, mesh)


def step_of(
    recipe: Recipe, optimizer: str, schedule: str, decode: Callable = to_float
) -> Callable[..., tuple[TrainState, dict[str, jax.Array], Any]]:
    """Returns `step(state, batch, oracle, learning_rate, num_steps) -> (state, metrics, queries)`.

    Args:
        recipe: see `Recipe`.
        optimizer: a spec of `OPTIMIZERS`, or a chain.
        schedule: a spec of `SCHEDULES`.
        decode: stored inputs to the inputs of encoders, a pure function.
    """
    tx, factor = make_tx(optimizer), SCHEDULES.make(schedule)

    def step(
        state: TrainState,
        batch: dict[str, jax.Array],
        oracle: Any,
        learning_rate: jax.typing.ArrayLike,
        num_steps: jax.typing.ArrayLike,
    ) -> tuple[TrainState, dict[str, jax.Array], Any]:
        key = jax.random.fold_in(state.key, state.step)
        ask = None if oracle is None else lambda inputs, account: oracle.query(inputs, account)
        batch = batch | {'inputs': decode(batch['inputs'])}
        batch, account, queries = recipe.prepare(batch, key, ask, state.oracle)
        (loss, (batch_stats, measured)), grads = jax.value_and_grad(recipe.objective, has_aux=True)(
            state.params, state.batch_stats, batch
        )
        # Of the steps that share an update, the first sets the rate, as of one large batch.
        start = state.step - optax.tree.get(state.opt_state, 'mini_step', 0)
        rate = learning_rate * factor(start / num_steps)
        opt_state = optax.tree.set(state.opt_state, learning_rate=rate)
        last = state.step + 1 == num_steps
        updates, opt_state = tx.update(grads, opt_state, state.params, last=last)
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            oracle=account,
        )
        return state, {'loss': loss, 'learning_rate': rate, **measured}, queries

    return step


@functools.cache
def make_init(
    recipe: Recipe, optimizer: str, input_shape: tuple[int, ...], mesh: jax.sharding.Mesh
) -> Callable:
    """Compiles `init(key, account, frozen, initial) -> TrainState`, whole on every device."""
    return parallel.compile_init(
        lambda key, account, frozen=None, initial=None: init_state(
            recipe, optimizer, key, input_shape, account, frozen, initial
        ),
        mesh,
    )


def init_state(
    recipe: Recipe,
    optimizer: str,
    key: jax.Array,
    input_shape: tuple[int, ...],
    account: Any = (),
    frozen: dict[str, Any] | None = None,
    initial: dict[str, Any] | None = None,
) -> TrainState:
    """Makes a fresh state at step 0.

    Args:
        recipe: see `Recipe`.
        optimizer: a spec of `OPTIMIZERS`, or a chain.
        key: of initialization and of the steps.
        input_shape: of one decoded input.
        account: an OracleState, or () where nothing is asked.
        frozen: variables of networks trained before, by name. They are part of `batch_stats`, which
            no optimizer changes.
        initial: variables of networks to go on with, by name, in place of fresh ones.
    """
    init_key, train_key = jax.random.split(key)
    variables = recipe.init(init_key, jnp.zeros((1, *input_shape)))
    for name, given in (initial or {}).items():
        for kind, tree in given.items():
            copied = jax.tree.map(jnp.copy, tree)  # a step overwrites its state
            variables[kind] = variables[kind] | {name: copied}
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables['params'],
        batch_stats=variables['batch_stats'] | (frozen or {}),
        opt_state=make_tx(optimizer).init(variables['params']),
        oracle=account,
        key=train_key,
    )


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order in which an epoch visits the examples: int32[size]."""
    return np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)


def fit(
    recipe: Recipe,
    data: dict[str, np.ndarray],
    *,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    optimizer: str = 'adam',
    schedule: str = 'cosine',
    seed: int = 0,
    folder: epath.Path,
    mesh: jax.sharding.Mesh,
    decode: Callable = to_float,
    oracle: Any = None,
    account: Any = (),
    frozen: dict[str, Any] | None = None,
    initial: dict[str, Any] | None = None,
    checkpoint_every: int = 500,
    log_every: int = 25,
    steps_per_dispatch: int = 1,
    log_to: str = '',
    description: str = 'train',
    field: str = 'learning_rate',
) -> Fit:
    """Trains a recipe for `num_steps` steps, or goes on from the newest checkpoint in `folder`.

    Each epoch visits the examples in a fresh order and leaves out the last, incomplete batch.

    Args:
        recipe: see `Recipe`.
        data: arrays [N, ...] with a common first axis, among them `inputs` as they are stored,
            which may be `Records`.
        num_steps: the number of steps of the whole training.
        batch_size: examples in a step, a multiple of the devices of the mesh.
        learning_rate: the factor of the schedule.
        optimizer: a spec of `OPTIMIZERS`, or a chain.
        schedule: a spec of `SCHEDULES`.
        seed: of initialization, order and draws.
        folder: of checkpoints, metrics and the fingerprints of queries.
        mesh: batches are sharded over the mesh.
        decode: stored inputs to the inputs of encoders, a pure function; applied on the device.
        oracle: answers the queries of `recipe.prepare`; needs `account`.
        account: the attacker's OracleState.
        frozen, initial: see `init_state`.
        checkpoint_every: steps from one checkpoint to the next.
        log_every: steps from one fetch of metrics to the next.
        steps_per_dispatch: the most steps that are one program; see `dispatch.check_loop`.
        log_to: a chain of `loggers.LOGGERS`, which get the metrics at every fetch.
        description: the title of the progress bar.
        field: the name of the learning rate in an error message.

    Raises:
        FloatingPointError: the loss, a parameter or a statistic is not finite; the message names
            the step and the field to change. Such a state is never saved.
    """
    size = len(data['inputs'])
    stored = jax.ShapeDtypeStruct((1, *data['inputs'].shape[1:]), data['inputs'].dtype)
    input_shape = jax.eval_shape(decode, stored).shape[1:]
    step_fn = make_step(recipe, optimizer, schedule, mesh, decode, steps_per_dispatch)
    init = make_init(recipe, optimizer, input_shape, mesh)
    state = init(jax.random.key(seed), account, frozen, initial)
    manager = checkpoint.manager(folder / 'checkpoints')
    restored = checkpoint.restore(manager, state, mesh)
    state, meta = restored or (state, {'step': 0, 'seconds': 0.0, 'flops': 0.0})
    check = functools.partial(_check, description=description, field=field)
    check(state, [], meta['step'])
    flops = meta['flops']  # of one step
    start, clock = meta['step'], time.monotonic() - meta['seconds']
    hosts.agreed(lambda: drop_parts_after(folder, start))
    _read_queries(folder / 'asked', state.oracle)
    resumed = f'{description}: goes on from step {start} of {num_steps}'
    progress.note(folder / 'checkpoints', resumed if 0 < start < num_steps else '')
    training = loggers.Training(description, folder, start, num_steps)

    # The order of a step's end matters. Metrics are fetched from the device in groups, so that the
    # device does not wait for the host, and a loss or parameters that are not finite stop the run
    # before a checkpoint is written. Metrics and fingerprints since the last checkpoint are written
    # as parts first and the checkpoint last: after a kill, `drop_parts_after` removes the parts
    # that belong to no complete checkpoint, and the steps since then run again. Closing the manager
    # lets a run that stops finish the last save.
    pending, rows, queries = [], [], []
    bar = progress.progress(total=num_steps, initial=start, desc=description, unit='step')
    cuts = Cuts(num_steps, steps_per_dispatch, (checkpoint_every, log_every))
    rows_of = functools.partial(cuts.rows, functools.partial(batch_rows, seed, size, batch_size))
    firsts = cuts.firsts(start)
    with (
        bar,
        checkpoint.closing(manager),
        loggers.opened(log_to, training) as log,
        contextlib.closing(batches_of(data, rows_of, firsts, mesh)) as batches,
    ):
        for first, batch in zip(firsts, batches, strict=True):
            steps = cuts.steps(first)
            args = (state, batch, oracle, learning_rate, num_steps)
            args += (len(steps),) if steps_per_dispatch > 1 else ()
            if first == start:
                program = compile_ahead(step_fn, args, mesh, description)
                flops = flops or program.flops * mesh.size
            state, measured, step_queries = step_fn(*args)
            if parallel.is_emulated(mesh):
                jax.block_until_ready(measured)
            pending.append((steps, measured))
            if step_queries is not None:
                queries.append(step_queries)
            done = steps.stop
            saves = done == num_steps or done % checkpoint_every == 0
            if saves or done % log_every == 0:
                fetched = _fetch(pending)
                rows += fetched
                pending.clear()
                check(state, fetched, done)
                log(fetched)
                bar.set_postfix(loss=f'{rows[-1]["loss"]:.4g}', refresh=False)
            if saves:
                loggers.write_part(folder / 'metrics', done, rows)
                _write_queries(folder / 'asked', done, queries)
                rows, queries = [], []
                meta = {'step': done, 'seconds': time.monotonic() - clock, 'flops': flops}
                checkpoint.save(manager, done, state, meta)
            bar.update(len(steps))
    prints = _read_queries(folder / 'asked', state.oracle)
    return Fit(state, time.monotonic() - clock, flops * num_steps, prints)


def compile_ahead(
    step: Callable, args: tuple, mesh: jax.sharding.Mesh, description: str
) -> parallel.Program:
    """Compiles a step before the first one is taken, and says what it takes.

    Raises:
        UserError: a step needs more memory than the devices have.
    """
    program = parallel.compile_ahead(step, *args)
    if program.seconds >= SAID_SECONDS:
        progress.say(
            f'{description}: compiled in {program.seconds:.1f} s; a step takes '
            f'{program.flops / 1e9:,.3g} GFLOP and {program.memory / 2**20:,.0f} MiB on each device'
        )
    parallel.check_fits(program, mesh, f'{description}: a step')
    return program


def batch_rows(seed: int, size: int, batch_size: int, step: int) -> np.ndarray:
    """Returns the rows of the batch of a step, int32 [batch_size]."""
    epoch, position = divmod(step, size // batch_size)
    return _epoch_order(seed, epoch, size)[position * batch_size : (position + 1) * batch_size]


_epoch_order = functools.lru_cache(maxsize=4)(epoch_order)  # the batches ahead may be of the next


def batches_of(
    data: dict[str, Any],
    rows_of: Callable[[int], np.ndarray],
    steps: Sequence[int],
    mesh: jax.sharding.Mesh,
) -> Iterator[dict[str, jax.Array]]:
    """Yields the batch of each step: from the devices if the set fits there, else from the host.

    The host reads, decodes and sends batches ahead of the steps. A batch depends on its step alone,
    so that a training goes on at the exact sample.

    Args:
        data: arrays [N, ...], or `Records`.
        rows_of: a step to its rows, int [B], or [K, B] of the K steps from it on.
        steps: to take.
        mesh: batches are sharded over the mesh.
    """
    num_bytes = sum(x.nbytes for x in data.values())
    if num_bytes > RESIDENT_BYTES or any(isinstance(x, Records) for x in data.values()):
        yield from ahead(lambda step: parallel.put_rows(data, rows_of(step), mesh), steps)
        return
    resident = parallel.replicate(data, mesh)
    for step in steps:
        rows = rows_of(step)
        yield parallel.compile_take(mesh, rows.ndim - 1)(resident, rows)


def _fetch(pending: list[tuple[range, Any]]) -> list[dict[str, float]]:
    """Brings metrics from the device, one or several steps of each program."""
    fetched = jax.device_get([measured for _, measured in pending])
    return [
        {'step': step, **{name: float(np.ravel(values)[i]) for name, values in measured.items()}}
        for (steps, _), measured in zip(pending, fetched, strict=True)
        for i, step in enumerate(steps)
    ]


def _check(
    state: TrainState, rows: list[dict[str, float]], step: int, description: str, field: str
) -> None:
    """Stops the run at a loss, or parameters and statistics after `step`, that are not finite.

    The loss does not tell of the parameters: a compiled ReLU may turn NaN into 0, and the gradient
    of a finite loss may be NaN.
    """
    advice = f'lower {field}, or check the optimizer, and the loss and its gradient on this data'
    for row in rows:
        if not np.isfinite(row['loss']):
            raise FloatingPointError(
                f'{description}: the loss is {row["loss"]} at step {row["step"]}; {advice}'
            )
    if not numerics.is_finite((state.params, state.batch_stats)):
        raise FloatingPointError(
            f'{description}: parameters or statistics are not finite after {step} steps; {advice}'
        )


def _write_queries(folder: epath.Path, step: int, queries: list[Any]) -> None:
    if queries:
        parts = [prints[granted] for prints, granted in jax.device_get(queries)]
        files.write_npz(folder / f'part-{step:010d}.npz', fingerprints=np.concatenate(parts))


def _read_queries(folder: epath.Path, account: Any) -> np.ndarray:
    """Reads the fingerprints of the queries that were paid so far, as the account counts them."""
    parts = files.find_together(folder, 'part-*.npz')
    prints = [files.read_npz(part)['fingerprints'] for part in parts]
    paid = np.concatenate([np.zeros((0, 2), np.uint32), *prints])
    if account and len(paid) != int(account.num_queries):
        raise files.DamagedError(
            f'{folder} holds {len(paid)} of {int(account.num_queries)} queries: a part is missing'
        )
    return paid


def drop_parts_after(folder: epath.Path, step: int) -> None:
    """Removes parts of metrics and queries that belong to a checkpoint that was never completed.

    Args:
        folder: of the training.
        step: of its newest checkpoint.
    """
    for name in ('metrics', 'asked'):
        for part in files.find(folder / name, 'part-*'):
            if int(part.stem.split('-')[1]) > step:
                files.remove(part)
