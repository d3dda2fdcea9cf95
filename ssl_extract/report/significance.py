"""Tests of paired differences and of equivalence; Holm's correction."""

import math
import statistics
from collections.abc import Sequence

import scipy

LEVEL = 0.05  # of a family of tests


def difference_p(differences: Sequence[float]) -> float:
    """Returns the two-sided p-value of the paired t-test that the mean difference is 0.

    Differences without any spread, as of a defense that changes no answer, have the p-value 1 where
    they are 0, else 0.

    >>> round(difference_p([0.01, 0.03, 0.02]), 4)
    0.0742

    Args:
        differences: of two or more pairs.
    """
    below = _one_sided([-d for d in differences], 0.0)
    return min(1.0, 2 * min(below, _one_sided(differences, 0.0)))


def equivalence_p(differences: Sequence[float], margin: float) -> float:
    """Returns the p-value of the test that the mean difference lies within ±`margin`.

    Two one-sided paired t-tests, the larger p-value of which counts (Schuirmann 1987, "A comparison
    of the two one-sided tests procedure and the power approach for assessing the equivalence of
    average bioavailability"). At the level 0.05 the test rejects where the 90 % t-interval of the
    mean lies within the margin.

    >>> round(equivalence_p([0.001, -0.002, 0.001], 0.01), 4)
    0.0049

    Args:
        differences: of two or more pairs.
        margin: the largest difference that counts as none, above 0.
    """
    above_lower = _one_sided(differences, -margin)
    return max(above_lower, _one_sided([-d for d in differences], -margin))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values of a family, adjusted by Holm's step-down procedure.

    The k-th smallest of m p-values is multiplied by m - k + 1, is at least the adjusted p-value
    before it and at most 1 (Holm 1979, "A simple sequentially rejective multiple test procedure").
    Rejecting adjusted p-values below 0.05 makes any false rejection in the family at most 5 %
    likely, however the tests depend on one another.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _one_sided(differences: Sequence[float], bound: float) -> float:
    """Returns the p-value of the t-test that the mean is above `bound`."""
    mean = math.fsum(differences) / len(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return 0.0 if mean > bound else 1.0
    return float(scipy.stats.t.sf((mean - bound) / error, len(differences) - 1))
