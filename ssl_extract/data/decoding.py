"""Decoders: from arrays as they are stored to what encoders see.

A decoder is a pure, module-level JAX function `stored [B, ...] -> inputs [B, ...]`, registered
under a name, so that a data set is described by arrays and text:

    @data.register_decoder('waveforms')
    def waveforms(stored: jax.Array) -> jax.Array:
        return stored.astype(jnp.float32) / 2**15
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

Decoder = Callable[[jax.Array], jax.Array]

DECODERS = Registry('decoder')
register_decoder = DECODERS.register


@register_decoder('images')
def images(stored: jax.Array) -> jax.Array:
    """Turns uint8 into float32 in [0, 1]; no mean is subtracted.

    >>> images(jnp.array([0, 255], jnp.uint8)).tolist()
    [0.0, 1.0]
    """
    return jnp.asarray(stored, jnp.float32) / 255


@register_decoder('identity')
def identity(stored: jax.Array) -> jax.Array:
    """Leaves stored inputs alone: float vectors, or tokens that an encoder embeds.

    >>> identity(jnp.array([2, 7])).tolist()
    [2, 7]
    """
    return stored


def make(name: str, dtype: np.dtype, owner: str = 'inputs') -> Decoder:
    """Returns the decoder `name`, or the default decoder of the stored type; see `name_of`."""
    return DECODERS[name_of(name, dtype, owner)]


def name_of(name: str, dtype: np.dtype, owner: str = 'inputs') -> str:
    """Returns the decoder's name: `name`, or the default for inputs of `dtype` where it is ''.

    Args:
        name: of a registered decoder; '' for 'images' of uint8 and 'identity' of floats.
        dtype: of the stored inputs.
        owner: the set of the inputs, as an error message names it.

    >>> name_of('', np.dtype('uint8')), name_of('', np.dtype('float32'))
    ('images', 'identity')

    Raises:
        UserError: the name is unknown, or the type has no default decoder.
    """
    if not name:
        if dtype == np.uint8:
            return 'images'
        if np.issubdtype(dtype, np.floating):
            return 'identity'
        raise UserError(
            f"{owner}: {dtype} has no decoder of its own: write decode='identity' if encoders "
            f'take it as it is, or one of {", ".join(sorted(DECODERS))}'
        )
    if name not in DECODERS:
        raise UserError(
            f'{owner}: unknown decoder {name!r}: known are {", ".join(sorted(DECODERS))}'
        )
    return name
