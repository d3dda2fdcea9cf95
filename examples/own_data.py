"""Your own data set, encoder, task and metric; nothing here is an image.

The victim is a function of vectors. Prints how well the ring of a point is read from the
stolen encoder.
"""

import flax.linen as nn
import numpy as np

import ssl_extract
from ssl_extract import data, encoders, evaluation
from ssl_extract.evaluation import intervals


@data.register('rings')
def rings(noise: float = 0.1, *, split: str) -> data.Dataset:
    """Points on three rings in the plane."""
    rows = data.select(split, {'train': np.arange(900), 'test': np.arange(900, 1200)})
    rng = np.random.default_rng(0)
    labels, angles = rng.integers(3, size=1200), rng.uniform(0, 2 * np.pi, size=1200)
    radius = 1 + labels + noise * rng.normal(size=1200)
    points = (radius * np.stack([np.cos(angles), np.sin(angles)])).T.astype(np.float32)
    return data.Dataset(points[rows], labels[rows], num_classes=3)


class Mlp(nn.Module):
    width: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        return nn.Dense(self.width)(nn.relu(nn.Dense(self.width)(inputs)))


@encoders.register('mlp')
def mlp(width: int = 64) -> encoders.Network:
    return encoders.from_module(Mlp(width), rank=2)


@evaluation.register_metric('dead_features', share=True, better='smaller')
def dead_features(features: evaluation.Features) -> evaluation.Measurement:
    """The share of features that are the same for all test inputs."""
    return intervals.mean((features.test.std(axis=0) < 1e-6).astype(float))


def main() -> None:
    task = evaluation.make_task('rings(noise=0.2, name="which ring")')
    pool = data.load('rings(noise=0.2)', 'train[:600]')
    angles = lambda x: np.stack([x[:, 0] ** 2, x[:, 1] ** 2, x.prod(axis=1)], 1)  # noqa: E731
    victim = ssl_extract.victims.from_function(angles, dim=3, address='quadratic')
    answers = ssl_extract.collect(ssl_extract.make_oracle(victim, budget=600), pool)
    stolen = ssl_extract.steal(answers, encoder='mlp(width=64)', epochs=40)
    parts = dict(train=task.train, test=task.test, name=task.name)
    metrics = ('linear_probe', 'dead_features')
    for row in ssl_extract.evaluate(stolen, metrics=metrics, **parts):
        print(f'{row["task"]}, {row["metric"]}: {row["value"]:.2f}')


if __name__ == '__main__':
    main()
