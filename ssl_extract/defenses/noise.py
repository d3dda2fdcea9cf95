"""Gaussian noise on representations.

arXiv 2205.07890, sections 5.2 and A.2.
"""

from typing import NamedTuple

import jax

from ssl_extract.defenses.base import Defense, EmptyState, register
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import image_keys
from ssl_extract.ranges import NotNegative, Real


class SecretKey(NamedTuple):
    """The secret key[] of an account's noise."""

    key: jax.Array


@register('gaussian_noise', moves_answers=True)
def gaussian_noise(mean: Real = 0.0, stddev: NotNegative = 1.0, keyed_by: str = 'query') -> Defense:
    """Adds `N(mean, stddev^2)` to every coordinate.

    An attacker removes a constant mean by subtracting the average answer.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('gaussian_noise(stddev=0.0)', [[1.0, 2.0]])
    >>> outputs.tolist()
    [[1.0, 2.0]]

    Args:
        mean: in units of the answers.
        stddev: standard deviation, in units of the answers.
        keyed_by: 'query' draws anew for every query, as the paper does: n queries of one input
            average the noise down to `stddev / sqrt(n)`. 'image' draws from the account's secret
            and the content of the input: the same input gets the same answer, and another account,
            or another view of the input, gets other noise.

    Raises:
        UserError: `stddev` is negative, or `keyed_by` is neither 'query' nor 'image'.
    """
    if keyed_by not in ('query', 'image'):
        raise UserError(f"keyed_by must be 'query' or 'image', got {keyed_by!r}")
    of_image = keyed_by == 'image'

    def init(key, outputs, inputs):
        return SecretKey(key) if of_image else EmptyState()

    def apply(outputs, state, *, inputs, where, keys):
        if of_image:
            keys = image_keys(state.key, inputs)
        return outputs + mean + stddev * draw_normal(outputs, keys), where, state

    return Defense(init, apply)


def draw_normal(outputs: jax.Array, keys: jax.Array) -> jax.Array:
    """Draws from N(0, 1) for each coordinate of `outputs [B, D]`, row i with key i of `keys`."""
    shape, dtype = outputs.shape[1:], outputs.dtype
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
