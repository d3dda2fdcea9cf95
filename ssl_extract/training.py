"""Training: what a recipe is, the state, the one compiled step and the one loop.

A victim's pretraining and an attack are both a `Recipe`: what is initialised, how a batch is made
ready on the device (views, queries), and the objective. `fit` trains any of them.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from ssl_extract import checkpoint, files, metrics, parallel
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

RESIDENT_BYTES = 4 * 2**30  # larger sets stay on the host and travel batch by batch

OPTIMIZERS = Registry('optimizer')
SCHEDULES = Registry('schedule')


class Recipe(NamedTuple):
    """What is trained: three pure functions.

    Attributes:
        init: `(key, images float[1, H, W, 3]) -> variables`, a dict of `params` and `batch_stats`.
        prepare: `(batch, key, ask, account) -> (batch, account, asked)`. `batch` holds the rows of
            the training arrays; here views are drawn and, online, queries are asked:
            `ask(queries [Q, H, W, 3], account) -> (Answer, account)` is all that an attack sees of
            a victim. `asked` is None, or (queries' fingerprints uint32[Q, 2], granted bool[Q]) for
            the ledger.
        objective: `(params, batch_stats, batch) -> (loss f32[], (batch_stats, metrics))`.
        heads: (name, spec) of the networks that may stand behind `encoder`, in their order; those
            that are among the params are saved with it.
    """

    init: Callable[..., Any]
    prepare: Callable[..., Any]
    objective: Callable[..., Any]
    heads: tuple[tuple[str, str], ...] = ()


class TrainState(NamedTuple):
    """All that changes from step to step; a checkpoint holds exactly this."""

    step: jax.Array  # int32[]
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    oracle: Any  # the thief's account (OracleState), or () where nothing is asked
    key: jax.Array  # key[], constant: each step folds its number in


class Fit(NamedTuple):
    """A finished training: its last state, what it took, and what it asked."""

    state: TrainState
    seconds: float
    flops: float  # floating-point operations of all steps, as XLA counts them
    asked: np.ndarray  # uint32[Q, 2], fingerprints of the granted queries in the order asked


@OPTIMIZERS.register('adam')
def adam(weight_decay: float = 0.0, b1: float = 0.9, b2: float = 0.999) -> Callable:
    """Adam with L2 regularisation added to the gradient (not decoupled), as in the paper's code."""
    return lambda learning_rate: optax.chain(
        optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1, b2)
    )


@OPTIMIZERS.register('sgd')
def sgd(weight_decay: float = 0.0, momentum: float = 0.9) -> Callable:
    """Stochastic gradient descent with momentum and L2 regularisation."""
    return lambda learning_rate: optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum)
    )


@OPTIMIZERS.register('lars')
def lars(weight_decay: float = 0.0, momentum: float = 0.9) -> Callable:
    """LARS (You et al. 2017, arXiv 1708.03888), the paper's choice for ImageNet victims."""
    return lambda learning_rate: optax.lars(learning_rate, weight_decay, momentum=momentum)


@SCHEDULES.register('cosine')
def cosine(warmup: float = 0.0) -> Callable:
    """From 1 to 0 along half a cosine over the whole run, after a linear warm-up.

    Args:
        warmup: share of the steps that warm up, in [0, 1).
    """
    if not 0 <= warmup < 1:
        raise UserError(f'cosine(warmup={warmup}): warmup is a share of the run, from 0 to below 1')
    if warmup == 0:
        return optax.cosine_decay_schedule(1.0, decay_steps=1.0)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=warmup, decay_steps=1.0)


@SCHEDULES.register('constant')
def constant() -> Callable:
    """The same learning rate from the first step to the last."""
    return optax.constant_schedule(1.0)


