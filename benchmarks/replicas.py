"""Shadows trained together or one by one: `python -m benchmarks.replicas [--replicas=8 ...]`.

Prints the seconds of one SimCLR step of several encoders, each on its own images: as one program of
replicas (`jax.vmap` of the step) and as a call for each. The two are measured in turn, so that
other work on the machine slows both. The ratio is the median over the rounds.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from ssl_extract import augment, training, victims
from ssl_extract.encoders import trained
from ssl_extract.runtime import parallel

_ENCODER = flags.DEFINE_string(
    'encoder', 'resnet18(stem="patch", width=8, stages=(1, 1))', 'Of each shadow.'
)
_SIZE = flags.DEFINE_integer('size', 16, 'Images are size x size.', lower_bound=8)
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images per step and shadow.', lower_bound=2)
_REPLICAS = flags.DEFINE_integer('replicas', 8, 'Shadows trained together.', lower_bound=2)
_ROUNDS = flags.DEFINE_integer('rounds', 10, 'Steps that are measured.', lower_bound=1)


def seconds(work: Callable[[], Any]) -> float:
    """Measures one call, until its result is there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def main(_: list[str]) -> None:
    """Measures and prints both ways."""
    count, side, mesh = _REPLICAS.value, _SIZE.value, parallel.data_mesh()
    network, view = trained.make(_ENCODER.value), augment.make('simclr')
    recipe = victims.VICTIMS.make('simclr', encoder=network, augmentation=view)
    step = training.make_step(recipe, 'adam', 'cosine', mesh)
    init = training.make_init(recipe, 'adam', (side, side, 3), mesh)
    states = [init(jax.random.key(seed), (), None) for seed in range(count)]
    shape = (count, _BATCH.value, side, side, 3)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.jit(
        jax.vmap(lambda state, batch: step(state, batch, None, 1e-3, 1000)[0]), donate_argnums=0
    )

    def step_together() -> Any:
        nonlocal stacked
        stacked = together(stacked, {'inputs': images})
        return stacked.step

    def step_apart() -> Any:
        for index in range(count):
            batch = {'inputs': images[index]}
            states[index] = step(states[index], batch, None, 1e-3, 1000)[0]
        return [state.step for state in states]

    compiled = [seconds(work) for work in (step_together, step_apart)]
    rounds = [[seconds(step_together), seconds(step_apart)] for _ in range(_ROUNDS.value)]
    medians, ratio = np.median(rounds, axis=0), np.median([a / b for a, b in rounds])
    print(f'{jax.devices()[0].device_kind}, {count} x {_ENCODER.value}, {shape[1:]} uint8')
    for name, median, first in zip(('together', 'apart'), medians, compiled, strict=True):
        print(f'{name:10s}{median:10.3f} s/step{first:10.1f} s with compilation')
    print(f'together takes {ratio:.2f} times as long')


if __name__ == '__main__':
    app.run(main)
