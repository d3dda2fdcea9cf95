"""Affine maps from one encoder's representations to another's."""

from typing import NamedTuple

import numpy as np

PENALTIES = tuple(10.0**power for power in range(-3, 6))  # of standardized features


class Affine(NamedTuple):
    """The map `(x - center) @ weights + offset`.

    Attributes:
        center: [1, D].
        weights: [D, E].
        offset: [1, E].
    """

    center: np.ndarray
    weights: np.ndarray
    offset: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Maps rows [N, D] to [N, E]; of JAX arrays too."""
        return (rows - self.center) @ self.weights + self.offset


def fit_affine(rows: np.ndarray, targets: np.ndarray) -> Affine:
    """Fits the affine map from rows to targets by ridge regression.

    The penalty is the one of `PENALTIES` with the smallest error when each row is left out in turn
    (generalized cross-validation, scikit-learn's `RidgeCV`). So the map is defined for any N and D,
    and a wide encoder is not mapped better by chance. A constant feature has weight 0.

    >>> rows = np.random.default_rng(0).normal(size=(50, 3))
    >>> affine = fit_affine(rows, 2 * rows[:, :2] + 7)
    >>> affine(rows[:1]).round(1) == (2 * rows[:1, :2] + 7).round(1)
    array([[ True,  True]])

    Args:
        rows: float [N, D], of one encoder.
        targets: float [N, E], of the other encoder, for the same N inputs.
    """
    from sklearn.linear_model import RidgeCV  # takes a second to import
    from sklearn.preprocessing import StandardScaler

    rows, targets = np.asarray(rows, np.float64), np.asarray(targets, np.float64)
    scaler = StandardScaler().fit(rows)
    ridge = RidgeCV(PENALTIES).fit(scaler.transform(rows), targets)
    weights = np.atleast_2d(ridge.coef_).T / scaler.scale_[:, None]
    return Affine(scaler.mean_[None], weights, np.reshape(ridge.intercept_, (1, -1)))
