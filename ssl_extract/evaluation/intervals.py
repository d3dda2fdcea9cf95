"""Values with 95 % intervals."""

from typing import NamedTuple

import numpy as np
import scipy

from ssl_extract.errors import UserError

RESAMPLES = 1000
_Z = 1.959963984540054  # 97.5 % quantile of the standard normal
_CHUNK = 2**22  # resampled indices in memory at a time


class Measurement(NamedTuple):
    """A measured value with a 95 % interval.

    Attributes:
        value: the estimate.
        ci_low, ci_high: the ends of the 95 % interval.
        n: the number of examples (of draws, for few-shot accuracy) behind the value.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Computes the score interval of a proportion (Wilson 1927; Brown et al. 2001, eq. 4).

    The 95 % interval stays in [0, 1] and has a width at 0 and 1, unlike the normal interval.

    >>> low, high = wilson(90, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    if not 0 <= correct <= n or n < 1:
        raise UserError(f'wilson takes 0 <= correct <= n and n >= 1, got {correct} of {n}')
    p, z2 = correct / n, _Z**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    low = 0.0 if correct == 0 else float(center - half)
    high = 1.0 if correct == n else float(center + half)
    return low, high


def bootstrap(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Computes the 95 % percentile bootstrap interval (Efron 1979) of the mean of `values` [N].

    The same values and seed give the same interval.
    """
    return percentiles(resample_means(values, seed=seed))


def resample_means(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Computes the means of `values` over RESAMPLES resampled sets of examples.

    The columns are resampled together, so that a ratio of two means can be bootstrapped too.

    Args:
        values: float [N] or [N, M].
        seed: of the resampling.

    Returns:
        float64 [R] or [R, M].
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 1:
        raise UserError('an interval needs at least one example, got none')
    if not np.isfinite(values).all():
        raise UserError('an interval needs finite values, got NaN or infinity among them')
    rng = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, *values.shape[1:]))
    step = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, step):
        index = rng.integers(n, size=(min(step, RESAMPLES - start), n))
        means[start : start + step] = values[index].mean(axis=1)
    return means


def percentiles(samples: np.ndarray) -> tuple[float, float]:
    """Returns the ends of the central 95 % of `samples` [R]."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def student(values: np.ndarray) -> tuple[float, float]:
    """Computes the 95 % Student-t interval of the mean of independent draws [R], R >= 2."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        raise UserError(f'an interval over draws needs at least 2 draws, got {len(values)}')
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def mean(values: np.ndarray, *, seed: int = 0) -> Measurement:
    """Averages values of examples [N], with a seeded bootstrap interval."""
    values = np.asarray(values, np.float64)
    low, high = bootstrap(values, seed=seed)
    return Measurement(float(values.mean()), low, high, len(values))


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> Measurement:
    """Computes the share of `predictions` [N] equal to `labels` [N], with a Wilson interval.

    >>> accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])).value
    0.75
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1:
        raise UserError(
            'accuracy takes two lists of the same length, '
            f'got predictions {predictions.shape} and labels {labels.shape}'
        )
    n, correct = len(labels), int(np.sum(predictions == labels))
    low, high = wilson(correct, n)
    return Measurement(correct / n, low, high, n)
