"""Secret constants among the coordinates of an answer.

Pad and shuffle of B4B, arXiv 2310.08571.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register
from ssl_extract.ranges import Range


class PadShuffle(NamedTuple):
    """The account's secret constants, float[pad], and order, int[D + pad].

    Coordinate j of an answer is coordinate `order[j]` of the padded answer.
    """

    constants: jax.Array
    order: jax.Array


@register('pad_shuffle', moves_answers=True)
def pad_shuffle(pad: Annotated[int, Range(0, 2**16)] = 64) -> Defense:
    """Appends `pad` constants to every answer and permutes its coordinates; both are secret.

    The constants are drawn from N(0, 1), as in B4B's public code. An attacker who knows the order
    can undo the defense. A single account finds the constants: they are the same in all answers.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('pad_shuffle(pad=2)', [[3.0, 4.0]])
    >>> outputs.shape
    (1, 4)

    Raises:
        UserError: `pad` is not a whole number of at least 0.
    """

    def init(key, outputs, inputs):
        for_constants, for_order = jax.random.split(key)
        return PadShuffle(
            jax.random.normal(for_constants, (pad,), outputs.dtype),
            jax.random.permutation(for_order, outputs.shape[-1] + pad),
        )

    def apply(outputs, state, *, inputs, where, keys):
        constants = jnp.broadcast_to(state.constants, (len(outputs), pad))
        padded = jnp.concatenate([outputs, constants], axis=1)
        return padded[:, state.order], where, state

    return Defense(init, apply)
