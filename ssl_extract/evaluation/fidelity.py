"""Fidelity: the likeness of two encoders on held-out inputs.

Each measure takes the representations of the surrogate and of the victim, float [N, D] and [N, E]
of the same N inputs, and returns a `Measurement` with a seeded bootstrap interval over the inputs.
"""

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.evaluation.features import check_features
from ssl_extract.evaluation.intervals import Measurement
from ssl_extract.evaluation.knn import neighbors
from ssl_extract.evaluation.probe import constant


def compare(
    surrogate: np.ndarray, victim: np.ndarray, *, k: int = 10, seed: int = 0
) -> dict[str, Measurement | None]:
    """Computes all measures of this file; cosine and l2 are None if D != E."""
    return {
        'cosine': cosine(surrogate, victim, seed=seed),
        'l2': l2(surrogate, victim, seed=seed),
        'affine_l2': affine_l2(surrogate, victim, seed=seed),
        'cka': cka(surrogate, victim, seed=seed),
        'neighbor_overlap': neighbor_overlap(surrogate, victim, k=k, seed=seed),
    }


def cosine(surrogate: np.ndarray, victim: np.ndarray, *, seed: int = 0) -> Measurement | None:
    """Averages the cosine between the two representations of an input; None if D != E.

    A representation of zeros has cosine 0 with everything.

    >>> cosine(np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([[2.0, 0.0], [-4.0, 3.0]])).value
    0.5
    """
    a, b = _pair(surrogate, victim)
    if a.shape[1] != b.shape[1]:
        return None
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return intervals.mean(np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1), seed=seed)


def l2(surrogate: np.ndarray, victim: np.ndarray, *, seed: int = 0) -> Measurement | None:
    """Averages the Euclidean distance of the two representations of an input; None if D != E.

    >>> l2(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).value
    5.0
    """
    a, b = _pair(surrogate, victim)
    if a.shape[1] != b.shape[1]:
        return None
    return intervals.mean(np.linalg.norm(a - b, axis=1), seed=seed)


