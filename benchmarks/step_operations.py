"""The operations of a training step, here and in PyTorch: `python -m benchmarks.step_operations`.

Prints the milliseconds of one step on stored answers by kind of operation, for the networks of
`benchmarks.against_torch`. The profilers of both libraries measure in turn, in processes of their
own. The last row is the step without a profiler; what it has beyond the sum is in no operation.
"""

import os

import numpy as np
from absl import app, flags

from benchmarks import comparison
from benchmarks.comparison import BUSY, INSTALL, SETUPS

_NETWORK = flags.DEFINE_multi_enum('network', list(SETUPS), list(SETUPS), 'Networks to run.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each side.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 10, 'Steps of a turn.', lower_bound=1)

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
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    try:
        import torch as torch
    except ModuleNotFoundError:
        raise SystemExit(f'PyTorch is not installed: {INSTALL}') from None
    os.environ['JAX_PLATFORMS'] = 'cpu'  # of the processes to start
    if os.getloadavg()[0] > BUSY:
        print(f'load {os.getloadavg()[0]:.1f}: other programs run, and no figure counts')
    with comparison.processes(('benchmarks.in_jax', 'benchmarks.in_torch')) as calls:
        for name in dict.fromkeys(_NETWORK.value):
            setup = SETUPS[name]
            print(f'\n{setup.spec}, {setup.side}x{setup.side}, batch {setup.batch_size}')
            turns = [
                [call('operations', setup, _STEPS.value) for call in calls]
                for _ in range(_ROUNDS.value)
            ]
            print('\n'.join(table([list(side) for side in zip(*turns, strict=True)])), flush=True)


if __name__ == '__main__':
    app.run(main)
