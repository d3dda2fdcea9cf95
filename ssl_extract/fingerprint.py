"""Fingerprints: content hashes of inputs."""

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(inputs: jax.Array) -> jax.Array:
    """A 64-bit content hash of every image [B, ...], as uint32[B, 2]; runs on the device.

    Two multilinear hashes of the scrambled words (Lemire and Kaser, "Strongly universal string
    hashing is fast", 2014); equal inputs have equal fingerprints, and a million different ones
    collide with probability 3e-8.
    """
    words = jax.lax.bitcast_convert_type(inputs.astype(jnp.float32), jnp.uint32)
    words = words.reshape(words.shape[0], -1)
    words = (words ^ (words >> 15)) * np.uint32(0x2C1B3C6D)
    words = (words ^ (words >> 12)) * np.uint32(0x297A2D39)
    words = words ^ (words >> 15)
    random = np.random.default_rng(2022).integers(2**32, size=(2, words.shape[1]), dtype=np.uint32)
    sums = [jnp.sum(words * (r | 1), axis=1, dtype=jnp.uint32) for r in random[:, None]]
    return jnp.stack(sums, axis=1)


def image_keys(key: jax.Array, inputs: jax.Array) -> jax.Array:
    """A key for every image [B, ...], as key[B]: always the same for one image under one `key`."""

    def fold(words: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])

    return jax.vmap(fold)(fingerprint(inputs))