def affine_l2(surrogate: np.ndarray, victim: np.ndarray, *, seed: int = 0) -> Measurement:
    """Computes the relative error of the best affine map from the surrogate to the victim.

    The map is fitted by least squares on a seeded half of the inputs and measured on the other:
    sqrt(sum |map(s) - v|^2 / sum |mean(v) - v|^2) with mean(v) of the fitted half. The error is 0
    if the victim is an affine function of the surrogate, about 1 if the surrogate holds no
    information, and above 1 if the map overfits: prefer ten or more inputs per dimension.

    Raises:
        UserError: fewer than 2 (D + 2) inputs, with which any map would fit, or a constant victim.
    """
    a, b = _pair(surrogate, victim)
    n, width = a.shape
    if n < 2 * (width + 2):
        raise UserError(
            f'affine_l2 on representations of width {width} needs at least {2 * (width + 2)} '
            f'inputs, got {n}'
        )
    _check_victim(b)
    order = np.random.default_rng(seed).permutation(n)
    fit, rest = order[: n // 2], order[n // 2 :]
    mean_a, mean_b = a[fit].mean(axis=0), b[fit].mean(axis=0)
    scale = a[fit].std(axis=0)
    scale[constant(a[fit])] = np.inf  # left out: nothing was learned of the feature
    weights = _least_squares((a[fit] - mean_a) / scale, b[fit] - mean_b)
    residual = (a[rest] - mean_a) / scale @ weights - (b[rest] - mean_b)
    squares = np.stack([np.sum(residual**2, axis=1), np.sum((b[rest] - mean_b) ** 2, axis=1)], 1)
    means = intervals.resample_means(squares, seed=seed)
    ratios = np.sqrt(means[:, 0] / np.maximum(means[:, 1], np.finfo(float).tiny))
    value = np.sqrt(squares[:, 0].sum() / squares[:, 1].sum())
    return Measurement(float(value), *intervals.percentiles(ratios), len(rest))


def cka(surrogate: np.ndarray, victim: np.ndarray, *, seed: int = 0) -> Measurement:
    """Computes linear CKA, |A'B|^2 / (|A'A| |B'B|) of centered representations (Frobenius norms).

    Kornblith et al., "Similarity of neural network representations revisited" (ICML 2019), eq. 4-5.
    The value is in [0, 1], and 1 for representations that are equal up to rotation, isotropic scale
    and shift. The published estimate is biased upwards when N is not large against D and E. A
    surrogate with a constant output has CKA 0.

    The interval is the bootstrap of the linearization (the infinitesimal jackknife, Efron 1982):
    input i moves log CKA by 2 a'Cb / |C|^2 - a'Ra / |R|^2 - b'Sb / |S|^2 with C, R, S the three
    covariances. The linearization costs one pass over the inputs instead of one for each resample.
    """
    a, b = _pair(surrogate, victim)
    if len(a) < 2:
        raise UserError('cka needs at least 2 inputs, got 1')
    _check_victim(b)
    if _is_constant(a):
        return Measurement(0.0, 0.0, 0.0, len(a))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    a, b = a / np.sqrt(np.mean(a**2)), b / np.sqrt(np.mean(b**2))
    cross, cov_a, cov_b = (_covariance(x, y) for x, y in ((a, b), (a, a), (b, b)))
    squares = [np.sum(c**2) for c in (cross, cov_a, cov_b)]
    value = squares[0] / np.sqrt(squares[1] * squares[2])
    influence = (
        2 * np.sum(a @ cross * b, axis=1) / max(squares[0], np.finfo(float).tiny)
        - np.sum(a @ cov_a * a, axis=1) / squares[1]
        - np.sum(b @ cov_b * b, axis=1) / squares[2]
    )
    low, high = intervals.bootstrap(influence, seed=seed)
    return Measurement(
        float(min(value, 1.0)),
        float(value * np.exp(low)),
        float(min(value * np.exp(high), 1.0)),
        len(a),
    )


def neighbor_overlap(
    surrogate: np.ndarray, victim: np.ndarray, *, k: int = 10, seed: int = 0
) -> Measurement:
    """Averages the share of an input's k nearest neighbors (by cosine) common to both encoders.

    The share does not change when either encoder's representations are rotated or scaled. Two
    unrelated encoders overlap by k / (N - 1). The interval takes the other inputs as fixed.

    Raises:
        UserError: k > N - 1.
    """
    a, b = _pair(surrogate, victim)
    near_a, near_b = (neighbors(x, x, k, exclude_self=True)[1] for x in (a, b))
    shared = np.sum(near_a[:, :, None] == near_b[:, None, :], axis=(1, 2))
    return intervals.mean(shared / k, seed=seed)


def agreement(surrogate: np.ndarray, victim: np.ndarray) -> Measurement:
    """Computes the share of inputs with equal predicted classes, int [N] each, of both probes."""
    return intervals.accuracy(surrogate, victim)


def _pair(surrogate: np.ndarray, victim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks both representations and returns them as float64."""
    a = check_features(surrogate, "the surrogate's representations")
    b = check_features(victim, "the victim's representations")
    if len(a) != len(b):
        raise UserError(
            f'fidelity compares representations of the same inputs, got {len(a)} of the surrogate '
            f'and {len(b)} of the victim'
        )
    return a.astype(np.float64), b.astype(np.float64)


def _least_squares(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Computes the shortest least-squares solution [D, E] for standardized inputs [N, D].

    The eigenvalues of the Gram matrix that are rounding errors of float32 features are left out: a
    collapsed surrogate has many dependent features.
    """
    values, vectors = np.linalg.eigh(inputs.T @ inputs)
    real = values > 1e-12 * values.max()
    values, vectors = values[real], vectors[:, real]
    return vectors @ (vectors.T @ (inputs.T @ targets) / values[:, None])


def _covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.T @ b / len(a)


def _is_constant(features: np.ndarray) -> bool:
    """Checks whether all rows are the same, up to the rounding of the mean."""
    centered = features - features.mean(axis=0)
    return bool(np.sum(centered**2) <= 1e-20 * np.sum(features**2))


def _check_victim(features: np.ndarray) -> None:
    if _is_constant(features):
        raise UserError(
            "the victim's representations of all inputs are the same, so there is nothing to be "
            'faithful to: its training has collapsed'
        )
