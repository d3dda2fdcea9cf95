"""Several steps as one program: `python -m benchmarks.dispatch [--encoder=SPEC ...]`.

Prints the time of a step of the attack on stored answers with `training.steps_per_dispatch` of 1
and of more, in turn. The ratio is the median over rounds.
"""

import time

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks import commands, pieces
from ssl_extract import training
from ssl_extract.encoders import trained
from ssl_extract.runtime import parallel
from ssl_extract.training import dispatch, loop

_ENCODER = flags.DEFINE_multi_string(
    'encoder',
    [
        'vit(patch=4, width=16, depth=1, heads=2)',
        'vit(patch=4, width=64, depth=4, heads=4)',
        'resnet18(stem="patch", width=16, stages=(1, 1))',
    ],
    'Of the surrogate.',
)
_SIZE = flags.DEFINE_integer('size', 16, 'Images are size x size.', lower_bound=8)
_BATCH = flags.DEFINE_multi_integer('batch_size', [16, 128], 'Images per step.', lower_bound=1)
_STEPS = flags.DEFINE_multi_integer('steps', [4, 16], 'In one program.', lower_bound=2)
_ROUNDS = flags.DEFINE_integer('rounds', 15, 'That are measured.', lower_bound=1)
TOTAL = 64  # steps of a measurement


def measure(encoder: str, batch_size: int, steps: int) -> tuple[float, np.ndarray]:
    """Returns milliseconds of a step by itself, and the ratios of rounds: together to single."""
    mesh, recipe = parallel.data_mesh(), pieces.imitation(trained.make(encoder), 64)
    shape, random = (_SIZE.value, _SIZE.value, 3), np.random.default_rng(0)
    one = training.make_step(recipe, 'adam', 'cosine', mesh)
    unchecked = dispatch.steps_of(loop.step_of(recipe, 'adam', 'cosine'), platform='any')
    several = parallel.compile_step(unchecked, mesh)  # convolutions too, which a training refuses
    init = training.make_init(recipe, 'adam', shape, mesh)
    data = {
        'inputs': random.integers(0, 256, (batch_size, *shape), dtype=np.uint8),
        'answers': random.random((batch_size, 1, 64), np.float32),
        'answered': np.ones((batch_size, 1), bool),
    }
    rows = np.arange(batch_size)
    batch = parallel.put_rows(data, rows, mesh)
    batches = parallel.put_rows(data, np.stack([rows] * steps), mesh)
    given = (None, 1e-3, 10_000)
    states = [init(jax.random.key(0), (), None) for _ in range(2)]

    def single() -> float:
        start = time.perf_counter()
        for _ in range(TOTAL):
            states[0], _, _ = one(states[0], batch, *given)
        jax.block_until_ready(states[0])
        return time.perf_counter() - start

    def joined() -> float:
        start = time.perf_counter()
        for _ in range(TOTAL // steps):
            states[1], _, _ = several(states[1], batches, *given, steps)
        jax.block_until_ready(states[1])
        return time.perf_counter() - start

    single(), joined()
    times = np.array([(single(), joined()) for _ in range(_ROUNDS.value)])
    return 1e3 * float(np.median(times[:, 0])) / TOTAL, times[:, 1] / times[:, 0]


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    logging.set_verbosity(logging.WARNING)
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, {_SIZE.value}x{_SIZE.value}')
    for encoder in _ENCODER.value:
        for batch_size in _BATCH.value:
            for steps in _STEPS.value:
                alone, ratios = measure(encoder, batch_size, steps)
                low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
                print(
                    f'{encoder}, batch {batch_size}: {alone:.2f} ms a step; {steps} steps in one '
                    f'program take {middle:.2f} ({low:.2f} to {high:.2f}) of it',
                    flush=True,
                )


if __name__ == '__main__':
    commands.start(main)
