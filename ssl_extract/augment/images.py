"""Image augmentations: one image and one key at a time.

An operation (`Op`) maps a key and a float32 image `[H, W, 3]` in [0, 1] to an image of the same
shape and range. A spec names an operation: `'simclr'`, `'random_resized_crop(scale=(0.5, 1.0)) |
flip'`, or `''`, which leaves images alone. Operations draw parameters and leave the arithmetic to
`ssl_extract.augment.image_ops`. The distributions are torchvision's, as in the SimCLR code for
PyTorch.

A new operation is a factory that returns an `Op`, under `@augment.register('its_name')`.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.augment import image_ops
from ssl_extract.augment.base import Op, chain, draw, register
from ssl_extract.augment.checks import check_image, check_order, require
from ssl_extract.augment.rand_augment import operation
from ssl_extract.ranges import PositiveShare, Range, Share, Width

_Size = Annotated[float, Range(above=0, most=1000)]
_Degrees = Annotated[float, Range(-360, 360)]
_Strength = Annotated[float, Range(0, 100)]

_ORDERS = tuple(itertools.permutations(range(4)))  # of brightness, contrast, saturation and hue
_ATTEMPTS = 10  # crop shapes drawn before the largest central crop is taken, as torchvision


@register('none', takes='')
def none() -> Op:
    """Leaves images alone.

    >>> none()(jax.random.key(0), jnp.ones((2, 2, 3))).shape
    (2, 2, 3)
    """
    return chain([])


@register('simclr')
def simclr(
    strength: Annotated[float, Range(0, 2.5)] = 1.0,
    flip: Share = 0.5,
    min_scale: PositiveShare = 0.08,
) -> Op:
    """Crops, flips, jitters, grays and blurs as SimCLR does (Chen et al. 2020, appendix A).

    The constants are those of the extraction paper's code (Dziedzic et al. 2022).

    >>> op = simclr(strength=0.5, flip=0.0)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)

    Args:
        strength: `s` of Chen et al. 2020: a color jitter of (0.8s, 0.8s, 0.8s, 0.2s).
        flip: probability of a horizontal flip; 0 for digits, whose mirror image is another sign.
        min_scale: smallest share of the image's area that a crop keeps.
    """
    jitter = 0.8 * strength
    return chain(
        [
            random_resized_crop(scale=(min_scale, 1.0)),
            horizontal_flip(p=flip),
            color_jitter(jitter, jitter, jitter, 0.2 * strength, p=0.8),
            random_grayscale(p=0.2),
            gaussian_blur(sigma=(0.1, 2.0)),
        ]
    )


@register('random_resized_crop')
def random_resized_crop(
    scale: tuple[PositiveShare, PositiveShare] = (0.08, 1.0),
    ratio: tuple[_Size, _Size] = (3 / 4, 4 / 3),
) -> Op:
    """Resizes a random box to the whole image.

    >>> op = random_resized_crop(scale=(0.25, 0.25), ratio=(1.0, 1.0))
    >>> jax.eval_shape(op, jax.random.key(0), jnp.ones((4, 4, 3))).shape
    (4, 4, 3)

    Args:
        scale: bounds of the box's share of the area, drawn uniformly.
        ratio: bounds of the box's width over height, drawn log-uniformly.
    """
    check_order('scale', scale)
    check_order('ratio', ratio)

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'random_resized_crop')
        least = 1 / (4 * image.shape[0] * image.shape[1])  # of which half a pixel is the side
        require(scale[1] > least, 'random_resized_crop: scale', scale, f'a bound above {least:.2g}')
        return image_ops.crop_and_resize(image, *_random_box(key, image.shape, scale, ratio))

    return op


@register('random_crop')
def random_crop(padding: Annotated[int, Range(0, 2**12)] = 4) -> Op:
    """Shifts the image: takes a random window of the image within a black frame.

    >>> op = random_crop(padding=1)
    >>> op(jax.random.key(0), jnp.ones((2, 2, 3))).shape
    (2, 2, 3)

    Args:
        padding: width of the frame, in pixels, as in torchvision's `RandomCrop(size, padding)`.
    """

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'random_crop')
        side = min(image.shape[:2])
        require(padding < side, 'random_crop: padding', padding, f'less than the side, {side}')
        corner = jnp.minimum(jnp.floor(draw(key, 2) * (2 * padding + 1)), 2 * padding).astype(int)
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)

    return op


@register('flip')
def horizontal_flip(p: Share = 0.5) -> Op:
    """Mirrors left and right with probability `p`.

    >>> op = horizontal_flip(p=1.0)
    >>> op(jax.random.key(0), jnp.array([[[0.0] * 3, [1.0] * 3]]))[0, :, 0].tolist()
    [1.0, 0.0]
    """

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'flip')
        return jnp.where(draw(key, 1)[0] < p, image[:, ::-1], image)

    return op


@register('rotation')
def rotation(degrees: tuple[_Degrees, _Degrees] = (0.0, 360.0)) -> Op:
    """Rotates about the center, counterclockwise; takes the nearest pixel, black from outside.

    >>> op = rotation(degrees=(90.0, 90.0))
    >>> op(jax.random.key(0), jnp.array([[[0.0] * 3, [1.0] * 3]] * 2))[:, :, 0].tolist()
    [[1.0, 1.0], [0.0, 0.0]]

    Args:
        degrees: bounds of the angle, drawn uniformly from the first up to the second.
    """
    check_order('degrees', degrees)

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'rotation')
        angle = degrees[0] + draw(key, 1)[0] * (degrees[1] - degrees[0])
        return image_ops.rotate(image, angle)

    return op


@register('color_jitter')
def color_jitter(
    brightness: _Strength = 0.8,
    contrast: _Strength = 0.8,
    saturation: _Strength = 0.8,
    hue: Annotated[float, Range(0, 0.5)] = 0.2,
    p: Share = 0.8,
) -> Op:
    """Adjusts brightness, contrast, saturation and hue in a random order, with probability `p`.

    Order and amounts are drawn anew for each image.

    >>> op = color_jitter(brightness=0.4, p=0.5)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.ones((4, 4, 3))).shape
    (4, 4, 3)

    Args:
        brightness: the factor is uniform in [max(0, 1 - brightness), 1 + brightness]; at most 100.
        contrast: as `brightness`.
        saturation: as `brightness`.
        hue: the rotation is uniform in [-hue, hue], in turns; at most 0.5.
        p: probability that the image is changed.
    """
    factors = {'brightness': brightness, 'contrast': contrast, 'saturation': saturation}
    low = np.array([*(max(0, 1 - x) for x in factors.values()), -hue], np.float32)
    high = np.array([*(1 + x for x in factors.values()), hue], np.float32)

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'color_jitter', channels=3)
        uniform = draw(key, 6)
        amounts = low + uniform[:4] * (high - low)
        order = jnp.array(_ORDERS)[jnp.floor(uniform[4] * 24).astype(int)]
        order, amounts = image_ops.hold((order, amounts[order]))

        def adjust(step: int, planes: image_ops.Planes) -> image_ops.Planes:
            which, amount = order[step], amounts[step]
            luma = image_ops.luma_of(planes)
            other = jnp.where(which == 1, jnp.mean(luma), jnp.where(which == 2, luma, 0.0))
            blended = image_ops.blend(planes, other, amount)
            rotated = image_ops.rotate_hue(planes, amount)
            return tuple(jnp.where(which == 3, a, b) for a, b in zip(rotated, blended, strict=True))

        # A loop, because XLA:CPU fuses unrolled steps and then computes each of them twice.
        jittered = image_ops.image_of(jax.lax.fori_loop(0, 4, adjust, image_ops.planes_of(image)))
        return jnp.where(uniform[5] < p, jittered, image)

    return op


@register('grayscale')
def random_grayscale(p: Share = 0.2) -> Op:
    """Turns the image gray with probability `p`.

    >>> op = random_grayscale(p=1.0)
    >>> op(jax.random.key(0), jnp.zeros((1, 1, 3))).tolist()
    [[[0.0, 0.0, 0.0]]]
    """

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'grayscale', channels=3)
        return jnp.where(draw(key, 1)[0] < p, image_ops.grayscale(image), image)

    return op


@register('gaussian_blur')
def gaussian_blur(
    sigma: tuple[_Size, _Size] = (0.1, 2.0),
    kernel: Annotated[int, Range(1, 2**12)] | None = None,
    p: Share = 1.0,
) -> Op:
    """Blurs with probability `p` and a sigma drawn uniformly, in pixels.

    >>> op = gaussian_blur(sigma=(0.1, 0.5), kernel=3)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.ones((4, 4, 3))).shape
    (4, 4, 3)

    Args:
        sigma: bounds of sigma, at most 1000.
        kernel: odd number of taps; None is a tenth of the image's side, made odd, at least 3.
        p: probability that the image is blurred.
    """
    check_order('sigma', sigma)
    require(kernel is None or kernel % 2 == 1, 'kernel', kernel, 'an odd number or None')

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'gaussian_blur')
        side = min(image.shape[:2])
        taps = kernel or max(3, 2 * (int(0.1 * side) // 2) + 1)
        require(taps < 2 * side, 'gaussian_blur: kernel', taps, f'less than {2 * side}')
        uniform = draw(key, 2)
        blurred = image_ops.blur(image, sigma[0] + uniform[0] * (sigma[1] - sigma[0]), taps)
        return jnp.where(uniform[1] < p, blurred, image)

    return op


@register('solarize')
def random_solarize(threshold: Share = 0.5, p: Share = 0.1) -> Op:
    """Inverts the values that are at least `threshold`, with probability `p`.

    >>> op = random_solarize(threshold=0.5, p=1.0)
    >>> op(jax.random.key(0), jnp.array([[[0.0, 0.25, 1.0]]]))[0, 0].tolist()
    [0.0, 0.25, 0.0]

    Args:
        threshold: in [0, 1]; 0.5 lies between levels 127 and 128 of 255, and so does to a byte what
            Pillow and torchvision do with a threshold of 128.
        p: probability that the image is changed.
    """

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'solarize')
        return jnp.where(draw(key, 1)[0] < p, image_ops.solarize(image, threshold), image)

    return op


@register('rand_augment')
def rand_augment(
    n: Annotated[int, Range(0, 100)] = 2,
    m: Annotated[float, Range(0, 30)] = 14,
    side: Width | None = 224,
) -> Op:
    """Applies `n` of the sixteen operations of RandAugment in turn (Cubuk et al. 2020).

    Each operation is drawn uniformly, with replacement, anew for each image. The operations and
    their ranges are in `ssl_extract.augment.rand_augment`. Cont-Steal's queries are
    `'rand_augment(n=2, m=14) | random_crop(padding=4) | flip'`, on images of 224 x 224.

    >>> op = rand_augment(n=1, m=10)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)

    Args:
        n: number of operations, at most 100.
        m: magnitude of the operations, in [0, 30].
        side: the side of an image, in pixels, for which the pixels of CutoutAbs and TranslateX/Yabs
            are counted; the pixels shrink with the image. None keeps the pixels: at 32 x 32 and
            m = 14, a translation of 47 pixels leaves nothing of an image.
    """

    def op(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image, 'rand_augment', channels=3)
        step, draws = operation(m, side, image.shape), draw(key, 4 * n).reshape(n, 4)
        # A loop, so that the sixteen operations are compiled once.
        return jax.lax.scan(lambda image, draw: (step(image, draw), None), image, draws)[0]

    return op


def _random_box(
    key: jax.Array, shape: tuple[int, ...], scale: Sequence[float], ratio: Sequence[float]
) -> tuple[jax.Array, ...]:
    """Draws top, left, height and width in whole pixels: the first of ten boxes that fits."""
    size = np.array(shape[:2], np.float32)
    uniform = draw(key, 2 * _ATTEMPTS + 2)
    share, log_ratio = uniform[:_ATTEMPTS], uniform[_ATTEMPTS:-2]
    area = (scale[0] + share * (scale[1] - scale[0])) * shape[0] * shape[1]
    low, high = np.log(ratio)
    aspect = jnp.exp(low + log_ratio * (high - low))
    boxes = jnp.round(jnp.sqrt(jnp.stack([area / aspect, area * aspect], axis=1)))
    fits = jnp.all((boxes > 0) & (boxes <= size[None]), axis=1)
    # If none fits: the largest central box whose ratio is allowed.
    whole = min(max(shape[1] / shape[0], ratio[0]), ratio[1])
    largest = [min(shape[0], shape[1] / whole), min(shape[1], shape[0] * whole)]
    any_fits = jnp.any(fits)
    box = jnp.where(any_fits, boxes[jnp.argmax(fits)], np.maximum(np.round(largest), 1.0))
    free = size - box
    corner = jnp.minimum(jnp.floor(uniform[-2:] * (free + 1)), free)
    corner = jnp.where(any_fits, corner, jnp.floor(free / 2))
    return image_ops.hold((corner[0], corner[1], box[0], box[1]))
