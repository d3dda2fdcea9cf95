"""Checks of images before an augmentation."""

import jax
import jax.numpy as jnp

from ssl_extract.errors import UserError


def check_image(image: jax.Array, name: str, channels: int | None = None) -> None:
    """Checks one image of an operation: by its shape, and by its values outside of `jit`.

    Args:
        image: float `[H, W, C]` in [0, 1].
        name: of the operation, for an error message.
        channels: the only accepted C; None accepts any.

    Raises:
        UserError: the image has another shape, or its values are no floats in [0, 1].
    """
    if image.ndim != 3 or channels not in (None, image.shape[-1]):
        raise UserError(
            f'{name} takes an image [H, W, {channels or "C"}], got {list(image.shape)}: write '
            "'none', or an operation that fits"
        )
    check_range(image, name)


def check_range(images: jax.Array, name: str) -> None:
    """Checks that values are floats in [0, 1]; under `jit` the type alone can be checked.

    Args:
        images: float, of any shape.
        name: of the operation or the set, for an error message.

    Raises:
        UserError: values are no floats, are not finite, or lie outside of [0, 1].
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f'{name} takes floats in [0, 1], got {images.dtype}: decode images first')
    if isinstance(images, jax.core.Tracer) or not images.size:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise UserError(
            f'{name} takes floats in [0, 1], got {low:.4g} to {high:.4g}: give it uint8 images '
            'decoded, or divide the values by their largest'
        )
