"""Verification: the equal error rate of pairs of inputs, by their cosine.

Used for speakers that no classifier was trained on. Every pair of inputs is a trial.
"""

import numpy as np

from ssl_extract import numerics
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.evaluation.features import check_features
from ssl_extract.evaluation.intervals import Measurement

_MOST = 4_000  # inputs, of 8 million trials


def equal_error_rate(features: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Measurement:
    """Computes the error rate at the threshold where both kinds of errors are equally frequent.

    Trials are accepted at or above a threshold on the cosine. Between two thresholds, both rates
    are interpolated linearly. The interval is a bootstrap over inputs (Bickel and Freedman 1981, of
    statistics of pairs): trials of one input are not independent of each other.

    >>> features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> equal_error_rate(features, np.array([0, 0, 1, 1])).value
    0.0

    Args:
        features: float [N, D], of at least two classes, one of them with at least two inputs.
        labels: int [N].
        seed: of the bootstrap.

    Returns:
        The rate in [0, 1]; `n` counts inputs.

    Raises:
        UserError: wrong features or labels, or more than 4,000 inputs.
    """
    features = check_features(features, 'features')
    labels, size = np.asarray(labels), len(features)
    if labels.shape != (size,):
        raise UserError(f'labels: {list(labels.shape)} for {size} inputs: write one for each')
    if size > _MOST:
        raise UserError(f'{size} inputs make too many pairs: choose {_MOST} or fewer')
    first, second = np.triu_indices(size, 1)
    same = labels[first] == labels[second]
    if same.all() or not same.any():
        raise UserError('labels: pairs of one class and pairs of two classes are needed, of both')
    units = numerics.units(features.astype(np.float64))
    scores = np.sum(units[first] * units[second], axis=1)
    order = np.argsort(-scores, kind='stable')
    first, second, same, scores = first[order], second[order], same[order], scores[order]
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # of each group of equal scores
    value = _crossing(np.ones(len(same)), same, last)
    counts = np.random.default_rng(seed).multinomial(
        size, np.full(size, 1 / size), intervals.RESAMPLES
    )
    drawn = [_crossing(row[first] * row[second], same, last) for row in counts]
    drawn = np.array([rate for rate in drawn if rate is not None])
    return Measurement(value, *intervals.percentiles(drawn), size)


def _crossing(weights: np.ndarray, same: np.ndarray, last: np.ndarray) -> float | None:
    """Returns where misses and false alarms cross; None where one kind of trials has no weight."""
    total = weights[same].sum(), weights[~same].sum()
    if not all(total):
        return None
    alarms = np.append(0, np.cumsum(np.where(same, 0, weights))[last] / total[1])
    misses = np.append(1, 1 - np.cumsum(np.where(same, weights, 0))[last] / total[0])
    after = int(np.argmax(alarms >= misses))
    before = after - 1
    gap = misses[before] - alarms[before], alarms[after] - misses[after]
    share = gap[0] / (gap[0] + gap[1])
    return float(alarms[before] + share * (alarms[after] - alarms[before]))
