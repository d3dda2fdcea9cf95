"""Deterministic operations on one image, without randomness.

An image is float32 `[H, W, 3]` in [0, 1], and so is every result. Color works on the three planes,
`[H, W]` each: on CPU a loop over whole rows is several times faster than one over three channels.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow and torchvision
_TINY = 1e-30  # a difference of values whose inverse is finite

T = TypeVar('T')
Planes = tuple[jax.Array, jax.Array, jax.Array]  # red, green, blue, each [H, W]


def grayscale(image: jax.Array) -> jax.Array:
    """Replaces the three channels by the luma, ITU-R 601."""
    luma = luma_of(planes_of(image))
    return image_of((luma, luma, luma))


def adjust_brightness(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Blends with black: `factor` 0 is black, 1 leaves the image alone, 2 is twice as bright."""
    return image_of(blend(planes_of(image), 0.0, factor))


def adjust_contrast(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Blends with the mean luma: `factor` 0 is flat gray, 1 leaves the image alone."""
    planes = planes_of(image)
    return image_of(blend(planes, jnp.mean(luma_of(planes)), factor))


def adjust_saturation(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Blends with the gray image: `factor` 0 is gray, 1 leaves the image alone."""
    planes = planes_of(image)
    return image_of(blend(planes, luma_of(planes), factor))


def adjust_hue(image: jax.Array, turns: jax.typing.ArrayLike) -> jax.Array:
    """Rotates the hue in HSV by `turns` of the color circle, in [-0.5, 0.5]."""
    return image_of(rotate_hue(planes_of(image), turns))


def crop_and_resize(
    image: jax.Array,
    top: jax.typing.ArrayLike,
    left: jax.typing.ArrayLike,
    height: jax.typing.ArrayLike,
    width: jax.typing.ArrayLike,
) -> jax.Array:
    """Resizes a box of an image to the size of the image; bilinear, as Pillow does it.

    A box is at most as large as the image, so that nothing is scaled down and antialiasing has no
    part.

    Args:
        image: float `[H, W, 3]`.
        top, left, height, width: of the box, in pixels.
    """
    rows = _interpolation(image.shape[0], top, height)
    columns = _interpolation(image.shape[1], left, width)
    # Two small matrix products, at full precision: by default TPUs round their inputs to 8 bits.
    image = jnp.einsum('ih,hwc->iwc', rows, image, precision='highest')
    return jnp.clip(jnp.einsum('jw,iwc->ijc', columns, image, precision='highest'), 0, 1)


def blur(image: jax.Array, sigma: jax.typing.ArrayLike, kernel: int) -> jax.Array:
    """Convolves with a normalized Gaussian of `kernel` x `kernel` taps, reflected at the edges.

    Args:
        image: float `[H, W, 3]`.
        sigma: standard deviation of the Gaussian, in pixels.
        kernel: number of taps, odd and less than twice the side of the image.
    """
    radius = kernel // 2
    variance = jnp.maximum(jnp.square(sigma), _TINY)  # of a tiny sigma, whose square is 0
    weights = jnp.exp(-(jnp.arange(-radius, radius + 1) ** 2) / (2 * variance))
    weights = hold(weights / jnp.sum(weights))
    for axis in (0, 1):
        padding = [(radius, radius) if axis == a else (0, 0) for a in range(3)]
        padded, size = jnp.pad(image, padding, mode='reflect'), image.shape[axis]
        taps = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(kernel)]
        image = sum(weight * tap for weight, tap in zip(weights, taps, strict=True))
    return jnp.clip(image, 0, 1)


def solarize(image: jax.Array, threshold: jax.typing.ArrayLike) -> jax.Array:
    """Inverts the values that are at least `threshold`.

    For Pillow's `solarize(image, t)` with a whole level `t`, put the threshold between two levels:
    `(t - 0.5) / 255`, which is 0.5 for Pillow's 128.
    """
    return jnp.where(image >= threshold, 1 - image, image)


def posterize(image: jax.Array, bits: int) -> jax.Array:
    """Keeps the `bits` highest bits of each of the 256 levels, 1 to 8, as Pillow does it."""
    step = 2 ** (8 - bits)
    return jnp.floor(jnp.round(image * 255) / step) * (step / 255)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel to all of [0, 1]; a flat channel stays as it is."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    varied = high - low > _TINY
    low, scale = hold((low, 1 / jnp.where(varied, high - low, 1)))
    return jnp.where(varied, jnp.clip((image - low) * scale, 0, 1), image)


