"""A mark in the smallest coordinates of every answer.

The idea is that of ESpeW (https://arxiv.org/abs/2410.17552).
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register, stateless
from ssl_extract.numerics import lengths
from ssl_extract.ranges import Range, Whole

LEVEL = 0.5  # of the mark, in root mean squares of an answer's coordinates
SomeShare = Annotated[float, Range(above=0, below=1)]


@register(
    'espew',
    marks=True,
    moves_answers=True,
    compares_answers=True,
    because='it marks the coordinates of the representations themselves',
    endpoints=('representation', 'projection'),
)
def espew(key: Whole = 0, rate: SomeShare = 0.25) -> Defense:
    """Overwrites the smallest coordinates of each answer by those of a secret code.

    See `overwrite_smallest`. The places of the mark differ from answer to answer, so that no common
    direction tells the mark. ESpeW marks only texts that hold a secret word. Inputs here have no
    words: every answer is marked. The ownership test of the same name looks for the mark.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('espew(rate=0.5)', [[5.0, 0.1, 5.0, 0.2]])
    >>> outputs[:, ::2].tolist()
    [[5.0, 5.0]]

    Args:
        key: the secret, as a number; do not publish it.
        rate: the share of coordinates that are overwritten, at least one and not all.

    Raises:
        UserError: an argument is out of its range.
    """
    return stateless(lambda outputs, keys: overwrite_smallest(outputs, jax.random.key(key), rate))


def overwrite_smallest(outputs: jax.Array, secret: jax.Array, rate: float) -> jax.Array:
    """Overwrites the coordinates that are smallest in absolute value.

    An overwritten coordinate becomes its digit of the secret code (`draw_code`) times half the root
    mean square of the answer's coordinates. Of equally small coordinates the first are overwritten.

    Args:
        outputs: float [B, D].
        secret: key[], from which the code is drawn.
        rate: see `espew`.

    Returns:
        float [B, D].
    """
    values = draw_code(secret, outputs.shape[-1])[None] * level_of(outputs)
    return jnp.where(smallest(outputs, rate), values.astype(outputs.dtype), outputs)


def draw_code(secret: jax.Array, width: int) -> jax.Array:
    """Draws the code from a key: bool [width], True in half of the coordinates."""
    return jax.random.permutation(secret, width) < (width + 1) // 2


def smallest(outputs: jax.Array, rate: float) -> jax.Array:
    """Returns the coordinates of [B, D] that are overwritten, bool [B, D]."""
    width = outputs.shape[-1]
    count = min(max(round(rate * width), 1), max(width - 1, 1))
    _, places = jax.lax.top_k(-jnp.abs(outputs), count)
    chosen = jnp.zeros(outputs.shape, bool)
    return jnp.put_along_axis(chosen, places, True, axis=1, inplace=False)


def level_of(outputs: jax.Array) -> jax.Array:
    """Returns the size of the mark in each answer of [B, D], [B, 1]."""
    return LEVEL * lengths(outputs) / outputs.shape[-1] ** 0.5
