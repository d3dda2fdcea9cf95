"""Gaussian noise on representations (arXiv 2205.07890, sections 5.2 and A.2)."""

import jax

from ssl_extract.defenses.base import DEFENSES, Defense, stateless
from ssl_extract.errors import UserError


@DEFENSES.register('gaussian_noise')
def gaussian_noise(mean: float = 0.0, stddev: float = 1.0) -> Defense:
    """Adds `N(mean, stddev^2)` to every coordinate, drawn anew for every query.

    Asking twice about one image draws new noise, which an attacker can average away; a constant
    mean is removed by subtracting the average answer.

    Raises:
        UserError: `stddev` is negative.
    """
    if stddev < 0:
        raise UserError(f'gaussian_noise(stddev={stddev}): stddev must be 0 or more')

    def add(outputs: jax.Array, keys: jax.Array) -> jax.Array:
        row = outputs.shape[1:]
        noise = jax.vmap(lambda key: jax.random.normal(key, row, outputs.dtype))(keys)
        return outputs + mean + stddev * noise

    return stateless(add)
