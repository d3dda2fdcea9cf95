"""Trainings together or one by one: `python -m benchmarks.replicas [--replicas=8 ...]`.

Prints the seconds of several SimCLR trainings, each of its own images: as one program of replicas
(`training.fit_together`, as runs are with `training.replicas`) and one by one (`training.fit`),
checkpoints included. Compilation is not counted, and said apart. The two are measured in turn, so
that other work on the machine slows both. The ratio is the median over the rounds.
"""

import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags, logging
from etils import epath

from benchmarks import commands
from ssl_extract import augment, training, victims
from ssl_extract.encoders import trained
from ssl_extract.runtime import parallel

_ENCODER = flags.DEFINE_string(
    'encoder', 'resnet18(stem="patch", width=8, stages=(1, 1))', 'Of each training.'
)
_SIZE = flags.DEFINE_integer('size', 16, 'Images are size x size.', lower_bound=8)
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images per step and training.', lower_bound=2)
_REPLICAS = flags.DEFINE_integer('replicas', 8, 'Trainings.', lower_bound=2)
_STEPS = flags.DEFINE_integer('steps', 50, 'Of each training.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'That are measured.', lower_bound=1)


def seconds(work: Callable[[epath.Path], None]) -> float:
    """Measures one call, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        work(epath.Path(folder))
        return time.perf_counter() - start


def main(argv: list[str]) -> None:
    """Measures and prints both ways."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    logging.set_verbosity(logging.WARNING)
    count, side, mesh = _REPLICAS.value, _SIZE.value, parallel.data_mesh()
    recipe = victims.VICTIMS.make(
        'simclr', encoder=trained.make(_ENCODER.value), augmentation=augment.make('simclr')
    )
    shape = (count, 4 * _BATCH.value, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    how = dict(num_steps=_STEPS.value, batch_size=_BATCH.value, mesh=mesh)

    def together(folder: epath.Path) -> None:
        replicas = [
            training.Replica({'inputs': images[seed]}, seed, 1e-3, folder / str(seed))
            for seed in range(count)
        ]
        training.fit_together(recipe, replicas, **how)

    def apart(folder: epath.Path) -> None:
        for seed in range(count):
            training.fit(
                recipe,
                {'inputs': images[seed]},
                seed=seed,
                learning_rate=1e-3,
                folder=folder / str(seed),
                **how,
            )

    first = [seconds(work) for work in (together, apart)]
    rounds = np.array([[seconds(together), seconds(apart)] for _ in range(_ROUNDS.value)])
    print(
        f'{mesh.size} x {jax.devices()[0].device_kind}, {count} trainings of {_STEPS.value} steps, '
        f'{_ENCODER.value}, {side}x{side}, batch {_BATCH.value}'
    )
    for name, times, compiled in zip(('together', 'one by one'), rounds.T, first, strict=True):
        print(f'{name:12s}{np.median(times):8.2f} s{compiled:10.2f} s with compilation')
    ratios = rounds[:, 0] / rounds[:, 1]
    low, high = ratios.min(), ratios.max()
    print(f'together takes {np.median(ratios):.2f} times as long ({low:.2f} to {high:.2f})')


if __name__ == '__main__':
    commands.start(main)
