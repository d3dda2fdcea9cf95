"""The registry of metrics.

A metric is a pure function from `Features` to a `Measurement`, or to None where the metric does not
exist. Metrics are registered from any module; rows are in the order of registration:

    @evaluation.register_metric('mean_norm')
    def mean_norm(features: evaluation.Features) -> evaluation.Measurement:
        return intervals.mean(np.linalg.norm(features.test, axis=1))
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.evaluation import fidelity, intervals, knn
from ssl_extract.evaluation.intervals import Measurement
from ssl_extract.registry import Registry


class Features(NamedTuple):
    """The features of one encoder on one task, for metrics.

    Attributes:
        task: the task's name.
        train: float32 [M, D], the encoder's representations of the training inputs.
        test: float32 [N, D], the encoder's representations of the test inputs.
        train_labels: int32 [M].
        test_labels: int32 [N].
        num_classes: of the task.
        predictions: int32 [N], the classes that the linear probe predicts for the test inputs.
        victim: float32 [N, E], the victim's representations of the test inputs; None where the
            encoder is the victim, and on all tasks but the first.
        victim_predictions: int32 [N], of the victim's linear probe; None for the victim.
        logits: float32 [N, K] of the classifier that the encoder was trained with; None without a
            classifier, and on all tasks but the first.
        probe: the spec of the linear probe.
        neighbors: k of the kNN classifier.
        shots: labeled inputs per class of the few-shot probe; 0 for none.
    """

    task: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    predictions: np.ndarray
    victim: np.ndarray | None = None
    victim_predictions: np.ndarray | None = None
    logits: np.ndarray | None = None
    probe: str = 'lbfgs'
    neighbors: int = 20
    shots: int = 5


Metric = Callable[[Features], Measurement | None]
_QUICK, _FIDELITY = 'Without a full probe', 'How alike the encoders are to the victim'


# The traits of a metric. A report shows the metric as the last four say, whatever its name.
# fidelity: whether the metric compares an encoder with the victim; left out for the victim.
# first_task: whether the metric is computed on the first task only.
# share: whether the values are shares in [0, 1], shown in per cent.
# title: the metric in a few words; '' is the name.
# better: whether larger or smaller values are better; '' where neither is.
# section: the heading under which a report shows the metric; '' is that of the metrics of
#     fidelity, or that of the rest.
METRICS = Registry(
    'metric',
    choices={'better': ('', 'larger', 'smaller')},
    fidelity=False,
    first_task=False,
    share=False,
    title='',
    better='',
    section='',
)
register_metric = METRICS.register


def measure(
    features: Features, metrics: Iterable[str] | None = None, *, first_task: bool = True
) -> list[dict[str, Any]]:
    """Computes the metrics of one encoder on one task, in the order of their registration.

    Args:
        features: of the encoder, with or without those of the victim.
        metrics: names; None for all registered metrics.
        first_task: whether the metrics of the first task are computed too.

    Returns:
        Dicts of task, metric, value, ci_low, ci_high, n.

    Raises:
        UserError: a name is unknown, or a metric returns no finite `Measurement`.
    """
    rows = []
    for name in names_of(metrics):
        traits = METRICS.traits(name)
        if traits.first_task and not first_task:
            continue
        if traits.fidelity and features.victim_predictions is None:
            continue
        result = METRICS[name](features)
        if result is not None:
            result = _checked(result, name, features.task, traits.share)
            rows.append({'task': features.task, 'metric': name, **result._asdict()})
    return rows


def names_of(metrics: Iterable[str] | None = None) -> list[str]:
    """Returns the names of the chosen metrics in the order of their registration.

    Raises:
        UserError: a name is unknown.
    """
    chosen = METRICS.keys() if metrics is None else set(metrics)
    unknown = sorted(chosen - METRICS.keys())
    if unknown:
        raise UserError(f'unknown metric {unknown[0]!r}: known are {", ".join(sorted(METRICS))}')
    return [name for name in METRICS if name in chosen]


def presentation(name: str) -> dict[str, str]:
    """Returns the columns of a row that say how a report shows a metric.

    >>> presentation('l2')['metric_title'], presentation('knn')['unit']
    ('L2 distance', 'share')

    Args:
        name: the metric; nothing is said of a metric that is not registered.
    """
    if name not in METRICS:
        return {}
    traits = METRICS.traits(name)
    return {
        'metric_title': traits.title,
        'unit': 'share' if traits.share else '',
        'better': traits.better,
        'section': traits.section or (_FIDELITY if traits.fidelity else ''),
    }


def _checked(result: Any, name: str, task: str, share: bool) -> Measurement:
    """Returns the measurement as plain numbers, which a row can hold."""
    if not isinstance(result, Measurement):
        raise UserError(f'metric {name!r} gives {type(result)}: return a Measurement, or None')
    try:
        plain = Measurement(*map(float, result[:3]), int(result.n))
    except (TypeError, ValueError):
        raise UserError(f'metric {name!r} on {task!r} gives no numbers: {result}') from None
    if not np.isfinite(plain).all():
        raise UserError(f'metric {name!r} on {task!r} is not finite: {result}')
    if share and not 0 <= plain.value <= 1:
        raise UserError(
            f'metric {name!r} on {task!r} is declared as a share and gives {plain.value}: return '
            'a value in [0, 1], or register it without share=True'
        )
    return plain


@register_metric(
    'linear_probe', share=True, title='Linear probe', better='larger', section='What was stolen'
)
def linear_probe(features: Features) -> Measurement:
    """Measures the test accuracy of the linear probe."""
    return intervals.accuracy(features.predictions, features.test_labels)


@register_metric('knn', share=True, title='kNN', better='larger', section=_QUICK)
def knn_accuracy(features: Features) -> Measurement:
    """Measures the test accuracy of the weighted nearest neighbors; see `knn_predict`."""
    predictions = knn.knn_predict(
        features.train,
        features.train_labels,
        features.test,
        features.num_classes,
        k=features.neighbors,
    )
    return intervals.accuracy(predictions, features.test_labels)


@register_metric('fewshot', share=True, title='Few-shot probe', better='larger', section=_QUICK)
def fewshot(features: Features) -> Measurement | None:
    """Measures the test accuracy with few labels per class; see `knn.fewshot`. None for 0 shots."""
    if features.shots == 0:
        return None
    return knn.fewshot(
        features.train,
        features.train_labels,
        features.test,
        features.test_labels,
        features.num_classes,
        shots=features.shots,
    )


@register_metric(
    'agreement', fidelity=True, share=True, title='Agreement with victim', better='larger'
)
def agreement(features: Features) -> Measurement:
    """Measures the share of test inputs with equal predictions of encoder's and victim's probes."""
    return fidelity.agreement(features.predictions, features.victim_predictions)


@register_metric(
    'classifier',
    first_task=True,
    share=True,
    title='Stolen classifier as it is',
    better='larger',
    section=_QUICK,
)
def classifier(features: Features) -> Measurement | None:
    """Measures the test accuracy of the classifier that the encoder was trained with."""
    if features.logits is None:
        return None
    return intervals.accuracy(features.logits.argmax(axis=1), features.test_labels)


@register_metric('cosine', fidelity=True, first_task=True, better='larger')
def cosine(features: Features) -> Measurement | None:
    """Measures the mean cosine to the victim's representations; see `fidelity.cosine`."""
    return fidelity.cosine(features.test, features.victim)


