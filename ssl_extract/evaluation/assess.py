"""All measurements of one encoder: probes on every task, and fidelity to the victim."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import sklearn.decomposition
import scipy.linalg

from ssl_extract.data import Dataset
from ssl_extract.evaluation import features, fidelity, intervals, knn, probe

SHOWN = 1000  # test images in the two-dimensional view


class Task(NamedTuple):
    """A labelled downstream set."""

    name: str
    train: Dataset
    test: Dataset


class Assessment(NamedTuple):
    """What was measured of one encoder.

    Attributes:
        measured: dicts of task, metric, value, ci_low, ci_high, n.
        arrays: `predictions_TASK` int[N] on each test set; `features` float[N, D] of the first
            task's test images, and `projection` float[M, 2] of the first M of them.
    """

    measured: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]


def assess(
    apply: Callable,
    variables: Any,
    tasks: list[Task],
    *,
    victim: dict[str, np.ndarray] | None = None,
    l2_grid: tuple[float, ...] = probe.L2_GRID,
    neighbours: int = 20,
    shots: int = 5,
    mesh: jax.sharding.Mesh | None = None,
) -> Assessment:
    """Linear probe, kNN and few-shot probe on every task; fidelity on the first task's test images.

    Features are computed once. The probe's penalty is chosen on validation images of the task's
    training set; test images are used once, at the end.

    Args:
        apply: `(variables, images) -> [B, D]`, with frozen BatchNorm.
        victim: the `arrays` of the victim's own assessment; None for the victim itself.
        l2_grid: the penalties to choose from.
        neighbours: k of the kNN classifier.
        shots: labelled images per class of the few-shot probe.
    """
    measured, arrays = [], {}

    def add(task: str, metric: str, m: intervals.Measurement | None) -> None:
        if m is not None:
            values = dict(value=m.value, ci_low=m.ci_low, ci_high=m.ci_high, n=m.n)
            measured.append({'task': task, 'metric': metric, **values})

    for task in tasks:
        train = features.extract(apply, variables, task.train.images, mesh=mesh)
        test = features.extract(apply, variables, task.test.images, mesh=mesh)
        known, classes = (train, task.train.labels), task.train.num_classes
        fitted = probe.fit_probe(*known, classes, l2_grid=l2_grid)
        predictions = probe.predict(fitted, test)
        add(task.name, 'linear_probe', intervals.accuracy(predictions, task.test.labels))
        nearest = knn.knn_predict(*known, test, classes, k=neighbours)
        add(task.name, 'knn', intervals.accuracy(nearest, task.test.labels))
        few = knn.fewshot(*known, test, task.test.labels, classes, shots=shots)
        add(task.name, 'fewshot', few)
        if victim is not None:
            theirs = victim[f'predictions_{task.name}']
            add(task.name, 'agreement', fidelity.agreement(predictions, theirs))
        arrays[f'predictions_{task.name}'] = predictions
        if task is tasks[0]:
            arrays['features'] = test
            if victim is not None:
                for metric, value in fidelity.compare(test, victim['features']).items():
                    add(task.name, metric, value)
    like = None if victim is None else victim['projection']
    arrays['projection'] = project(arrays['features'][:SHOWN], like)
    return Assessment(measured, arrays)


def project(points: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """The first two principal components [N, 2], turned and scaled to lie as `like` [N, 2] does."""
    flat = sklearn.decomposition.PCA(2, random_state=0).fit_transform(points)
    flat /= np.linalg.norm(flat) or 1.0
    if like is None:
        return flat.astype(np.float32)
    rotation, _ = scipy.linalg.orthogonal_procrustes(flat, like)
    return (flat @ rotation).astype(np.float32)
