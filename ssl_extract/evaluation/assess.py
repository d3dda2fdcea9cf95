"""All measurements of one encoder: probes on every task, and fidelity to the victim."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
import sklearn.decomposition

from ssl_extract.data import Dataset
from ssl_extract.evaluation import features, fidelity, intervals, knn
from ssl_extract.evaluation.probe import L2_GRID, fit_probe, predict
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd
from ssl_extract.registry import Registry

PROBES = Registry('probe')
SHOWN = 1000  # test images in the two-dimensional view


class Task(NamedTuple):
    """A labeled downstream set."""

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


@PROBES.register('lbfgs')
def lbfgs(l2_grid: tuple[float, ...] = L2_GRID) -> Callable:
    """The optimum of softmax regression; `l2_grid` holds the penalties to choose from."""
    return functools.partial(fit_probe, l2_grid=l2_grid)


@PROBES.register('sgd')
def sgd(
    optimizer: str = 'adam',
    learning_rate: float = 1e-4,
    weight_decay: float = 8e-4,
    epochs: int = 100,
    batch_size: int = 256,
) -> Callable:
    """The paper's own recipe; see `fit_probe_sgd`."""
    return functools.partial(
        fit_probe_sgd,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
    )


def assess(
    apply: Callable,
    variables: Any,
    tasks: list[Task],
    *,
    classifier: tuple[Callable, Any] | None = None,
    victim: dict[str, np.ndarray] | None = None,
    probe: str = 'lbfgs',
    neighbors: int = 20,
    shots: int = 5,
    mesh: jax.sharding.Mesh | None = None,
) -> Assessment:
    """Linear probe, kNN and few-shot probe on every task; fidelity on the first task's test images.

    Features are computed once. The probe's penalty is chosen on validation images of the task's
    training set; test images are used once, at the end.

    Args:
        apply: `(variables, images) -> [B, D]`, with frozen BatchNorm.
        classifier: `(apply, variables)` of the encoder with the classifier of the first task that
            it was trained with: measured as it is, beside the probe.
        victim: the `arrays` of the victim's own assessment; None for the victim itself.
        probe: how the linear probe is fitted, 'lbfgs(...)' or the paper's own 'sgd(...)'.
        neighbors: k of the kNN classifier.
        shots: labeled images per class of the few-shot probe.
    """
    measured, arrays, fit = [], {}, PROBES.make(probe)

    def add(task: str, metric: str, m: intervals.Measurement | None) -> None:
        if m is not None:
            values = dict(value=m.value, ci_low=m.ci_low, ci_high=m.ci_high, n=m.n)
            measured.append({'task': task, 'metric': metric, **values})

    for task in tasks:
        train = features.extract(apply, variables, task.train.inputs, mesh=mesh)
        test = features.extract(apply, variables, task.test.inputs, mesh=mesh)
        known, classes = (train, task.train.labels), task.train.num_classes
        predictions = predict(fit(*known, classes), test)
        add(task.name, 'linear_probe', intervals.accuracy(predictions, task.test.labels))
        nearest = knn.knn_predict(*known, test, classes, k=neighbors)
        add(task.name, 'knn', intervals.accuracy(nearest, task.test.labels))
        few = knn.fewshot(*known, test, task.test.labels, classes, shots=shots)
        add(task.name, 'fewshot', few)
        if victim is not None:
            theirs = victim[f'predictions_{task.name}']
            add(task.name, 'agreement', fidelity.agreement(predictions, theirs))
        arrays[f'predictions_{task.name}'] = predictions
        if task is tasks[0]:
            arrays['features'] = test
            if classifier is not None:
                logits = features.extract(*classifier, task.test.inputs, mesh=mesh)
                as_it_is = intervals.accuracy(logits.argmax(axis=1), task.test.labels)
                add(task.name, 'classifier', as_it_is)
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
