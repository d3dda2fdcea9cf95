"""Verdicts on suspects, and how often a test is right.

A test's statistic says little by itself: encoders of the same data are alike. The verdict compares
it with the statistics of independent encoders. Their spread is what a p-value over inputs leaves
out: with enough inputs, such a p-value is small for every encoder that is not the null one itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from ssl_extract.errors import UserError
from ssl_extract.evaluation.intervals import Measurement
from ssl_extract.report.significance import LEVEL, holm

LEAST_INDEPENDENTS = 8  # below which their spread is hardly known


class Verdict(NamedTuple):
    """The verdict on one suspect.

    Attributes:
        statistic: of the test.
        p_value: over the null of the test: other independent encoders, or other secrets.
        corrected: `p_value` by Holm's procedure over all suspects of the family.
        stolen: whether `corrected` is below the level.
    """

    statistic: float
    p_value: float
    corrected: float
    stolen: bool


def p_among(statistic: float, independents: Sequence[float]) -> float:
    """Returns the one-sided p-value of a statistic among those of independent encoders.

    With m independents of mean a and standard deviation s, `(statistic - a) / (s sqrt(1 + 1/m))`
    of one more independent encoder has Student's distribution with m - 1 degrees of freedom, if the
    statistics are drawn alike and from a normal distribution (Hahn 1969, "Factors for calculating
    two-sided prediction intervals"). `rank_among` assumes no normal distribution, but is never
    below 1 / (m + 1).

    >>> round(p_among(3.0, [-1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), 4)
    0.0036

    Args:
        statistic: of the suspect.
        independents: of m encoders that were not used in the test itself.

    Raises:
        UserError: there are fewer than LEAST_INDEPENDENTS, they are all alike, or a number is not
            finite.
    """
    null = _null(statistic, independents)
    spread = null.std(ddof=1)
    if np.ptp(null) == 0:
        raise UserError(
            f'the statistics of all {len(null)} independent encoders are {null[0]}: they tell no '
            'spread; give encoders of other seeds, methods or data'
        )
    t = (statistic - null.mean()) / (spread * np.sqrt(1 + 1 / len(null)))
    return float(scipy.stats.t.sf(t, len(null) - 1))


def rank_among(statistic: float, independents: Sequence[float]) -> float:
    """Returns the share of statistics at least as large, the suspect's own counted.

    The p-value `(1 + #{null >= statistic}) / (m + 1)` is valid for any distribution, if suspect and
    independents are drawn alike.

    >>> rank_among(3.0, [0.0] * 19)
    0.05

    Args:
        statistic: of the suspect.
        independents: of m encoders that were not used in the test itself.

    Raises:
        UserError: see `p_among`.
    """
    null = _null(statistic, independents)
    return float((1 + np.sum(null >= statistic)) / (1 + len(null)))


def judge(
    statistics: Sequence[float], p_values: Sequence[float], level: float = LEVEL
) -> list[Verdict]:
    """Returns the verdicts on a family of suspects.

    >>> [verdict.stolen for verdict in judge([2.0, 0.5, 3.0], [0.02, 0.4, 0.001])]
    [True, False, True]

    Args:
        statistics: of a test, one for each suspect.
        p_values: likewise.
        level: the largest accepted probability of one false accusation in the whole family.
    """
    rows = zip(statistics, p_values, holm(p_values), strict=True)
    return [Verdict(*row, row[2] < level) for row in rows]


def rate(hits: int, n: int) -> Measurement:
    """Returns a rate with its exact 95 % interval (Clopper and Pearson 1934).

    >>> [round(x, 4) for x in rate(0, 24)]
    [0.0, 0.0, 0.1425, 24]
    """
    interval = scipy.stats.binomtest(hits, n).proportion_ci(0.95, 'exact')
    return Measurement(hits / n, float(interval.low), float(interval.high), n)


def hits(measured: Measurement) -> int:
    """Returns the number of hits behind a rate.

    >>> hits(rate(3, 7))
    3
    """
    return round(measured.value * measured.n)


def detected(stolen: Sequence[float], independents: Sequence[float], allowed: float) -> Measurement:
    """Returns the share of stolen encoders that are found at a false-positive rate.

    The threshold is the smallest statistic of an independent encoder that no more than the allowed
    share of them exceed. It is the best that these independents support: with m of them, rates
    below 1 / m need a statistic above all of them.

    >>> detected([0.5, 2.0, 3.0], [0.0, 1.0, 0.1, 0.2], allowed=0.05).value
    0.6666666666666666

    Args:
        stolen: statistics of encoders that are stolen.
        independents: statistics of encoders that are not.
        allowed: the share of `independents` that may be above the threshold.

    Raises:
        UserError: one kind is missing, or a number is not finite.
    """
    found, null = (np.asarray(values, np.float64) for values in (stolen, independents))
    if not len(found) or not len(null) or not np.isfinite(np.concatenate([found, null])).all():
        raise UserError(
            'a rate of detection needs finite statistics of both kinds, got '
            f'{len(found)} of stolen and {len(null)} of independent encoders'
        )
    threshold = np.sort(null)[len(null) - 1 - int(allowed * len(null))]
    return rate(int(np.sum(found > threshold)), len(found))


def _null(statistic: float, independents: Sequence[float]) -> np.ndarray:
    null = np.asarray(independents, np.float64)
    if len(null) < LEAST_INDEPENDENTS:
        raise UserError(
            f'{len(null)} independent encoders tell no false-positive rate: give '
            f'{LEAST_INDEPENDENTS} or more'
        )
    if not np.isfinite([statistic, *null]).all():
        raise UserError('the statistics of suspect and independents must be finite')
    return null
