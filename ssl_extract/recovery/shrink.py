"""Removal of noise and of common directions from the spectrum of answers."""

import numpy as np
from absl import logging

from ssl_extract.ranges import NotNegative, Width
from ssl_extract.recovery.base import Received, Recover, Shadow, answered_rows, register, replaced


@register('shrink')
def shrink(stddev: NotNegative = 0.0) -> Recover:
    """Shrinks answers toward their mean, each principal component by its share of noise.

    Of a component with variance v the part (v - stddev^2) / v stays, and nothing below: the Wiener
    estimate. Representations have few strong components and noise has all. No encoder is needed, so
    that users can do it as well as attackers.

    >>> rows = np.outer(np.arange(-50.0, 50.0), [1.0, 1.0]) + [[0.5, -0.5], [-0.5, 0.5]] * 50
    >>> received = Received(None, rows[:, None].astype(np.float32), np.ones((100, 1), bool))
    >>> shrink(stddev=1.0)(received, None).answers[7, 0].round().tolist()
    [-43.0, -43.0]

    Args:
        stddev: of the noise, in units of the answers; 0 estimates it (`noise_of`).

    Raises:
        UserError: `stddev` is negative; there is no answer at all.
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        rows = answered_rows(received, 1, 'shrink').astype(np.float64)
        variance = stddev**2 or noise_of(rows)
        logging.info('shrink: the noise has a standard deviation of %.4g', variance**0.5)
        mean = rows.mean(axis=0)
        return replaced(received, mean + (rows - mean) @ wiener(rows, variance))

    return recover


@register('project_out')
def project_out(rank: Width = 1) -> Recover:
    """Removes the `rank` strongest principal directions from the answers, about their mean.

    A perturbation that always lies near one direction, such as prediction poisoning (the top
    direction of the owner's model has more than half of its energy), is stronger there than the
    representations are. The attacker loses one direction of D and learns from the others.

    >>> rows = np.array([[9.0, 1.0], [-9.0, 2.0], [-9.0, 1.0], [9.0, 2.0]], np.float32)
    >>> received = Received(None, rows[:, None], np.ones((4, 1), bool))
    >>> project_out()(received, None).answers[:, 0].round(3).tolist()
    [[0.0, 1.0], [0.0, 2.0], [0.0, 1.0], [0.0, 2.0]]

    Args:
        rank: the number of directions.

    Raises:
        UserError: `rank` is not a whole number of at least 1; there is no answer at all.
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        rows = answered_rows(received, 1, 'project_out').astype(np.float64)
        mean = rows.mean(axis=0)
        _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
        top = directions[:rank]
        return replaced(received, rows - (rows - mean) @ top.T @ top)

    return recover


def wiener(rows: np.ndarray, variance: float) -> np.ndarray:
    """Computes the matrix [D, D] that shrinks the deviations of rows [K, D] from their mean.

    Args:
        rows: float [K, D].
        variance: of the noise in every coordinate.
    """
    centered = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(rows))
    least = max(1e-12 * values.mean(), 1e-36)
    gains = np.maximum(values - variance, 0) / np.maximum(values, least)
    return (vectors * gains) @ vectors.T


def noise_of(rows: np.ndarray) -> float:
    """Estimates the variance of white noise in rows [K, D] from the median of their spectrum.

    Most directions hold noise alone. The eigenvalues of the covariance of noise follow the law of
    Marchenko and Pastur, whose median is known (Gavish and Donoho 2014, arXiv 1305.5870).
    """
    centered = rows - rows.mean(axis=0)
    values = np.linalg.svd(centered, compute_uv=False) ** 2 / max(rows.shape)
    return float(np.median(values) / marchenko_pastur_median(min(rows.shape) / max(rows.shape)))


def marchenko_pastur_median(ratio: float) -> float:
    """Computes the median of the Marchenko-Pastur law of unit variance.

    >>> round(marchenko_pastur_median(1.0), 3)
    0.653

    Args:
        ratio: of the smaller to the larger side of the matrix of noise, in (0, 1].
    """
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    # x = center - reach cos(t) takes the square roots at both ends out of the integral.
    t = np.linspace(0, np.pi, 20_001)[1:-1]
    center, reach = (high + low) / 2, (high - low) / 2
    x = center - reach * np.cos(t)
    share = np.cumsum(np.sin(t) ** 2 / x)
    return float(np.interp(0.5, share / share[-1], x))
