"""The operations of a training step, here and in PyTorch: `python -m benchmarks.step_operations`.

Prints the milliseconds of one step on stored answers by kind of operation, for the networks of
`benchmarks.against_torch`, or of those that are named. The profilers of both libraries measure in
turn, in processes of their own. The last row is the step without a profiler.
"""

import os

import numpy as np
from absl import app

from benchmarks import comparison
from benchmarks.comparison import BUSY, INSTALL, SETUPS

ROUNDS, STEPS = 3, 10  # turns of each side, and steps of a turn
KINDS = (
    'convolution, forward',
    'convolution, gradient of the input',
    'convolution, gradient of the kernel',
    'its transpositions',
    'convolution, both gradients',
    'BatchNorm, ReLU, shortcuts',
    'optimizer',
    'other',
)


def table(sides: list[list[dict[str, float]]]) -> list[str]:
    """Writes the medians over the rounds, a column for each side.

    Args:
        sides: for each side the rounds: milliseconds by kind, and 'step'.

    >>> rounds = [[{'optimizer': 1.0, 'step': 3.0}], [{'optimizer': 2.0, 'step': 4.0}]]
    >>> [line.split() for line in table(rounds)][1:]
    [['optimizer', '1.0', '2.0'], ['sum', '1.0', '2.0'], ['step', '3.0', '4.0']]
    """
    medians = [
        {k: float(np.median([r.get(k, 0) for r in side])) for k in side[0]} for side in sides
    ]
    lines = [f'{"milliseconds of a step":40s}{"ours":>9s}{"PyTorch":>9s}']
    for kind in KINDS:
        if any(kind in side for side in medians):
            cells = (f'{side[kind]:9.1f}' if kind in side else f'{"":9s}' for side in medians)
            lines.append(f'{kind:40s}' + ''.join(cells))
    sums = (f'{sum(side.values()) - side["step"]:9.1f}' for side in medians)
    whole = (f'{side["step"]:9.1f}' for side in medians)
    return [*lines, f'{"sum":40s}' + ''.join(sums), f'{"step":40s}' + ''.join(whole)]


def main(argv: list[str]) -> None:
    """Prints the table of each network."""
    names = argv[1:] or list(SETUPS)
    if not set(names) <= set(SETUPS):
        raise app.UsageError(f'write some of {", ".join(SETUPS)}, or nothing for all')
    try:
        import torch as torch
    except ModuleNotFoundError:
        raise SystemExit(f'PyTorch is not installed: {INSTALL}') from None
    os.environ['JAX_PLATFORMS'] = 'cpu'  # of the processes to start
    if os.getloadavg()[0] > BUSY:
        print(f'load {os.getloadavg()[0]:.1f}: other programs run, and no figure counts')
    with comparison.processes(('benchmarks.in_jax', 'benchmarks.in_torch')) as calls:
        for name in names:
            setup = SETUPS[name]
            print(f'\n{setup.spec}, {setup.side}x{setup.side}, batch {setup.batch_size}')
            turns = [[call('operations', setup, STEPS) for call in calls] for _ in range(ROUNDS)]
            print('\n'.join(table([list(side) for side in zip(*turns, strict=True)])), flush=True)


if __name__ == '__main__':
    app.run(main)
