"""Assessment of one encoder: every metric on every task."""

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy

from ssl_extract import data
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import Encode, represent
from ssl_extract.evaluation.metrics import Features, measure, names_of
from ssl_extract.evaluation.probe import Probe, predict
from ssl_extract.evaluation.probes import PROBES
from ssl_extract.evaluation.tasks import Task
from ssl_extract.numerics import centered

SHOWN = 1000  # test inputs in the two-dimensional view


class Assessment(NamedTuple):
    """The measurements of one encoder.

    Attributes:
        measured: dicts of task, metric, value, ci_low, ci_high, n.
        arrays: `predictions_TASK` int[N] on each test set; `features` float[N, D] of the first
            task's test inputs; `projection` float[M, 2] and `labels` int[M] of the first M inputs.
    """

    measured: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]


def assess(
    encode: Encode,
    tasks: Sequence[Task],
    *,
    classifier: Encode | None = None,
    victim: dict[str, np.ndarray] | None = None,
    probe: str = 'lbfgs',
    neighbors: int = 20,
    shots: int = 5,
    metrics: Iterable[str] | None = None,
    batch_size: int = 256,
    mesh: jax.sharding.Mesh | None = None,
) -> Assessment:
    """Measures an encoder on every task, and the fidelity to the victim on the first task.

    Features are computed once, and a set that several tasks share is represented and fitted once.
    The probe's penalty is chosen on a validation part of the task's training set; test inputs are
    used once, at the end.

    Args:
        encode: `(apply, variables)` of an encoder in JAX, `apply(variables, inputs) -> [B, D]` with
            frozen BatchNorm; or a plain function `inputs -> [B, D]` of NumPy arrays.
        tasks: one or more; fidelity to the victim is measured on the first task.
        classifier: of the same forms as `encode`, the encoder with the classifier of the first task
            from its training, `inputs -> logits [B, K]`, measured beside the probe.
        victim: the `arrays` of the victim's assessment on the same tasks; None in the assessment of
            the victim.
        probe: a spec of `PROBES`: 'lbfgs(...)' or the paper's 'sgd(...)'.
        neighbors: k of the kNN classifier.
        shots: labeled inputs per class of the few-shot probe; 0 leaves it out.
        metrics: names from `METRICS`; None for all.
        batch_size: inputs per call of the encoder.
        mesh: the batches of an encoder in JAX are sharded over the mesh.

    >>> from ssl_extract.evaluation import make_tasks
    >>> tasks = make_tasks(['digits(train="train[:300]", test="test[:100]")'])
    >>> pixels = lambda inputs: inputs[..., 0].reshape(len(inputs), -1)
    >>> [row['metric'] for row in assess(pixels, tasks, shots=0).measured]
    ['linear_probe', 'knn']

    Raises:
        UserError: there is no task, a setting does not fit, or features are not finite.
    """
    if not tasks:
        raise UserError('tasks is empty: an encoder is assessed on one task or more')
    shared = _shared(tasks)
    run = functools.partial(represent, batch_size=batch_size, mesh=mesh)
    represented = _once(lambda dataset: run(encode, dataset), shared)

    def learn(dataset: data.Dataset) -> tuple[np.ndarray, Probe]:
        train = represented(dataset)
        return train, fit(train, dataset.labels, dataset.num_classes)

    learned = _once(learn, shared)
    settings = {'probe': probe, 'neighbors': neighbors, 'shots': shots}
    fit, chosen = PROBES.make(probe), names_of(metrics)
    measured, arrays = [], {}
    for task in tasks:
        first = task is tasks[0]
        features = _features(task, learned(task.train), represented(task.test), victim, settings)
        if first:
            logits = None if classifier is None else run(classifier, task.test)
            victim_features = None if victim is None else victim['features']
            features = features._replace(logits=logits, victim=victim_features)
            arrays = _shown(features, None if victim is None else victim['projection'])
        measured += measure(features, chosen, first_task=first)
        arrays[f'predictions_{task.name}'] = features.predictions
    return Assessment(measured, arrays)


def _shared(tasks: Sequence[Task]) -> dict[int, str]:
    """Returns the digests of sets whose content occurs several times, by the set's identity."""
    parts = [part for task in tasks for part in (task.train, task.test)] if len(tasks) > 1 else []
    digests = {id(part): data.digest(part) for part in parts}
    occurs = collections.Counter(digests[id(part)] for part in parts)
    return {identity: digest for identity, digest in digests.items() if occurs[digest] > 1}


def _once(
    compute: Callable[[data.Dataset], Any], shared: dict[int, str]
) -> Callable[[data.Dataset], Any]:
    """Returns `compute`, which keeps its results for the sets that are `shared`."""
    kept = {}

    def computed(dataset: data.Dataset) -> Any:
        key = shared.get(id(dataset))
        if key is None:
            return compute(dataset)
        if key not in kept:
            kept[key] = compute(dataset)
        return kept[key]

    return computed


def _features(
    task: Task,
    learned: tuple[np.ndarray, Probe],
    test: np.ndarray,
    victim: dict[str, np.ndarray] | None,
    settings: dict[str, Any],
) -> Features:
    """Gathers what metrics need: representations, and the predictions of the linear probe."""
    train, probe = learned
    return Features(
        task=task.name,
        train=train,
        test=test,
        train_labels=task.train.labels,
        test_labels=task.test.labels,
        num_classes=task.train.num_classes,
        predictions=predict(probe, test),
        victim_predictions=_victim_predictions(victim, task),
        **settings,
    )


def _shown(features: Features, like: np.ndarray | None) -> dict[str, np.ndarray]:
    """Returns the arrays of the first task that fidelity and a report need."""
    return {
        'features': features.test,
        'projection': project(features.test[:SHOWN], like),
        'labels': features.test_labels[:SHOWN],
    }


def _victim_predictions(victim: dict[str, np.ndarray] | None, task: Task) -> np.ndarray | None:
    if victim is None:
        return None
    if f'predictions_{task.name}' not in victim:
        raise UserError(f'the victim was not assessed on task {task.name!r}: assess both alike')
    return victim[f'predictions_{task.name}']


def project(points: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Projects points to the first two principal components, rotated to match `like`.

    With one component the second coordinate is 0.

    Args:
        points: float [N, D].
        like: float [N, 2], a projection of the same inputs; None does not rotate.

    Returns:
        float32 [N, 2], of norm 1.
    """
    from sklearn.decomposition import PCA  # takes a second to import

    components = min(2, *points.shape)
    flat = PCA(components, random_state=0).fit_transform(centered(points)[0])
    flat = np.pad(flat, ((0, 0), (0, 2 - components)))
    flat /= np.linalg.norm(flat) or 1.0
    if like is None:
        return flat.astype(np.float32)
    rotation, _ = scipy.linalg.orthogonal_procrustes(flat, like)
    return (flat @ rotation).astype(np.float32)
