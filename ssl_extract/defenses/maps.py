"""Secret invertible maps, one for each account.

The transforms of B4B, arXiv 2310.08571.

An attacker who knows the map can undo it, and a linear probe works on mapped answers as before. The
answers of several accounts do not fit together, though, which sybils need. The kinds of transforms
are B4B's. `diagonal` draws as the public code of B4B does; the distributions of `orthogonal` and
`affine` are a choice of this project.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register
from ssl_extract.numerics import product
from ssl_extract.ranges import NotNegative, Range


class AffineMap(NamedTuple):
    """The account's secret map `answer @ matrix + offset`: float[D, D] and float[D]."""

    matrix: jax.Array
    offset: jax.Array


@register('orthogonal', moves_answers=True)
def orthogonal() -> Defense:
    """Rotates (and perhaps mirrors) the answers by a secret orthogonal matrix, Haar distributed.

    Norms, distances and angles between the answers of one account stay the same.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('orthogonal', [[3.0, 4.0]])
    >>> round(float(jnp.linalg.norm(outputs)), 3)
    5.0
    """

    def draw(key, width, dtype):
        return AffineMap(jax.random.orthogonal(key, width, dtype=dtype), jnp.zeros(width, dtype))

    return _affine_map(draw)


@register('affine', moves_answers=True)
def affine(
    condition: Annotated[float, Range(least=1)] = 10.0, stddev: NotNegative = 1.0
) -> Defense:
    """Maps each answer x to `x A + b` with a secret invertible A and a secret b.

    A = Q1 diag(s) Q2 with Haar distributed orthogonal matrices and log-uniform singular values
    from `1 / sqrt(condition)` to `sqrt(condition)`, both of which occur; b ~ N(0, stddev^2).

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('affine', [[3.0, 4.0]])
    >>> bool(jnp.allclose(outputs, jnp.array([[3.0, 4.0]])))
    False

    Args:
        condition: the condition number of A, the factor between its largest and smallest singular
            value; 1 is a rotation. Undoing the map in float32 loses log10(condition) digits.
        stddev: standard deviation of the coordinates of b, in units of the answers.

    Raises:
        UserError: `condition` is below 1, or `stddev` is negative.
    """

    def draw(key, width, dtype):
        left, middle, right, shift = jax.random.split(key, 4)
        q1, q2 = (jax.random.orthogonal(k, width, dtype=dtype) for k in (left, right))
        exponents = jax.random.uniform(middle, (width,), dtype, -0.5, 0.5)
        exponents = exponents.at[0].set(-0.5).at[-1].set(0.5)
        matrix = product(q1 * (condition**exponents)[None], q2)
        return AffineMap(matrix, stddev * jax.random.normal(shift, (width,), dtype))

    return _affine_map(draw)


@register('diagonal', moves_answers=True)
def diagonal() -> Defense:
    """Maps each coordinate x_i of an answer to `a_i x_i + b_i`, with secret a and b from U(-1, 1).

    The map is the affine transform of B4B's public code (github.com/stapaw/b4b-active-encoder-
    defense, `src/transforms/affine.py`), which serves the accuracy of users there. The sybils of
    the same code meet a full matrix with entries from U(-1, 1). The map of a coordinate with a
    factor near 0 hides the coordinate behind any noise. The coordinates stay apart, so that two
    answers to one coordinate determine the map.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('diagonal', [[0.0, 0.0], [3.0, 3.0]])
    >>> bool(jnp.all(jnp.abs(outputs[1] - outputs[0]) < 3))
    True
    """

    def draw(key, width, dtype):
        factors, offsets = jax.random.uniform(key, (2, width), dtype, -1, 1)
        return AffineMap(jnp.diag(factors), offsets)

    return _affine_map(draw)


def _affine_map(draw) -> Defense:
    def init(key, outputs, inputs):
        return draw(key, outputs.shape[-1], outputs.dtype)

    def apply(outputs, state, *, inputs, where, keys):
        return product(outputs, state.matrix) + state.offset[None], where, state

    return Defense(init, apply)
