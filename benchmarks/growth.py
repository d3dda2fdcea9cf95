"""How cost grows: `python -m benchmarks.growth [--figure=FILE.png] [--json=FILE]`.

Prints, for each of queries, batch, devices, replicas, D and classes, seconds at several values, all
else equal, and the exponent p of seconds ~ value^p between the two largest values. Each is the
median of rounds, in which the values are measured in turn. Compilation is not counted. The devices
have a process for each number, which measures its steps itself.
"""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from absl import app, flags, logging
from etils import epath

import ssl_extract
from benchmarks import commands, pieces
from ssl_extract import training
from ssl_extract.encoders import trained
from ssl_extract.evaluation import probe
from ssl_extract.runtime import files, parallel, progress

_FIGURE = flags.DEFINE_string('figure', None, 'Where to draw the curves.')
_JSON = flags.DEFINE_string('json', None, 'Where to write the seconds.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'That are measured.', lower_bound=1)
_SCALE = flags.DEFINE_float('scale', 1.0, 'Times as much of everything.', lower_bound=0.001)
_ONLY = flags.DEFINE_multi_string('only', [], 'Names of curves; all without.')

ENCODER = 'resnet18(stem="patch", width=8, stages=(1, 1))'
SIDE = 16
STEPS = 'growth.steps'  # the argument of the process that measures on some devices


class Curve(NamedTuple):
    """One quantity that grows.

    Attributes:
        what: takes the time.
        unit: of the values.
        values: that are measured.
        work: prepares a value; returns what is measured.
    """

    what: str
    unit: str
    values: tuple[int, ...]
    work: Callable[[int], Callable[[], float | None]]


@functools.cache
def images(count: int) -> np.ndarray:
    """Draws images uint8 [count, 16, 16, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@functools.cache
def attack(dim: int, loss: str = 'mse') -> training.Recipe:
    """The recipe of a direct attack on stored answers of `dim` numbers; always the same object."""
    return pieces.imitation(trained.make(ENCODER), dim, loss=loss)


@functools.cache
def answered(count: int, dim: int) -> dict[str, np.ndarray]:
    """Draws images with stored answers."""
    answers = np.random.default_rng(1).random((count, 1, dim), np.float32)
    return {'inputs': images(count), 'answers': answers, 'answered': np.ones((count, 1), bool)}


def fit(count: int, batch_size: int, num_steps: int, dim: int = 16, loss: str = 'mse') -> None:
    """Trains a surrogate on stored answers, checkpoints included."""
    with tempfile.TemporaryDirectory() as folder:
        training.fit(
            attack(dim, loss),
            answered(count, dim),
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=1e-3,
            folder=epath.Path(folder),
            mesh=parallel.data_mesh(),
        )


def steal(count: int) -> None:
    """Asks for `count` answers, and trains for five epochs on them."""
    network = trained.make(ENCODER)
    variables = network.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    victim = jax.tree_util.Partial(network.apply, variables)
    oracle = ssl_extract.make_oracle(victim, budget=count)
    ssl_extract.collect(oracle, images(count), batch_size=64)
    fit(count, 64, 5 * count // 64)


def together(count: int, steps: int) -> None:
    """Trains some surrogates as one program."""
    with tempfile.TemporaryDirectory() as folder:
        replicas = [
            training.Replica(answered(256, 16), seed, 1e-3, epath.Path(folder) / str(seed))
            for seed in range(count)
        ]
        training.fit_together(
            attack(16), replicas, num_steps=steps, batch_size=16, mesh=parallel.data_mesh()
        )


def fit_probe(classes: int, rows: int) -> Callable[[], None]:
    """Prepares a probe on drawn features of 128 numbers."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    centers = random.normal(size=(classes, 128))
    features = (centers[labels] + 2 * random.normal(size=(rows, 128))).astype(np.float32)

    def fit() -> None:
        probe.fit_probe(features, labels, classes, l2_grid=(1e-3,))

    return fit


def curves(scale: float) -> dict[str, Curve]:
    """Lists what is measured; `scale` times as much of everything."""

    def some(count: int) -> int:
        return max(1, round(scale * count))

    def sizes(*counts: int) -> tuple[int, ...]:
        return tuple(64 * max(i + 1, some(count) // 64) for i, count in enumerate(counts))

    steps = some(100)
    return {
        'queries': Curve(
            'asking, and five epochs',
            'queries',
            sizes(1_024, 4_096, 16_384),
            lambda n: lambda: steal(n),
        ),
        'batch, mse': Curve(
            f'{steps} steps of mse',
            'images a step',
            (16, 128, 1_024),
            lambda n: lambda: fit(1_024, n, steps),
        ),
        'batch, infonce': Curve(
            f'{steps} steps of infonce',
            'images a step',
            (16, 128, 1_024),
            lambda n: lambda: fit(1_024, n, steps, loss='infonce(temperature=0.1)'),
        ),
        'devices': Curve(
            f'{steps} steps of mse, batch 256',
            'emulated devices, the same cores',
            (1, 2, 4, 8),
            lambda n: lambda: on_devices(n, steps),
        ),
        'replicas': Curve(
            f'{steps} steps of each, batch 16',
            'replicas',
            (1, 4, 16),
            lambda n: lambda: together(n, steps),
        ),
        'D': Curve(
            f'{steps} steps of infonce, batch 256',
            'numbers of an answer',
            (64, 512, 4_096),
            lambda n: lambda: fit(1_024, 256, steps, dim=n, loss='infonce(temperature=0.1)'),
        ),
        'classes': Curve(
            f'a probe on {some(10_000):,} features of 128 numbers',
            'classes',
            (2, 10, 100, 1_000),
            lambda n: fit_probe(n, max(2 * n, some(10_000))),
        ),
    }


def on_devices(count: int, steps: int) -> float:
    """Trains in a process with so many devices; returns the seconds that it measured."""
    flag = f'--xla_force_host_platform_device_count={count}'
    others = re.sub(
        r'--xla_force_host_platform_device_count=\d+', '', os.environ.get('XLA_FLAGS', '')
    )
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.growth', STEPS, str(steps)],
        env=os.environ | {'XLA_FLAGS': f'{others} {flag}', 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def seconds(work: Callable[[], float | None]) -> float:
    """Measures one call, or takes the seconds that it has measured itself."""
    start = time.perf_counter()
    own = work()
    return time.perf_counter() - start if own is None else own


def measure(curve: Curve, rounds: int) -> list[float]:
    """Measures the seconds at each value: the median of rounds, after one that is not counted."""
    works = [curve.work(value) for value in curve.values]
    times = np.array([[seconds(work) for work in works] for _ in range(rounds + 1)])
    return np.median(times[1:], axis=0).tolist()


def exponent(values: tuple[int, ...], times: list[float]) -> float:
    """p of seconds ~ value^p between the two largest values."""
    return float(np.log(times[-1] / times[-2]) / np.log(values[-1] / values[-2]))


def draw(path: str, found: dict[str, Curve], times: dict[str, list[float]]) -> None:
    """Draws the curves, with a line of slope 1 through the first point of each."""
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.5), layout='constrained')
    for axis in axes.flat[len(found) :]:
        axis.axis('off')
    for axis, (name, curve) in zip(axes.flat, found.items(), strict=False):
        values = np.array(curve.values)
        axis.loglog(values, times[name], 'o-')
        axis.loglog(values, times[name][0] * values / values[0], ':', color='gray')
        axis.set(title=f'{name}: {curve.what}', xlabel=curve.unit, ylabel='seconds')
        axis.title.set_size(8)
        axis.set_xticks(values, [f'{value:,}' for value in values], minor=False)
        axis.minorticks_off()
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Measures and prints."""
    logging.set_verbosity(logging.WARNING)
    if argv[1:2] == [STEPS]:
        fit(1_024, 256, 1)
        print(seconds(lambda: fit(1_024, 256, int(argv[2]))))
        return
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    found = curves(_SCALE.value)
    unknown = sorted(set(_ONLY.value) - set(found))
    if unknown:
        raise app.UsageError(f'--only={unknown[0]}: write one of {", ".join(found)}')
    found = {name: curve for name, curve in found.items() if name in (_ONLY.value or found)}
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, {ENCODER}, {SIDE}x{SIDE}')
    times = {}
    for name, curve in progress.progress(found.items(), desc='curves', unit='curve'):
        times[name] = measure(curve, _ROUNDS.value)
        shown = ''.join(
            f'{value:>8,d}: {took:.3g} s'
            for value, took in zip(curve.values, times[name], strict=True)
        )
        grows = exponent(curve.values, times[name])
        print(f'{name} ({curve.what}):\n {shown}; exponent {grows:.2f}', flush=True)
    if _FIGURE.value:
        draw(_FIGURE.value, found, times)
    if _JSON.value:
        rows = {
            name: dict(zip(map(str, found[name].values), times[name], strict=True))
            for name in found
        }
        files.write_text(_JSON.value, json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    commands.start(main)