@register_metric('l2', fidelity=True, first_task=True, title='L2 distance', better='smaller')
def l2(features: Features) -> Measurement | None:
    """Measures the mean distance to the victim's representations; see `fidelity.l2`."""
    return fidelity.l2(features.test, features.victim)


@register_metric(
    'affine_l2', fidelity=True, first_task=True, title='Affine-aligned L2', better='smaller'
)
def affine_l2(features: Features) -> Measurement:
    """Measures the error of the best affine map to the victim; see `fidelity.affine_l2`."""
    return fidelity.affine_l2(features.test, features.victim)


@register_metric('cka', fidelity=True, first_task=True, title='Linear CKA', better='larger')
def cka(features: Features) -> Measurement:
    """Measures linear CKA with the victim's representations; see `fidelity.cka`."""
    return fidelity.cka(features.test, features.victim)


@register_metric('neighbor_overlap', fidelity=True, first_task=True, better='larger')
def neighbor_overlap(features: Features) -> Measurement:
    """Measures the share of nearest neighbors in common with the victim's; see `fidelity`."""
    return fidelity.neighbor_overlap(features.test, features.victim)


@register_metric('entanglement', share=True, title='Test inputs mixed with their class')
def entanglement(features: Features) -> Measurement | None:
    """Measures how test inputs of one label mix with the training inputs of it; see `knn.mixing`.

    On the task `backdoor`, these are images with the trigger and clean images of the target class:
    near 0 they lie apart, near 0.5 they are entangled, as Li et al. 2024, arXiv 2312.09057, say of
    backdoors in contrastive learning. The measure is ours. None where test inputs have several
    labels, and of fewer than two inputs.
    """
    label, *others = np.unique(features.test_labels)
    own = features.train[features.train_labels == label]
    if others or min(len(own), len(features.test)) < 2:
        return None
    return knn.mixing(features.test, own)
