"""Padding of inputs of different lengths: encoders see -1 behind an end.

Sets hold clips and texts of different lengths as rows of one array, padded to the longest. A padded
value is -1 once it is decoded, for waveforms, whose samples lie above -1, and for tokens, which are
0 or more. So an input holds its own length wherever it goes: in a query, in a store, in a view.
"""

import jax
import jax.numpy as jnp

PADDING = -1.0  # in decoded inputs
STORED_WAVE = -(2**15)  # in int16 waveforms; samples are -32767 or more
STORED_TOKEN = -1  # in int32 tokens


def mask(inputs: jax.Array) -> jax.Array:
    """Returns where decoded inputs [..., T] hold something: bool [..., T], False for padding.

    >>> mask(jnp.array([[0.5, -0.25, -1.0, -1.0]])).tolist()
    [[True, True, False, False]]
    """
    return inputs > PADDING


def mean(vectors: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean float32 [B, D] of vectors [B, T, D] where the mask [B, T] holds; 0 of none.

    >>> mean(jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[True, True, False]])).tolist()
    [[2.0]]
    """
    total = jnp.einsum('btd,bt->bd', vectors.astype(jnp.float32), mask.astype(jnp.float32))
    return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)


def lengths(inputs: jax.Array) -> jax.Array:
    """Returns the lengths of decoded inputs [..., T], int32 [...]; padding stands at the end.

    >>> lengths(jnp.array([[0.5, -0.25, -1.0, -1.0]])).tolist()
    [2]
    """
    return jnp.sum(mask(inputs), axis=-1, dtype=jnp.int32)
