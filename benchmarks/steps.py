"""The cost of defenses with a memory, and of the training loop: `python -m benchmarks.steps`.

    python -m benchmarks.steps --what=defenses

prints what defenses with a memory add to a query of an ImageNet-sized victim, for an account that
has sent all of its queries: milliseconds, their share of the victim's forward pass, and the bytes
of its state.

    python -m benchmarks.steps --what=loop

prints what the training loop takes between steps: choosing a batch, metrics, checkpoints, the
progress bar. After every 25 steps of a training, 25 bare steps run on one batch, so that both sides
meet the same machine.
"""

import math
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from etils import epath

from benchmarks import commands
from benchmarks.pieces import imitation, prepared
from benchmarks.timing import rate
from ssl_extract import defenses, encoders, training
from ssl_extract.defenses import similarity
from ssl_extract.encoders import trained
from ssl_extract.runtime import loggers, parallel

PRESETS = {  # encoder, side of the images, batch size
    'defenses': ('resnet50(stem="imagenet")', 224, 64),
    'loop': ('resnet18(stem="patch", width=32, stages=(1, 1, 1))', 32, 256),
}

_WHAT = flags.DEFINE_enum('what', 'loop', list(PRESETS), 'What to measure.')
_ENCODER = flags.DEFINE_string('encoder', None, f'Victim and surrogate; from {PRESETS}.')
_SIZE = flags.DEFINE_integer('size', None, 'Images are size x size.', lower_bound=8)
_BATCH = flags.DEFINE_integer('batch_size', None, 'Images per step.', lower_bound=8)
_QUERIES = flags.DEFINE_integer('queries', 250_000, 'Of the account (defenses).', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 5.0, 'Measured for at least this long, after compiling.')


def defense_rate(spec: str, answers: jax.Array, num_queries: int, seconds: float):
    """(queries a second, bytes of state) of a defense for an account with a history.

    A guard's ring is filled with random answers directly. Sending them would leave the same state,
    after `num_queries` comparisons with the whole ring.

    Args:
        spec: one defense.
        answers: float32[B, D], a batch.
        num_queries: how many the account has sent before.
        seconds: how long to measure.
    """
    defense = defenses.make(spec)
    state = defense.init(jax.random.key(0), answers, answers)
    ((name, inner),) = state.items()
    if isinstance(inner, similarity.SimilarityState):
        history = jax.jit(_random_history, donate_argnums=0)(inner.history)
        state = {name: inner._replace(history=history, num_seen=jnp.int32(num_queries))}
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    keys = jax.random.split(jax.random.key(1), len(answers))
    given = dict(inputs=None, where=jnp.ones(len(answers), bool), keys=keys)
    apply = jax.jit(lambda state, answers: defense.apply(answers, state, **given), donate_argnums=0)

    def work():
        nonlocal state
        outputs, _, state = apply(state, answers)
        return outputs

    return rate(work, seconds) * len(answers), state_bytes


def _random_history(history: similarity.History) -> similarity.History:
    """Random rows of length 1, made in blocks: a ring takes gigabytes."""
    capacity, dim = history.rows.shape
    size = min(capacity, 1024)

    def fill(i: jax.Array, rows: jax.Array) -> jax.Array:
        block = jax.random.normal(jax.random.key(i), (size, dim))
        block /= jnp.linalg.norm(block, axis=1, keepdims=True)
        return jax.lax.dynamic_update_slice(rows, block, (i * size, 0))

    rows = jax.lax.fori_loop(0, math.ceil(capacity / size), fill, history.rows)
    return history._replace(rows=rows)


def show_defenses(spec: str, size: int, batch_size: int, num_queries: int, seconds: float) -> None:
    """Prints what defenses add to a query."""
    network = trained.make(spec)
    images = jnp.zeros((batch_size, size, size, 3))
    variables = network.init(jax.random.key(0), images[:1])
    encode = jax.jit(network.apply)
    forward = rate(lambda: encode(variables, images), seconds) * batch_size
    answers = jax.random.normal(
        jax.random.key(3), (batch_size, encoders.dim(network, (size, size, 3)))
    )
    print(
        f'{jax.devices()[0].device_kind}, {spec}, {size}x{size}, batch {batch_size}, '
        f'{num_queries:,} queries of {answers.shape[1]:,} numbers'
    )
    print(f'{"forward pass":42s}{1e3 / forward:10.3f} ms/query', flush=True)
    for defense in ('bucket_coverage', f'similarity_guard(capacity={num_queries})'):
        per_second, state_bytes = defense_rate(defense, answers, num_queries, seconds)
        print(
            f'{defense:42s}{1e3 / per_second:10.3f} ms/query{forward / per_second:8.1%} of it'
            f'{state_bytes:15,} bytes of state',
            flush=True,
        )


def show_loop(spec: str, side: int, size: int, seconds: float) -> None:
    """Prints the milliseconds of a step of a training, and of a bare step, by rounds in turn."""
    mesh, shape = parallel.data_mesh(), (side, side, 3)
    network = trained.make(spec)
    dim, rng = encoders.dim(network, shape), np.random.default_rng(0)
    recipe = imitation(network, dim)
    count = 16 * size
    arrays = {
        'inputs': rng.integers(0, 256, (count, *shape), dtype=np.uint8),
        'answers': rng.random((count, 1, dim), np.float32),
        'answered': np.ones((count, 1), bool),
    }
    batch = {name: array[:size] for name, array in arrays.items()}

    bare, state, batch = prepared(recipe, batch)
    times: list[tuple[float, float]] = []  # seconds of the training's steps, and of the bare ones
    last = 0.0

    @loggers.register('in_turn')
    def in_turn(training: loggers.Training) -> loggers.Logger:
        del training

        def write(rows: loggers.Rows) -> None:
            nonlocal state, last
            start = time.perf_counter()
            for _ in rows:
                state, measured, _ = bare(state, batch, None, 1e-3, 1000)
            jax.block_until_ready(measured)
            end = time.perf_counter()
            times.append((start - last, end - start))
            last = end

        return loggers.Logger(write)

    num_steps = 25 * max(4, round(seconds))
    with tempfile.TemporaryDirectory() as folder:
        training.fit(
            recipe,
            arrays,
            num_steps=num_steps,
            batch_size=size,
            learning_rate=1e-3,
            folder=epath.Path(folder),
            mesh=mesh,
            log_to='in_turn',
        )
    whole, alone = np.array(times[2:]).T / 25  # the first turns compile
    print(f'{mesh.size} x {jax.devices()[0].device_kind}, {spec}, {side}x{side}, batch {size}')
    print(f'{len(whole)} turns of 25 steps: {1e3 * np.mean(whole):.2f} ms a step of the training,')
    print(f'{1e3 * np.mean(alone):.2f} ms alone; the ratio of a turn has')
    low, middle, high = np.percentile(whole / alone, [25, 50, 75])
    print(f'the quartiles {low:.3f}, {middle:.3f} and {high:.3f}')


def main(argv: list[str]) -> None:
    """Prints the table that the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    logging.set_verbosity(logging.WARNING)
    given = (_ENCODER.value, _SIZE.value, _BATCH.value)
    preset = PRESETS[_WHAT.value]
    spec, side, batch_size = (b if a is None else a for a, b in zip(given, preset, strict=True))
    if _WHAT.value == 'defenses':
        show_defenses(spec, side, batch_size, _QUERIES.value, _SECONDS.value)
    else:
        show_loop(spec, side, batch_size, _SECONDS.value)


if __name__ == '__main__':
    commands.start(main)
