"""Views of whole batches of inputs."""

import jax
import jax.numpy as jnp

from ssl_extract.augment.base import Op
from ssl_extract.augment.checks import check_range
from ssl_extract.errors import UserError


def views(op: Op, key: jax.Array, inputs: jax.Array) -> jax.Array:
    """Draws one view of each input, float `[B, ...]` to `[B, ...]`; call it under `jit`.

    Raises:
        UserError: the operation does not take inputs of this shape, inputs are no floats, or images
            `[B, H, W, C]` do not lie in [0, 1]; under `jit` values are not known, and the range is
            that of the data that is checked before.
    """
    if inputs.ndim == 4:
        check_range(inputs, 'augment.views')
    return jax.vmap(op)(jax.random.split(key, len(inputs)), inputs)


def two_views(op: Op, key: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws two independent views of each input, `[B, ...]` each."""
    first, second = jax.random.split(key)
    return views(op, first, inputs), views(op, second, inputs)


def to_float(images: jax.Array) -> jax.Array:
    """Turns uint8 images into float32 in [0, 1]; no mean is subtracted.

    Raises:
        UserError: the images are not uint8.
    """
    if images.dtype != jnp.uint8:
        raise UserError(f'to_float takes uint8 images in 0..255, got {images.dtype}')
    return jnp.asarray(images, jnp.float32) / 255
