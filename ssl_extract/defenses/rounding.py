"""Rounding of answers."""

from typing import Annotated

import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register, stateless
from ssl_extract.ranges import Range


@register('round', not_after=('binarize',), because='0 and 1 are round already')
def round_(decimals: Annotated[int, Range(-10, 10)] = 2) -> Defense:
    """Rounds every coordinate to `decimals` decimal places (negative: to tens, hundreds, ...).

    StolenEncoder (arXiv 2201.05889) and Cont-Steal (arXiv 2201.07513) tried rounding against the
    extraction of encoders, with nearly no effect.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('round(decimals=0)', [[0.4, 1.8]])
    >>> outputs.tolist()
    [[0.0, 2.0]]

    Raises:
        UserError: `decimals` is not a whole number from -10 to 10, the range of float32.
    """
    return stateless(lambda outputs, keys: jnp.round(outputs, decimals))
