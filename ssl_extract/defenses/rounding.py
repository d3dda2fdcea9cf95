"""Rounding of the answers, the usual cheap perturbation of prediction APIs."""

import jax.numpy as jnp

from ssl_extract.defenses.base import DEFENSES, Defense, stateless
from ssl_extract.errors import UserError


@DEFENSES.register('round')
def round_(decimals: int = 2) -> Defense:
    """Rounds every coordinate to `decimals` decimal places (negative: to tens, hundreds, ...).

    Raises:
        UserError: `decimals` is not a whole number.
    """
    if not isinstance(decimals, int):
        raise UserError(f'round(decimals={decimals!r}): decimals must be a whole number')
    return stateless(lambda outputs, keys: jnp.round(outputs, decimals))
