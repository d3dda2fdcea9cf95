"""The sixteen operations of RandAugment and their ranges.

Cubuk et al. 2020, arXiv 1909.13719.

The operations are those of ildoonet/pytorch-randaugment, the package that Cont-Steal's code calls.
The package took them from Google's code for EfficientNet; the paper's list has Identity in place of
Invert, SolarizeAdd and CutoutAbs. A value runs linearly from the first number, at magnitude m = 0,
to the second, at m = 30. The value is the same for all images but for a sign, drawn with
probability 1/2.

| operation | value | sign | effect |
| --- | --- | --- | --- |
| AutoContrast | | | stretches each channel to [0, 1] |
| Equalize | | | evens out the histogram of each channel, of 256 levels |
| Invert | | | 1 - image |
| Posterize | 0 to 4 | | keeps so many bits, rounded down, at least one |
| Solarize | 0 to 256 | | inverts levels, of 255, from the value on |
| SolarizeAdd | 0 to 110 | | adds the value to the levels, then inverts those from 128 on |
| Color | 0.1 to 1.9 | | factor against the gray image |
| Contrast | 0.1 to 1.9 | | factor against the mean gray |
| Brightness | 0.1 to 1.9 | | factor against black |
| Sharpness | 0.1 to 1.9 | | factor against the smoothed image |
| Rotate | 0 to 30 | yes | degrees, about the center |
| ShearX, ShearY | 0 to 0.3 | yes | pixels per pixel, about the upper left corner |
| TranslateXabs, TranslateYabs | 0 to 100 | yes | pixels |
| CutoutAbs | 0 to 40 | | side, in pixels, of a square of gray, (125, 123, 114) of 255 |

So Posterize and Solarize do less with a larger m, and the four factors do nothing at m = 15. The
geometric operations take the nearest pixel and fill with black, as Pillow does by default.

Two things differ from the package. Images are floats between operations, so that only Equalize and
Posterize cut values to whole levels. And pixels can be counted for a larger image (`side`).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.augment import image_ops

RANGES = {
    'AutoContrast': (0, 1),
    'Equalize': (0, 1),
    'Invert': (0, 1),
    'Posterize': (0, 4),
    'Solarize': (0, 256),
    'SolarizeAdd': (0, 110),
    'Color': (0.1, 1.9),
    'Contrast': (0.1, 1.9),
    'Brightness': (0.1, 1.9),
    'Sharpness': (0.1, 1.9),
    'Rotate': (0, 30),
    'ShearX': (0, 0.3),
    'ShearY': (0, 0.3),
    'TranslateXabs': (0, 100),
    'TranslateYabs': (0, 100),
    'CutoutAbs': (0, 40),
}
# Which of the seven branches of `operation` does an operation, in the order of `RANGES`.
_BRANCHES = np.array([0, 1, 2, 3, 2, 2, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6])
_GRAY = np.array([125, 123, 114], np.float32) / 255


def operation(
    m: float, side: int | None, shape: tuple[int, ...]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes the function that applies one operation of magnitude `m` to an image of `shape`.

    The function takes the image and four numbers in [0, 1). The first number selects the operation,
    the second the sign (negative from 0.5 on), the others the center of the square that CutoutAbs
    draws, across and down.

    Args:
        m: magnitude, in [0, 30].
        side: see `ssl_extract.augment.images.rand_augment`.
        shape: (H, W, 3) of the image.
    """
    height, width = shape[:2]
    value = {name: low + m / 30 * (high - low) for name, (low, high) in RANGES.items()}
    per_pixel = (1.0, 1.0) if side is None else (width / side, height / side)
    offset, threshold = np.zeros((2, len(RANGES)), np.float32)
    names = list(RANGES)
    # Thresholds lie between two levels; Invert is Solarize with a threshold of nothing.
    threshold[names.index('Invert')] = -1
    threshold[names.index('Solarize')] = (math.ceil(value['Solarize']) - 0.5) / 255
    threshold[names.index('SolarizeAdd')] = 0.5
    offset[names.index('SolarizeAdd')] = math.floor(value['SolarizeAdd']) / 255
    bits = max(1, int(value['Posterize']))
    cut = tuple(value['CutoutAbs'] * scale for scale in per_pixel)
    matrices = np.zeros((len(RANGES), 2, 2, 3), np.float32)
    for name in ('Rotate', 'ShearX', 'ShearY', 'TranslateXabs', 'TranslateYabs'):
        for negative, signed in enumerate((value[name], -value[name])):
            matrices[names.index(name), negative] = _matrix(name, signed, shape, per_pixel)

    def transform(image: jax.Array, uniform: jax.Array) -> jax.Array:
        which = jnp.floor(uniform[0] * len(RANGES)).astype(jnp.int32)
        negative = (uniform[1] >= 0.5).astype(jnp.int32)
        amounts = (jnp.array(offset)[which], jnp.array(threshold)[which])
        chosen = (jnp.array(_BRANCHES)[which], *amounts, jnp.array(matrices)[which, negative])
        branch, added, at_least, matrix = image_ops.hold(chosen)

        def solarize(image: jax.Array) -> jax.Array:
            return image_ops.solarize(jnp.minimum(image + added, 1), at_least)

        return jax.lax.switch(
            branch,
            [
                image_ops.autocontrast,
                image_ops.equalize,
                solarize,
                lambda image: image_ops.posterize(image, bits),
                lambda image: _enhance(image, which - names.index('Color'), value['Color']),
                lambda image: image_ops.affine(image, matrix),
                lambda image: _cut_out(image, uniform[2:], cut),
            ],
            image,
        )

    return transform


def _enhance(image: jax.Array, which: jax.Array, factor: float) -> jax.Array:
    """Blends with, by `which`: 0 the gray image, 1 the mean gray, 2 black, 3 the smooth image."""
    luma = image_ops.luma_of(image_ops.planes_of(image))
    gray = jnp.where(which == 0, luma, jnp.where(which == 1, jnp.mean(luma), 0.0))
    other = jnp.where(which == 3, image_ops.smooth(image), gray[..., None])
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _cut_out(image: jax.Array, uniform: jax.Array, cut: tuple[float, float]) -> jax.Array:
    """Draws the gray square, from a whole pixel `corner` up to and including `corner + side`."""
    inside = True
    for axis, (u, side) in enumerate(zip((uniform[1], uniform[0]), cut[::-1], strict=True)):
        size = image.shape[axis]
        # The center is uniform in [1, size], for the code calls np.random.uniform(size).
        start = jnp.floor(jnp.maximum(1 + u * (size - 1) - side / 2, 0))
        pixels = jnp.arange(size).reshape((-1, 1) if axis == 0 else (1, -1))
        inside &= (pixels >= start) & (pixels <= start + side)
    return jnp.where(inside[..., None], _GRAY, image)


def _matrix(
    name: str, value: float, shape: tuple[int, ...], per_pixel: tuple[float, float]
) -> list[list[float]]:
    """Makes the matrix of `image_ops.affine`: the origin of a pixel, column, then row."""
    if name == 'Rotate':  # counterclockwise
        radians = math.radians(value)
        return image_ops.rotation_matrix(math.cos(radians), math.sin(radians), shape)
    right, down = value * per_pixel[0], value * per_pixel[1]
    return {
        'ShearX': [[1, value, 0], [0, 1, 0]],
        'ShearY': [[1, 0, 0], [value, 1, 0]],
        'TranslateXabs': [[1, 0, right], [0, 1, 0]],
        'TranslateYabs': [[1, 0, 0], [0, 1, down]],
    }[name]
