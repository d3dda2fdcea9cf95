"""The largest coordinates of an answer alone.

arXiv 2201.05889, arXiv 2201.07513.
"""

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, EmptyState, register
from ssl_extract.errors import UserError
from ssl_extract.ranges import Width


@register(
    'top_k',
    not_after=('binarize', 'pad_shuffle'),
    because='ones or added constants would be kept in place of the largest coordinates',
)
def top_k(k: Width = 64) -> Defense:
    """Keeps the `k` coordinates of each answer that are largest in absolute value; the rest are 0.

    Of equally large coordinates the first stay.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('top_k(k=1)', [[3.0, -4.0]])
    >>> outputs.tolist()
    [[0.0, -4.0]]

    Raises:
        UserError: `k` is not a whole number of at least 1; or, when an account is opened, `k` is
            more than the width of the answers.
    """

    def init(key, outputs, inputs):
        if k > outputs.shape[-1]:
            raise UserError(
                f'top_k(k={k}): the answers have {outputs.shape[-1]} coordinates; write a k of at '
                'most that'
            )
        return EmptyState()

    def apply(outputs, state, *, inputs, where, keys):
        _, places = jax.lax.top_k(jnp.abs(outputs), k)
        largest = jnp.take_along_axis(outputs, places, axis=1)
        zeros = jnp.zeros_like(outputs)
        outputs = jnp.put_along_axis(zeros, places, largest, axis=1, inplace=False)
        return outputs, where, state

    return Defense(init, apply)
