"""Decoders: from arrays as they are stored to what encoders see.

A decoder is a pure, module-level JAX function `stored [B, ...] -> inputs [B, ...]`, registered
under a name, so that a data set is described by arrays and text:

    @data.register_decoder('centered')
    def centered(stored: jax.Array) -> jax.Array:
        return stored.astype(jnp.float32) / 127.5 - 1
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.padding import STORED_TOKEN, STORED_WAVE
from ssl_extract.registry import Registry

Decoder = Callable[[jax.Array], jax.Array]

# The trait of a decoder.
# padding: the stored value behind the end of an input [T], as a number of the stored type; None
#   where inputs have no padding.
DECODERS = Registry('decoder', padding=None)
register_decoder = DECODERS.register


@register_decoder('images')
def images(stored: jax.Array) -> jax.Array:
    """Turns uint8 into float32 in [0, 1]; no mean is subtracted.

    >>> images(jnp.array([0, 255], jnp.uint8)).tolist()
    [0.0, 1.0]
    """
    return jnp.asarray(stored, jnp.float32) / 255


@register_decoder('waves', padding=np.int16(STORED_WAVE))
def waves(stored: jax.Array) -> jax.Array:
    """Turns int16 into float32 in (-1, 1), and padding into -1; see `ssl_extract.padding`.

    >>> waves(jnp.array([16384, -32768], jnp.int16)).tolist()
    [0.5, -1.0]
    """
    return jnp.asarray(stored, jnp.float32) / 2**15


@register_decoder('identity')
def identity(stored: jax.Array) -> jax.Array:
    """Leaves stored inputs alone: float vectors.

    >>> identity(jnp.array([0.5, -2.0])).tolist()
    [0.5, -2.0]
    """
    return stored


@register_decoder('tokens', padding=np.int32(STORED_TOKEN))
def tokens(stored: jax.Array) -> jax.Array:
    """Turns int32 tokens into float32 of the same numbers; padding stays -1.

    >>> tokens(jnp.array([2, 7, -1])).tolist()
    [2.0, 7.0, -1.0]
    """
    return jnp.asarray(stored, jnp.float32)


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


def padding_of(name: str) -> np.generic | None:
    """Returns the stored padding of the decoder `name`, None where there is none.

    >>> padding_of('waves'), padding_of('images'), padding_of('')
    (np.int16(-32768), None, None)
    """
    return DECODERS.traits(name).padding if name else None
