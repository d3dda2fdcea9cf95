"""Binary answers.

The binary transform of B4B, arXiv 2310.08571.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register, stateless
from ssl_extract.numerics import product
from ssl_extract.ranges import Range


class Hyperplanes(NamedTuple):
    """The normals of the account's secret hyperplanes through the origin, float[D, bits]."""

    normals: jax.Array


@register(
    'binarize',
    moves_answers=True,
    not_after=('binarize',),
    because='its answers are zeros and ones already',
)
def binarize(bits: Annotated[int, Range(0, 2**16)] = 0) -> Defense:
    """Replaces each answer by bits, as numbers 0 and 1.

    B4B names a binary transform; the two rules are a choice of this project.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('binarize', [[0.0, 3.0, 1.0]])
    >>> outputs.tolist()
    [[0.0, 1.0, 0.0]]

    Args:
        bits: the width of the answers: bit j is the side of the account's secret random hyperplane
            j on which the answer lies, so that two answers at the angle theta differ in a share of
            theta / pi of the bits (SimHash; Charikar, "Similarity estimation techniques from
            rounding algorithms", STOC 2002). With 0 the width stays D, and a coordinate becomes 1
            where the coordinate is above the mean of the answer's coordinates.

    Raises:
        UserError: `bits` is not a whole number of at least 0.
    """
    if not bits:
        return stateless(
            lambda outputs, keys: (outputs > jnp.mean(outputs, axis=1, keepdims=True)).astype(
                outputs.dtype
            )
        )

    def init(key, outputs, inputs):
        return Hyperplanes(jax.random.normal(key, (outputs.shape[-1], bits), outputs.dtype))

    def apply(outputs, state, *, inputs, where, keys):
        sides = product(outputs, state.normals) >= 0
        return sides.astype(outputs.dtype), where, state

    return Defense(init, apply)
