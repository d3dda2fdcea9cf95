"""Arithmetic shared by losses, defenses, strategies and metrics.

Float32 squares underflow below 1e-19 and overflow above 1e19, and differences of large numbers lose
digits. The functions of this file work on values of any scale with any common offset.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError

METRICS = ('cosine', 'l2')
LARGEST = 1e19  # of a healthy parameter; the square of a larger number overflows float32
_BLOCK = 4096  # rows in float64 at a time


def normalize(rows: jax.Array) -> jax.Array:
    """Scales each row of [N, D] to L2 norm 1; a zero row stays zero and its gradient is zero."""
    rows = rows / magnitude(rows)
    squared = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    # Selected twice: the gradient of rsqrt at 0 would be NaN even where it is not selected.
    nonzero = squared > 0.0
    return rows * jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)


def lengths(rows: jax.Array) -> jax.Array:
    """Computes the L2 norm of each row of [N, D], float32 [N, 1]."""
    scale = magnitude(rows)
    return scale * jnp.linalg.norm(rows / scale, axis=-1, keepdims=True)


def magnitude(values: jax.Array, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """Returns a power of two near the largest absolute value along an axis, kept; 1 for zeros.

    The division by a power of two is exact, so that results at an ordinary scale stay the same to
    the last bit.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(values), axis=axis, keepdims=True))
    power = jax.lax.reduce_precision(0.5 * largest, exponent_bits=8, mantissa_bits=0)
    return jnp.where(power > 0.0, power, 1.0)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies `a [N, D]` by `b [D, M]` in full float32, on TPUs and recent GPUs too.

    Their default is faster and coarser. Losses divide similarities by small temperatures, for which
    three digits of bfloat16 are too few, and the product costs little beside the encoder.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def units(rows: np.ndarray) -> np.ndarray:
    """Scales rows [..., D] to L2 norm 1, in float64 on the host; a zero row stays zero.

    >>> units(np.float32([[3e-20, 4e-20], [0.0, 0.0]])).round(6).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    rows = np.asarray(rows, np.float64)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def centered(rows: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Moves and scales sets of points alike, so that float32 distances keep their digits.

    The mean of `rows` becomes 0 and their largest coordinate about 1. Distances keep their order.

    >>> near, far = centered(np.float32([[1e9], [1e9 + 64]]), np.float32([[1e9 + 640]]))
    >>> (far / near[1]).tolist()
    [[19.0]]

    Args:
        rows: float [N, D].
        *others: float [M, D] each.

    Returns:
        float32 arrays of the shapes of `rows` and `others`.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    largest = max(float(np.max(np.abs(rows[i : i + _BLOCK] - mean))) for i in _starts(rows))
    scale = largest or 1.0
    return [_by_block(points, lambda block: (block - mean) / scale) for points in (rows, *others)]


def centered_units(rows: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Scales rows to length 1 and moves all of them alike, to the mean of the first rows.

    Half of the squared distance of two such rows is one minus their cosine. A cosine of two float32
    rows with a common offset rounds to 1, while the squared distance keeps its digits.

    Args:
        rows: float [N, D].
        *others: float [M, D] each.

    Returns:
        float32 arrays of the shapes of `rows` and `others`.
    """
    center = units(rows[:_BLOCK]).mean(axis=0)
    return [_by_block(points, lambda block: units(block) - center) for points in (rows, *others)]


def _starts(rows: np.ndarray) -> range:
    return range(0, len(rows), _BLOCK)


def _by_block(rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Applies a function of float64 to blocks of rows, to float32, in little memory."""
    blocks = [change(rows[start : start + _BLOCK]).astype(np.float32) for start in _starts(rows)]
    return np.concatenate(blocks)


def finite_rows(rows: np.ndarray) -> np.ndarray:
    """Returns which rows of [N, D] hold finite numbers only, bool[N], in little memory.

    >>> finite_rows(np.float32([[1, 2], [3, np.inf]])).tolist()
    [True, False]
    """
    blocks = [np.isfinite(rows[start : start + _BLOCK]).all(axis=1) for start in _starts(rows)]
    return np.concatenate([np.zeros(0, bool), *blocks])


def is_finite(tree: Any) -> bool:
    """Returns whether all numbers of a pytree are finite, and below `LARGEST` in magnitude.

    Parameters are checked, since a loss and features can look finite beside parameters that are
    not: a compiled ReLU may turn NaN into 0.

    >>> is_finite({'w': jnp.ones(3)}), is_finite({'w': jnp.array([1.0, jnp.nan])})
    (True, False)
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return bool(_are_finite([x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]))


@jax.jit
def _are_finite(leaves: list[jax.Array]) -> jax.Array:
    within = [jnp.all(jnp.abs(leaf) < LARGEST) for leaf in leaves]  # False for NaN
    return functools.reduce(jnp.logical_and, within, jnp.array(True))


def check_metric(metric: str) -> None:
    """Raises UserError unless `metric` is one of `METRICS`."""
    if metric not in METRICS:
        raise UserError(f'metric={metric!r}: write {" or ".join(map(repr, METRICS))}')
