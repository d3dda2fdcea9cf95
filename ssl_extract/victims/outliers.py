"""Filters of a poisoned set by representations: which inputs lie apart.

Filters of backdoors in supervised learning take the inputs of a class whose representations are
outliers for poisoned. Without labels, clusters take the place of classes. Li et al. 2024, arXiv
2312.09057, find such filters inadequate for contrastive learning, where poisoned and clean inputs
of the target class are entangled. `removed` and `found` say how a filter did where the poison is
known; a random choice of as many inputs finds the poison's share of the set.
"""

from typing import NamedTuple

import numpy as np

from ssl_extract.checks import check_whole
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.evaluation.intervals import Measurement, accuracy


class Found(NamedTuple):
    """What a filter removed.

    Attributes:
        precision: the share of the removed inputs that are poisoned.
        recall: the share of the poisoned inputs that were removed.
    """

    precision: Measurement
    recall: Measurement


def local_outliers(representations: np.ndarray, *, neighbors: int = 20) -> np.ndarray:
    """Scores inputs by the local outlier factor, float [N]: larger for outliers.

    Breunig et al. 2000, by scikit-learn, on Euclidean distances.

    >>> rows = np.random.default_rng(0).normal(size=(40, 3))
    >>> rows[7] = 20
    >>> int(local_outliers(rows, neighbors=5).argmax())
    7

    Args:
        representations: float [N, D].
        neighbors: of an input, fewer than N.
    """
    from sklearn.neighbors import LocalOutlierFactor  # takes a second to import

    rows = check_features(representations)
    check_whole('neighbors', neighbors, 1)
    if neighbors >= len(rows):
        raise UserError(f'neighbors={neighbors}: there are {len(rows)} inputs; write fewer')
    return -LocalOutlierFactor(n_neighbors=neighbors).fit(rows).negative_outlier_factor_


def spectral_signatures(representations: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Scores inputs by their squared projection on the first direction of their group, float [N].

    Tran et al. 2018, arXiv 1811.00636, algorithm 1: of each group, the mean is subtracted, and the
    direction is the first right singular vector.

    >>> rows = np.random.default_rng(0).normal(size=(40, 3))
    >>> rows[[3, 5]] += 9
    >>> sorted(np.argsort(spectral_signatures(rows, np.zeros(40)))[-2:].tolist())
    [3, 5]

    Args:
        representations: float [N, D].
        groups: [N], the class or the cluster of each input.
    """
    rows = check_features(representations).astype(np.float64)
    if len(groups) != len(rows):
        raise UserError(f'there are {len(rows)} representations and {len(groups)} groups')
    scores = np.zeros(len(rows))
    for group in np.unique(groups):
        own = groups == group
        centered = rows[own] - rows[own].mean(axis=0)
        scores[own] = (centered @ np.linalg.svd(centered, full_matrices=False)[2][0]) ** 2
    return scores


def clusters(representations: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Returns the cluster of each input by k-means, int [N], for `spectral_signatures`.

    >>> clusters(np.array([[0.0], [0.1], [9.0], [9.1]]), 2).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True

    Args:
        representations: float [N, D].
        count: of clusters, at most N.
        seed: of the first centers.
    """
    from sklearn.cluster import KMeans  # takes a second to import

    rows = check_features(representations)
    check_whole('count', count, 1)
    if count > len(rows):
        raise UserError(f'count={count}: there are {len(rows)} inputs; write fewer')
    return KMeans(count, n_init=1, random_state=seed).fit(rows).labels_


def removed(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the rows of the largest scores, int [count], in increasing order.

    >>> removed(np.array([0.1, 3.0, 2.0]), 2).tolist()
    [1, 2]
    """
    check_whole('count', count, 1)
    if count > len(scores):
        raise UserError(f'count={count}: there are {len(scores)} inputs; write fewer')
    return np.sort(np.argsort(-np.asarray(scores), kind='stable')[:count])


def found(rows: np.ndarray, poisoned: np.ndarray) -> Found:
    """Measures what a filter removed, with Wilson intervals.

    >>> found(np.array([1, 2, 3]), np.array([2, 3, 8, 9])).recall.value
    0.5

    Args:
        rows: int [K], the removed inputs.
        poisoned: int [P], the poisoned ones, as `backdoors.poison` returns them.
    """
    if not len(rows) or not len(poisoned):
        raise UserError(f'{len(rows)} removed and {len(poisoned)} poisoned inputs: give some')
    right, hit = np.isin(rows, poisoned), np.isin(poisoned, rows)
    return Found(*(accuracy(each, np.ones_like(each)) for each in (right, hit)))
