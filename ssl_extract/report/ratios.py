"""Ratios of two differences of accuracies, with Fieller's interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from ssl_extract.report import estimates
from ssl_extract.report.estimates import Estimate

Pair = tuple[Estimate, Estimate]  # the difference of the first and the second


class Ratio(NamedTuple):
    """A ratio and its 95 % interval."""

    value: float
    interval: tuple[float, float]


def ratio(of: Pair, to: Pair) -> Ratio | None:
    """Divides the difference of two accuracies by the difference of two accuracies.

    The interval is Fieller's (1954): all r for which the interval of of - r * to includes 0. An
    accuracy in both differences, such as that of an untrained encoder, counts with its covariance.
    Accuracies over several seeds are paired seed by seed, over the seeds that all of them have, and
    have the t-interval of their combination. An accuracy of one run has its interval over test
    images, as if independent, which is wide for encoders that are tested on the same images. The
    two are added as half-widths (Zou and Donner 2008, MOVER), which covers the truth with as few as
    two seeds. A bootstrap would resample the seeds, of which there are too few.

    Args:
        of: the numerator, first minus second.
        to: the denominator, first minus second.

    Returns:
        None where the denominator is not clearly positive, for its own 95 % interval reaches 0, and
        where a value or an interval is missing.
    """
    unlike = [e for i, e in enumerate((*of, *to)) if e not in (*of, *to)[:i]]
    if any(e.value is None for e in unlike):
        return None
    measured = _errors(unlike)
    if measured is None:
        return None
    means, errors = measured
    top, bottom = (np.array([(e == a) - (e == b) for e in unlike], float) for a, b in (of, to))
    above, below = top @ means, bottom @ means
    # (above - r * below)^2 = (top - r * bottom)' errors (top - r * bottom)
    square = below**2 - bottom @ errors @ bottom
    if below <= 0 or square <= 0:
        return None
    half = above * below - top @ errors @ bottom
    rest = above**2 - top @ errors @ top
    width = math.sqrt(max(half**2 - square * rest, 0.0))
    return Ratio(float(above / below), (float(half - width) / square, float(half + width) / square))


def gap_recovered(e: Estimate, measured: Sequence[Estimate]) -> Ratio | None:
    """Returns (value - untrained) / (victim - untrained), the share of the victim's training.

    Args:
        e: a surrogate, or an encoder from scratch.
        measured: the estimates of the task, with those of the victim and the untrained encoder.

    Returns:
        None where one of the two is missing, or victim minus untrained is not clearly positive.
    """
    victim = estimates.reference(measured, 'victim', e)
    untrained = estimates.reference(measured, 'random', e)
    if victim is None or untrained is None:
        return None
    return ratio((e, untrained), (victim, untrained))


def _errors(unlike: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the means [K] and the squares of their errors [K, K]; None without an interval.

    The square of the half-width of a combination of the means is a quadratic form of the squares.
    """
    several = [k for k, e in enumerate(unlike) if len(set(e.by_seed.values())) > 1]
    shared = sorted(set.intersection(*(set(unlike[k].by_seed) for k in several)) if several else ())
    paired = several if len(shared) > 1 else []
    means = np.array([e.value for e in unlike], float)
    errors = np.zeros((len(unlike), len(unlike)))
    if paired:
        values = np.array([[unlike[k].by_seed[seed] for seed in shared] for k in paired])
        means[paired] = values.mean(axis=1)
        quantile = scipy.stats.t.ppf(0.975, len(shared) - 1)
        errors[np.ix_(paired, paired)] = quantile**2 * np.cov(values) / len(shared)
    for k in set(range(len(unlike))) - set(paired):
        if unlike[k].interval is None:
            return None
        low, high = unlike[k].interval
        errors[k, k] = ((high - low) / 2) ** 2
    return means, errors
