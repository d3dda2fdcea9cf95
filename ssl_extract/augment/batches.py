"""Views of whole batches of images."""

import jax
import jax.numpy as jnp

from ssl_extract.augment.checks import check_range
from ssl_extract.augment.images import Op
from ssl_extract.errors import UserError


def views(op: Op, key: jax.Array, images: jax.Array) -> jax.Array:
    """Draws one view of each image, `[B, H, W, 3]` to `[B, H, W, 3]`; call it under `jit`.

    Raises:
        UserError: images are no floats, or do not lie in [0, 1]; under `jit` values are not known,
            and the range is that of the data that is checked before.
    """
    check_range(images, 'augment.views')
    return jax.vmap(op)(jax.random.split(key, len(images)), images)


def two_views(op: Op, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws two independent views of each image, `[B, H, W, 3]` each."""
    first, second = jax.random.split(key)
    return views(op, first, images), views(op, second, images)


def to_float(images: jax.Array) -> jax.Array:
    """Turns uint8 images into float32 in [0, 1]; no mean is subtracted.

    Raises:
        UserError: the images are not uint8.
    """
    if images.dtype != jnp.uint8:
        raise UserError(f'to_float takes uint8 images in 0..255, got {images.dtype}')
    return jnp.asarray(images, jnp.float32) / 255
