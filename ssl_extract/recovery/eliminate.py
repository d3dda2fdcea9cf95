"""Removal of the directions of a mark.

Cluster, select, eliminate: arXiv 2403.01472.
"""

import numpy as np
from absl import logging
from threadpoolctl import threadpool_limits

from ssl_extract.errors import UserError
from ssl_extract.numerics import units
from ssl_extract.ranges import PositiveShare, Width
from ssl_extract.recovery.base import Received, Recover, Shadow, register, replaced

_LEAST_IN_CLUSTER = 4  # answers for each cluster


@register('cluster_select_eliminate', needs=('shadow',))
def cluster_select_eliminate(
    clusters: Width = 20, share: PositiveShare = 0.1, rank: Width = 1
) -> Recover:
    """Removes the directions in which answers are more alike than they should be.

    Answers are clustered by their directions about the mean (k-means). Marked answers are more
    alike than the shadow's representations of the same inputs are: the `share` of inputs whose
    answers exceed the shadow most in their mean cosine to the rest of their cluster are selected.
    The `rank` strongest principal directions of the selected answers, about the mean of all
    answers, are removed from all answers.

    The attack of the paper compares pairs. Here an input is compared with its whole cluster, both
    means in standard deviations over all inputs, because two encoders spread their cosines
    differently. The paper removes directions about the origin, as its answers have length 1.
    An attacker loses `rank` directions of D, whether they hold a mark or not.

    >>> recover = cluster_select_eliminate(clusters=4, rank=2)

    Args:
        clusters: of k-means, four answers each at least.
        share: of the inputs that are selected.
        rank: the number of directions.

    Raises:
        UserError: an argument is out of its range; there are too few answers.
    """

    @threadpool_limits.wrap(1)  # small products: threads only wait
    def recover(received: Received, shadow: Shadow) -> Received:
        from sklearn.cluster import KMeans  # takes a second to import

        inputs, first = received.answered.any(axis=1), received.answered.argmax(axis=1)
        answers = received.answers[inputs, first[inputs]].astype(np.float64)
        if len(answers) < _LEAST_IN_CLUSTER * clusters:
            raise UserError(
                f'attack.recover=cluster_select_eliminate: {clusters} clusters need at least '
                f'{_LEAST_IN_CLUSTER * clusters} answered inputs, got {len(answers)}: write fewer '
                'clusters'
            )
        own = shadow.represent(received.inputs)[inputs]
        mean = answers.mean(axis=0)
        means = KMeans(clusters, n_init=1, random_state=shadow.seed)
        groups = means.fit_predict(units(answers - mean))
        excess = _standardized(likeness(answers, groups)) - _standardized(likeness(own, groups))
        selected = np.argsort(-excess, kind='stable')[: max(round(share * len(answers)), rank)]
        _, _, directions = np.linalg.svd(answers[selected] - mean, full_matrices=False)
        logging.info('cluster_select_eliminate: selected %d of %d', len(selected), len(answers))
        rows, top = received.answers[received.answered].astype(np.float64), directions[:rank]
        return replaced(received, rows - (rows - mean) @ top.T @ top)

    return recover


def likeness(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Computes the mean cosine of each row to the rest of its group, about the mean of all rows.

    >>> likeness(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]), np.zeros(4)).shape
    (4,)

    Args:
        rows: float [K, D].
        groups: [K]; a row alone in its group gets 0.
    """
    directions = units(rows - np.mean(rows, axis=0, dtype=np.float64))
    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, places, directions)
    rest = sums[places] - directions
    return np.sum(directions * rest, axis=1) / np.maximum(counts[places] - 1, 1)


def _standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)