def equalize(image: jax.Array) -> jax.Array:
    """Evens out the histogram of each channel, of 256 levels, with Pillow's integer arithmetic.

    A channel stays as it is if fewer than 255 of its pixels are below its highest level.
    """
    levels = jnp.round(image * 255).astype(jnp.int32)
    places = levels + 256 * jnp.arange(3)[None, None]
    counts = jnp.zeros(3 * 256, jnp.int32).at[places].add(1).reshape(3, 256)
    below = jnp.cumsum(counts, axis=1) - counts
    step = jnp.sum(levels < levels.max((0, 1), keepdims=True), axis=(0, 1)) // 255
    table = jax.lax.div(step[:, None] // 2 + below, jnp.maximum(step, 1)[:, None])
    table, step = hold((jnp.minimum(table, 255).astype(jnp.float32) / 255, step))
    return jnp.where(step > 0, table.reshape(-1)[places], image)


def smooth(image: jax.Array) -> jax.Array:
    """Mixes 5/13 of a pixel with 1/13 of each neighbor (Pillow's SMOOTH); edge pixels stay."""
    rows = image[:-2] + image[1:-1] + image[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return image.at[1:-1, 1:-1].set((sums + 4 * image[1:-1, 1:-1]) / 13)


def affine(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Takes each pixel from where `matrix`, `[2, 3]`, maps the pixel; black from outside the image.

    As Pillow's `transform` with AFFINE and NEAREST: a pixel with center (x, y), the column and row
    plus 0.5, is taken from `matrix @ (x, y, 1)`.
    """
    height, width = image.shape[:2]
    x, y = jnp.arange(width)[None] + 0.5, jnp.arange(height)[:, None] + 0.5
    column = jnp.floor(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]).astype(jnp.int32)
    row = jnp.floor(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]).astype(jnp.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    places = hold(jnp.where(inside, row * width + column, 0))
    return jnp.where(inside[..., None], image.reshape(-1, image.shape[-1])[places], 0)


def rotate(image: jax.Array, degrees: jax.typing.ArrayLike) -> jax.Array:
    """Rotates an image counterclockwise about its center; see `affine`."""
    radians = jnp.deg2rad(degrees)
    matrix = rotation_matrix(jnp.cos(radians), jnp.sin(radians), image.shape)
    return affine(image, jnp.stack([jnp.stack(row) for row in matrix]))


def rotation_matrix(cos: T, sin: T, shape: tuple[int, ...]) -> list[list[T]]:
    """Makes the matrix of `affine` of a counterclockwise rotation about the center.

    Args:
        cos, sin: of the angle.
        shape: (H, W, ...) of the image.
    """
    x, y = shape[1] / 2, shape[0] / 2
    return [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]


def rotate_hue(planes: Planes, turns: jax.typing.ArrayLike) -> Planes:
    """Rotates the hue of planes by `turns`: to HSV and back in closed form.

    With hue H, value V and chroma C, the channels are V - C clip(min(k, 4 - k), 0, 1) where
    k = (n + 6 H) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1 / jnp.where(chroma > _TINY, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )

    def channel(n: int) -> jax.Array:
        k = hue + (n + 6 * turns)
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return channel(5), channel(3), channel(1)


def blend(planes: Planes, other: jax.typing.ArrayLike, factor: jax.typing.ArrayLike) -> Planes:
    """Blends `factor` of the image with `1 - factor` of `other`, a plane or a number."""
    return tuple(jnp.clip(factor * plane + (1 - factor) * other, 0, 1) for plane in planes)


def luma_of(planes: Planes) -> jax.Array:
    """Computes the luma, `[H, W]`: the brightness that an eye perceives."""
    return sum(weight * plane for weight, plane in zip(_LUMA, planes, strict=True))


def planes_of(image: jax.Array) -> Planes:
    """Splits an image `[H, W, 3]` into three planes."""
    return image[..., 0], image[..., 1], image[..., 2]


def image_of(planes: Planes) -> jax.Array:
    """Joins three planes to an image `[H, W, 3]`."""
    return jnp.stack(planes, axis=-1)


def hold(values: T) -> T:
    """Keeps XLA from computing the parameters of an image anew for each pixel."""
    return jax.lax.optimization_barrier(values)


def _interpolation(size: int, start: jax.Array, length: jax.Array) -> jax.Array:
    """Makes weights `[size, size]` that spread `length` pixels from `start` over `size` pixels."""
    centers = (jnp.arange(size) + 0.5) * (length / size) - 0.5
    centers = start + jnp.clip(centers, 0, length - 1)
    return hold(jnp.maximum(0, 1 - jnp.abs(centers[:, None] - jnp.arange(size)[None])))