@functools.cache
def make_step(recipe: Recipe, optimizer: str, schedule: str, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles `step(state, batch, oracle, learning_rate, num_steps) -> (state, metrics, asked)`.

    The same recipe gives the same compiled step, whatever the set size, rate and number of steps.
    """
    tx, factor = _make_tx(optimizer), SCHEDULES.make(schedule)

    def step(state: TrainState, batch, oracle, learning_rate, num_steps):
        key = jax.random.fold_in(state.key, state.step)
        ask = None if oracle is None else lambda queries, account: oracle.query(queries, account)
        batch, account, asked = recipe.prepare(batch, key, ask, state.oracle)
        (loss, (batch_stats, measured)), grads = jax.value_and_grad(recipe.objective, has_aux=True)(
            state.params, state.batch_stats, batch
        )
        rate = learning_rate * factor(state.step / num_steps)
        opt_state = optax.tree.set(state.opt_state, learning_rate=rate)
        updates, opt_state = tx.update(grads, opt_state, state.params)
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            oracle=account,
        )
        return state, {'loss': loss, 'learning_rate': rate, **measured}, asked

    return parallel.compile_step(step, mesh)


@functools.cache
def make_init(
    recipe: Recipe, optimizer: str, image_shape: tuple[int, ...], mesh: jax.sharding.Mesh
) -> Callable:
    """Compiles `init(key, account, frozen) -> TrainState`, whole on every device."""
    return parallel.compile_init(
        lambda key, account, frozen: init_state(
            recipe, optimizer, key, image_shape, account, frozen
        ),
        mesh,
    )


def init_state(
    recipe: Recipe,
    optimizer: str,
    key: jax.Array,
    image_shape: tuple[int, ...],
    account: Any = (),
    frozen: dict[str, Any] | None = None,
) -> TrainState:
    """A fresh state at step 0.

    Args:
        account: an OracleState or ().
        frozen: variables of networks trained before, by name; they travel with the statistics,
            which no optimiser touches.
    """
    init_key, train_key = jax.random.split(key)
    variables = recipe.init(init_key, jnp.zeros((1, *image_shape)))
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables['params'],
        batch_stats=variables['batch_stats'] | (frozen or {}),
        opt_state=_make_tx(optimizer).init(variables['params']),
        oracle=account,
        key=train_key,
    )


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which an epoch visits the examples: int32[size]."""
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
    oracle: Any = None,
    account: Any = (),
    frozen: dict[str, Any] | None = None,
    checkpoint_every: int = 500,
    log_every: int = 25,
    description: str = 'train',
) -> Fit:
    """Trains a recipe for `num_steps` steps, or goes on from the newest checkpoint in `folder`.

    Each epoch visits the examples in a fresh order and leaves out its last, incomplete batch.

    Args:
        data: arrays [N, ...] with a common first axis, among them `images` uint8[N, H, W, 3].
        oracle: `recipe.prepare` may ask it; with it comes the thief's `account`.
        frozen: see `init_state`.

    Raises:
        FloatingPointError: the loss stopped being finite; names the step.
    """
    size, image_shape = len(data['images']), data['images'].shape[1:]
    steps_per_epoch = size // batch_size
    step_fn = make_step(recipe, optimizer, schedule, mesh)
    take = _make_take(data, mesh)
    init = make_init(recipe, optimizer, image_shape, mesh)
    state = init(jax.random.key(seed), account, frozen)
    manager = checkpoint.manager(folder / 'checkpoints')
    restored = checkpoint.restore(manager, state, mesh)
    state, meta = restored or (state, {'step': 0, 'seconds': 0.0, 'flops': 0.0})
    flops = meta['flops']  # of one step
    start, clock = meta['step'], time.monotonic() - meta['seconds']
    _drop_parts_after(folder, start)

    pending, rows, asked = [], [], []
    bar = metrics.progress(total=num_steps, initial=start, desc=description, unit='step')
    with bar, contextlib.closing(manager):  # a run that stops still finishes its last save
        for step in range(start, num_steps):
            epoch, position = divmod(step, steps_per_epoch)
            if position == 0 or step == start:
                order = epoch_order(seed, epoch, size)
            batch = take(order[position * batch_size : (position + 1) * batch_size])
            state, measured, step_asked = step_fn(state, batch, oracle, learning_rate, num_steps)
            if step == 0:
                args = (state, batch, oracle, learning_rate, num_steps)
                flops = parallel.count_flops(step_fn, *args) * mesh.size
            pending.append((step, measured))
            if step_asked is not None:
                asked.append(step_asked)
            last = step + 1 == num_steps
            if last or (step + 1) % log_every == 0:
                rows += _fetch(pending, description)
                pending.clear()
                bar.set_postfix(loss=f'{rows[-1]["loss"]:.4g}', refresh=False)
            if last or (step + 1) % checkpoint_every == 0:
                rows += _fetch(pending, description)
                pending.clear()
                metrics.write_part(folder / 'metrics', step + 1, rows)
                _write_asked(folder / 'asked', step + 1, asked)
                rows, asked = [], []
                meta = {'step': step + 1, 'seconds': time.monotonic() - clock, 'flops': flops}
                checkpoint.save(manager, step + 1, state, meta)
            bar.update()
    asked = _read_asked(folder / 'asked')
    return Fit(state, time.monotonic() - clock, flops * num_steps, asked)


def _make_tx(optimizer: str) -> optax.GradientTransformation:
    return optax.inject_hyperparams(OPTIMIZERS.make(optimizer))(learning_rate=0.0)


def _make_take(data: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> Callable:
    """Row look-up: on the devices if the set fits there, else on the host."""
    if sum(x.nbytes for x in data.values()) > RESIDENT_BYTES:
        sharding = parallel.batch_sharding(mesh)
        return lambda indices: jax.device_put({k: x[indices] for k, x in data.items()}, sharding)
    resident, take = parallel.replicate(data, mesh), parallel.compile_take(mesh)
    return lambda indices: take(resident, indices)


def _fetch(pending: list[tuple[int, Any]], description: str) -> list[dict[str, float]]:
    """Brings metrics from the device, and stops the run at the first loss that is not finite."""
    rows = []
    for (step, _), measured in zip(pending, jax.device_get([m for _, m in pending]), strict=True):
        rows.append({'step': step, **{name: float(value) for name, value in measured.items()}})
        if not np.isfinite(rows[-1]['loss']):
            raise FloatingPointError(
                f'{description}: the loss is {rows[-1]["loss"]} at step {step}; '
                'try a smaller learning_rate or check the loss on this data'
            )
    return rows


def _write_asked(folder: epath.Path, step: int, asked: list[Any]) -> None:
    if asked:
        parts = [prints[granted] for prints, granted in jax.device_get(asked)]
        files.write_npz(folder / f'part-{step:010d}.npz', fingerprints=np.concatenate(parts))


def _read_asked(folder: epath.Path) -> np.ndarray:
    parts = sorted(folder.glob('part-*.npz')) if folder.exists() else []
    prints = [files.read_npz(part)['fingerprints'] for part in parts]
    return np.concatenate([np.zeros((0, 2), np.uint32), *prints])


def _drop_parts_after(folder: epath.Path, step: int) -> None:
    """Removes parts that belong to a checkpoint that was never completed."""
    for name in ('metrics', 'asked'):
        for part in list((folder / name).glob('part-*')) if (folder / name).exists() else []:
            if int(part.stem.split('-')[1]) > step:
                part.unlink()
