"""This package against plain PyTorch on the same CPU: `python -m benchmarks.against_torch`.

Prints images per second of both, and their ratio: the median over the rounds, with the smallest and
the largest. In a round the two take turns, with as many threads, in float32. PyTorch is eager and
channels-last. First it is given this package's parameters, and must give the same outputs.

A second table is of a whole experiment: 9,000 queries, 100 epochs, and a linear probe with 50,000
images to train and 10,000 to test on. This package asks once, computes features once and solves the
probe. PyTorch follows the reference code of the paper (arXiv 2205.07890): the victim answers in
every epoch, and a linear layer is trained through the whole encoder for 100 epochs. Its test after
every epoch is counted once.

    python -m benchmarks.against_torch --json=FILE

writes the figures to a file as well.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import comparison
from benchmarks.comparison import BUSY, INSTALL, SETUPS, Ratio, Setup

ROWS = (  # title, work here, work in PyTorch
    ('step on stored answers / bare step', 'stored', 'bare'),
    ('step on stored answers / with live victim', 'stored', 'live'),
    ('step with live victim / with live victim', 'online', 'live'),
    ('SimCLR, augmented, per view / bare step', 'simclr', 'bare'),
    ('SimCLR, augmented, per view / not augmented', 'simclr', 'simclr'),
    ('whole encoder, frozen / the same', 'inference', 'inference'),
)
LOOP = 4  # times as long: the start and the end of a training loop are taken off
QUERIES, EPOCHS, TRAIN, TEST = 9_000, 100, 50_000, 10_000
MEASURED = ('compile', 'probe')  # whole, and once; the other parts are extrapolated
TOLERANCE = 1e-4  # of the outputs, relative to the largest

_JSON = flags.DEFINE_string('json', None, 'File to write the figures to.')
_NETWORK = flags.DEFINE_multi_enum('network', list(SETUPS), list(SETUPS), 'Networks to run.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each side.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 3.0, 'Of a measurement.', lower_bound=0.0)


def check_same(ours: Callable, theirs: Callable, setup: Setup) -> float:
    """Returns the largest difference of the outputs for the same parameters, relative.

    Raises:
        ValueError: it is above `TOLERANCE`: two different networks are compared.
    """
    arrays, images, *expected = ours('reference', setup)
    outputs = theirs('outputs', setup, arrays, images)
    apart = [
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(outputs, expected, strict=True)
    ]
    if not max(apart) <= TOLERANCE:
        raise ValueError(f'{setup.spec}: outputs differ by {max(apart):.1e} of the largest')
    return max(apart)


def show_steps(
    ours: Callable, theirs: Callable, setup: Setup, rounds: int, seconds: float
) -> list[dict]:
    """Measures and prints the rows of one network."""
    print(f'{"images (views) per second":46s}{"ours":>8s}{"PyTorch":>9s}{"ratio":>8s}')
    rows = []
    for title, here, there in ROWS:
        rates = comparison.alternate(
            functools.partial(ours, 'rate', setup, here, seconds),
            functools.partial(theirs, 'rate', setup, there, seconds),
            rounds,
        )
        summary = Ratio(*rates).summary()
        rows.append({'row': title, **summary, 'rates': rates})
        print(
            f'{title:46s}{summary["ours"]:8.0f}{summary["theirs"]:9.0f}{spread(summary)}',
            flush=True,
        )
    return rows


def spread(summary: dict[str, float]) -> str:
    """Writes a ratio with its smallest and largest value."""
    return '{ratio:8.2f}  ({smallest:.2f} to {largest:.2f})'.format(**summary)


def our_parts(ours: Callable, setup: Setup, seconds: float) -> dict[str, float]:
    """Measures the seconds of each part of our experiment."""
    measure = functools.partial(ours, 'rate', setup)
    return {
        'compile': ours('first_seconds', setup, ('asking', 'stored', 'inference')),
        'ask once': QUERIES / measure('asking', seconds),
        'train': ours('training_seconds', setup, QUERIES, EPOCHS, LOOP * seconds),
        'features once': (TRAIN + TEST) / measure('inference', seconds),
        'probe': ours('probe_seconds', setup.dim, TRAIN, TEST),
    }


def their_parts(theirs: Callable, setup: Setup, seconds: float) -> dict[str, float]:
    """Measures the seconds of each part of the reference recipe."""
    measure = functools.partial(theirs, 'rate', setup)
    return {
        'train, victim live': QUERIES * EPOCHS / measure('live', seconds),
        'probe through encoder': (TRAIN * EPOCHS + TEST) / measure('probe', seconds),
    }


def show_whole(ours: Callable, theirs: Callable, setup: Setup, rounds: int, seconds: float) -> dict:
    """Measures and prints the whole experiment of one network."""
    parts = comparison.alternate(
        functools.partial(our_parts, ours, setup, seconds),
        functools.partial(their_parts, theirs, setup, seconds),
        rounds,
    )
    print(f'{"whole experiment, seconds":46s}{"ours":>8s}{"PyTorch":>9s}{"ratio":>8s}')
    medians = [{name: median_of(side, name) for name in side[0]} for side in parts]
    for side, columns in zip(medians, ('{:8.0f}         ', '{:17.0f}'), strict=True):
        for name, value in side.items():
            print(f'{name:46s}{columns.format(value)}   {how(name)}')
    totals = [[sum(part.values()) for part in side] for side in parts]
    summary = Ratio(*([1 / total for total in side] for side in totals)).summary()
    whole, reference = map(np.median, totals)
    print(f'{"together":46s}{whole:8.0f}{reference:9.0f}{spread(summary)}', flush=True)
    ratio = {name: summary[name] for name in ('ratio', 'smallest', 'largest')}
    return {'ours': medians[0], 'torch': medians[1], 'totals': totals, **ratio}


def median_of(measured: list[dict[str, float]], name: str) -> float:
    """Returns the median over the rounds of one part."""
    return float(np.median([part[name] for part in measured]))


def how(name: str) -> str:
    """Tells whether a part was measured or extrapolated."""
    return 'measured whole' if name in MEASURED else 'extrapolated from a steady rate'


def machine(ours: Callable, theirs: Callable) -> dict[str, str]:
    """Describes the processor and the versions."""
    return {
        'processor': comparison.processor(),
        'cores': str(comparison.cores()),
        **ours('versions'),
        **theirs('versions'),
    }


def main(argv: list[str]) -> None:
    """Prints both tables of each network."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    try:
        import torch as torch
    except ModuleNotFoundError:
        raise SystemExit(f'PyTorch is not installed: {INSTALL}') from None
    os.environ['JAX_PLATFORMS'] = 'cpu'  # of the processes to start
    rounds, seconds = _ROUNDS.value, _SECONDS.value
    figures: dict = {'rounds': rounds, 'networks': {}}
    with comparison.processes(('benchmarks.in_jax', 'benchmarks.in_torch')) as (ours, theirs):
        figures['machine'] = machine(ours, theirs)
        print(', '.join(f'{name} {value}' for name, value in figures['machine'].items()))
        if os.getloadavg()[0] > BUSY:
            print(f'load {os.getloadavg()[0]:.1f}: other programs run, and no figure counts')
        for name in dict.fromkeys(_NETWORK.value):
            setup = SETUPS[name]
            print(f'\n{setup.spec}, {setup.side}x{setup.side}, batch {setup.batch_size}')
            apart = check_same(ours, theirs, setup)
            print(f'the same outputs to {apart:.0e} for the same parameters', flush=True)
            figures['networks'][name] = {
                'network': setup.spec,
                'batch_size': setup.batch_size,
                'difference': apart,
                'rows': show_steps(ours, theirs, setup, rounds, seconds),
                'whole': show_whole(ours, theirs, setup, rounds, seconds),
            }
            if _JSON.value:
                pathlib.Path(_JSON.value).write_text(json.dumps(figures, indent=1))


if __name__ == '__main__':
    app.run(main)
