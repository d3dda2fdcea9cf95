"""What the rotation watermark costs and finds: `python -m benchmarks.rotation_watermark`.

For each seed, pretrains a victim with the mark and one without it on 700 of scikit-learn's digits,
and steals the marked one by mse on the answers to the other 597 training images. Prints means over
the seeds with 95 % intervals (Student): the accuracy of linear probes on the 500 test images, and
the watermark success rate on these images, rotated. The victims without the mark are the
independent encoders of the test.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

import ssl_extract
from benchmarks import commands
from ssl_extract import data, ownership
from ssl_extract.encoders.trained import Encoder
from ssl_extract.evaluation import intervals
from ssl_extract.ownership import rotation_watermark
from ssl_extract.runtime import programs

_SEEDS = flags.DEFINE_integer('seeds', 5, 'Victims of each kind.', lower_bound=2)
_EPOCHS = flags.DEFINE_integer('epochs', 60, 'Of each training.', lower_bound=1)
_ENCODER = flags.DEFINE_string(
    'encoder', 'resnet18(stem="patch", width=16, stages=(1, 1))', 'Victims and surrogates.'
)
PRIVATE = 700  # images of the victims; the others of the training split are the queries
HEADS = 'temperature=0.2, hidden=64, dim=32'


class Trained(NamedTuple):
    """The encoders of a seed."""

    marked: Encoder
    plain: Encoder
    surrogate: Encoder


def train(seed: int, inputs: np.ndarray) -> Trained:
    """Pretrains both victims and steals the marked one."""
    how = dict(encoder=_ENCODER.value, epochs=_EPOCHS.value, learning_rate=2e-3)
    # Each encoder has another seed: with the same one it would start from the same weights.
    methods = {1_000: f'rotation_watermark({HEADS}, predictor=64)', 2_000: f'simclr({HEADS})'}
    marked, plain = (
        ssl_extract.pretrain(
            inputs[:PRIVATE],
            method=method,
            augmentation='simclr(flip=0.0, min_scale=0.4)',
            batch_size=128,
            seed=first + seed,
            **how,
        )
        for first, method in methods.items()
    )
    oracle = ssl_extract.make_oracle(marked, budget=len(inputs))
    answers = ssl_extract.collect(oracle, inputs[PRIVATE:])
    return Trained(marked, plain, ssl_extract.steal(answers, loss='mse', seed=3_000 + seed, **how))


def probe(encoder: Encoder, train: data.Dataset, test: data.Dataset) -> float:
    """Returns the accuracy of a linear probe."""
    sides = [(part.inputs, part.labels) for part in (train, test)]
    rows = ssl_extract.evaluate(encoder, train=sides[0], test=sides[1], metrics=('linear_probe',))
    return rows[0]['value']


def show(name: str, values: Sequence[float]) -> None:
    """Prints the mean over the seeds with its interval."""
    low, high = intervals.student(np.asarray(values))
    print(f'{name:42} {np.mean(values):7.3f} [{low:.3f}, {high:.3f}] n={len(values)}', flush=True)


def main(argv: list[str]) -> None:
    """Trains and prints."""
    del argv
    programs.keep()
    train_set, test_set = data.load('digits', 'train'), data.load('digits', 'test')
    seeds = [train(seed, train_set.inputs) for seed in range(_SEEDS.value)]
    accuracies = {
        name: np.array([probe(getattr(trained, name), train_set, test_set) for trained in seeds])
        for name in Trained._fields
    }
    for name, values in accuracies.items():
        show(f'linear probe, {name}', values)
    show('linear probe, marked minus plain', accuracies['marked'] - accuracies['plain'])
    images = test_set.inputs / np.float32(255)
    halves = rotation_watermark.rotate(images, seed=0)
    marks = [rotation_watermark.mark_of(trained.marked) for trained in seeds]
    for name in Trained._fields:
        rates = [
            rotation_watermark.scores(lambda x, f=f, mark=mark: mark(f.apply(x)), halves).mean()
            for f, mark in zip([getattr(trained, name) for trained in seeds], marks, strict=True)
        ]
        show(f'watermark success, {name}', rates)
    for spec in ('rotation_watermark', 'rotation_watermark(aligned=True)'):
        evidence = []
        for i, trained in enumerate(seeds):
            others = tuple(other.plain.apply for j, other in enumerate(seeds) if j != i)
            case = ownership.Case(
                trained.marked.apply, public=images, independents=others, mark=marks[i]
            )
            evidence.append(ownership.test(spec, case, trained.surrogate.apply))
        show(f'{spec}, surrogate', [found.statistic for found in evidence])
        print('  p-values', *(f'{found.p_value:.2g}' for found in evidence))


if __name__ == '__main__':
    commands.start(main)
