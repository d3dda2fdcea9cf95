"""Removal of replaced answers, as outliers."""

import numpy as np
import scipy
from absl import logging

from ssl_extract.ranges import Positive
from ssl_extract.recovery.base import Received, Recover, Shadow, answered_rows, register


@register('drop_outliers')
def drop_outliers(z: Positive = 6.0) -> Recover:
    """Drops the answers that are far from the others.

    An answer is dropped if the Euclidean distance to the coordinate-wise median exceeds the median
    distance by more than `z` robust standard deviations (median absolute deviation / 0.6745). The
    recovery undoes the replacement of flagged answers by N(1000, s^2) (arXiv 2205.07890, section
    5.3): the attacker loses the queries and no longer learns from noise.

    The medians are those of the first answer to each input. A guard against similar queries acts on
    a view that resembles an earlier view, so that the guard may replace all but the first of m
    views. More than half of the first answers must be genuine. Where more than half of the
    distances are equal (one-hot labels, say) there is no deviation to judge by, and no answer is
    dropped.

    >>> received = Received(None, np.array([[[1.0]], [[2.0]], [[99.0]]]), np.ones((3, 1), bool))
    >>> drop_outliers()(received, None).answered.ravel().tolist()
    [True, True, False]

    Args:
        z: number of robust standard deviations.

    Raises:
        UserError: z is not a number above 0; there is no answer at all.
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        answered_rows(received, 1, 'drop_outliers')
        any_view, first = received.answered.any(axis=1), received.answered.argmax(axis=1)
        firsts = received.answers[any_view, first[any_view]].astype(np.float64)
        center = np.median(firsts, axis=0)
        usual = np.linalg.norm(firsts - center, axis=-1)
        deviation = scipy.stats.median_abs_deviation(usual, scale='normal')
        if deviation == 0:
            return received
        distances = np.linalg.norm(received.answers - center, axis=-1)
        near = received.answered & (distances <= np.median(usual) + z * deviation)
        logging.info(
            'drop_outliers: dropped %d of %d answers',
            received.answered.sum() - near.sum(),
            received.answered.sum(),
        )
        answers = np.where(near[..., None], received.answers, 0)
        return received._replace(answers=answers, answered=near)

    return recover
