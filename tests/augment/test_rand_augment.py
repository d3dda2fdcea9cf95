"""RandAugment's operations, solarize and random_crop against Pillow and enumeration in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from ssl_extract import augment
from ssl_extract.augment import image_ops
from ssl_extract.augment.rand_augment import RANGES, operation
from ssl_extract.errors import UserError

LEVEL = 1 / 255
NAMES = list(RANGES)
SIGNED = ('Rotate', 'ShearX', 'ShearY', 'TranslateXabs', 'TranslateYabs')
# Pillow cuts to whole levels after these, and rounds what it blends with beforehand.
TOLERANCES = {'AutoContrast': 1.01, 'Color': 1.51, 'Contrast': 1.51, 'Sharpness': 1.51}
TOLERANCES['Brightness'] = 1.01
CENTERS = [(0.0, 0.0), (0.3, 0.55), (0.999, 0.7)]


def _photos():
    """Three images of bytes: dark and grainy; of few levels, one channel flat; black and white."""
    rng = np.random.default_rng(0)
    dark = 255 * rng.random((32, 28, 3)) ** 3
    few = np.stack([rng.integers(60, 180, (32, 28)), np.full((32, 28), 77)] * 2, -1)[..., :3]
    few[..., 2] = np.arange(28) // 2 * 11 + 40
    full = 255 * (rng.random((32, 28, 3)) > 0.4)
    return np.stack([dark, few, full]).astype(np.uint8)


PHOTOS = _photos()


def _uniform(name, negative=False, center=(0.5, 0.5)):
    """The four draws that select the operation `name`."""
    return [(NAMES.index(name) + 0.5) / len(NAMES), 0.75 if negative else 0.25, *center]


def _pillow(name, image, m, side, negative, center):
    """The operation of pytorch-randaugment, on bytes and with its draws given."""
    low, high = RANGES[name]
    value = m / 30 * (high - low) + low
    signed = -value if negative else value
    height, width = image.shape[:2]
    scale = (1, 1) if side is None else (width / side, height / side)
    photo = Image.fromarray(image)

    def affine(*matrix):
        return photo.transform(photo.size, Image.Transform.AFFINE, matrix)

    def cut_out():
        corner = [
            int(max(0, 1 + u * (size - 1) - value * s / 2))
            for u, size, s in zip(center, (width, height), scale, strict=True)
        ]
        opposite = [
            min(size, start + value * s)
            for start, size, s in zip(corner, (width, height), scale, strict=True)
        ]
        ImageDraw.Draw(photo).rectangle((*corner, *opposite), (125, 123, 114))
        return photo

    def solarize_add():
        levels = np.clip(image + value, 0, 255).astype(np.uint8)
        return ImageOps.solarize(Image.fromarray(levels), 128)

    return np.asarray(
        {
            'AutoContrast': lambda: ImageOps.autocontrast(photo),
            'Equalize': lambda: ImageOps.equalize(photo),
            'Invert': lambda: ImageOps.invert(photo),
            'Posterize': lambda: ImageOps.posterize(photo, max(1, int(value))),
            'Solarize': lambda: ImageOps.solarize(photo, value),
            'SolarizeAdd': solarize_add,
            'Color': lambda: ImageEnhance.Color(photo).enhance(value),
            'Contrast': lambda: ImageEnhance.Contrast(photo).enhance(value),
            'Brightness': lambda: ImageEnhance.Brightness(photo).enhance(value),
            'Sharpness': lambda: ImageEnhance.Sharpness(photo).enhance(value),
            'Rotate': lambda: photo.rotate(signed),
            'ShearX': lambda: affine(1, signed, 0, 0, 1, 0),
            'ShearY': lambda: affine(1, 0, 0, signed, 1, 0),
            'TranslateXabs': lambda: affine(1, 0, signed * scale[0], 0, 1, 0),
            'TranslateYabs': lambda: affine(1, 0, 0, 0, 1, signed * scale[1]),
            'CutoutAbs': cut_out,
        }[name]()
    )


def _on_a_border(name, shape, degrees):
    """Where rotation looks at the border of two pixels: Pillow counts in 2^-16 of a pixel there."""
    height, width = shape[:2]
    if name != 'Rotate':
        return np.zeros((height, width), bool)
    y, x = np.mgrid[:height, :width] + 0.5
    point = (x - width / 2 + 1j * (y - height / 2)) * np.exp(1j * np.deg2rad(degrees))
    found = np.stack([point.real + width / 2, point.imag + height / 2])
    return (np.abs(found - found.round()) < 5e-4).any(axis=0)


def _floats(bytes_):
    return jnp.asarray(bytes_, jnp.float32) / 255


@functools.cache
def _operations(m, side, shape):
    """`operation` for draws `[D, 4]` and images `[B, H, W, 3]`, to `[D, B, H, W, 3]`."""
    one = operation(m, side, shape)
    return jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))


@pytest.mark.parametrize(
    ('m', 'side'), [(0, None), (3, None), (9.5, 224), (14, 224), (14, None), (23, 50), (30, 224)]
)
def test_every_operation_agrees_with_pillow(m, side):
    cases = [
        (name, negative, center)
        for name in NAMES
        for negative in ([False, True] if name in SIGNED else [False])
        for center in (CENTERS if name == 'CutoutAbs' else CENTERS[:1])
    ]
    draws = np.array([_uniform(*case) for case in cases], np.float32)
    found = np.asarray(_operations(m, side, PHOTOS.shape[1:])(_floats(PHOTOS), draws))
    assert found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    for (name, negative, center), images in zip(cases, found, strict=True):
        border = _on_a_border(name, PHOTOS.shape[1:], -m if negative else m)
        assert m == 0 or border.mean() < 0.02
        for image, before in zip(images, PHOTOS, strict=True):
            expected = _pillow(name, before, m, side, negative, center) * LEVEL
            expected[border] = image[border]
            tolerance = TOLERANCES.get(name, 0.001) * LEVEL
            np.testing.assert_allclose(
                image, expected, atol=tolerance, err_msg=f'{name}({m}) {negative} {center}'
            )


@pytest.mark.parametrize('m', [0, 6, 14, 21, 30])
def test_what_pillow_rounds_in_closed_form(m):
    names = ('AutoContrast', 'Color', 'Contrast', 'Brightness', 'Sharpness')
    draws = np.array([_uniform(name) for name in names], np.float32)
    found = _operations(m, 224, PHOTOS.shape[1:])(_floats(PHOTOS), draws)
    image = PHOTOS / 255
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    gray = image @ [0.299, 0.587, 0.114]
    smooth = image.copy()
    around = sum(
        image[:, 1 + i : 31 + i, 1 + j : 27 + j] * (5 if i == j == 0 else 1)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    smooth[:, 1:-1, 1:-1] = around / 13
    factor = 0.1 + 1.8 * m / 30

    def blended(other):
        return np.clip(factor * image + (1 - factor) * other, 0, 1)

    expected = [
        np.where(high > low, (image - low) / np.where(high > low, high - low, 1), image),
        blended(gray[..., None]),
        blended(gray.mean((1, 2))[:, None, None, None]),
        blended(0),
        blended(smooth),
    ]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def test_equalize_of_few_pixels_and_of_floats():
    few = _floats(PHOTOS[:, :10, :10])  # fewer than 255: nothing to even out
    np.testing.assert_array_equal(jax.jit(jax.vmap(image_ops.equalize))(few), few)
    between = np.clip(PHOTOS + np.random.default_rng(1).uniform(-0.4, 0.4, PHOTOS.shape), 0, 255)
    found = jax.jit(jax.vmap(image_ops.equalize))(_floats(between))
    for image, before, photo in zip(found, between, PHOTOS, strict=True):
        expected = np.asarray(ImageOps.equalize(Image.fromarray(photo))) / 255
        for c in range(3):
            flat = np.ptp(photo[..., c]) == 0
            theirs = before[..., c] / 255 if flat else expected[..., c]
            np.testing.assert_allclose(image[..., c], theirs, atol=1e-6)


@pytest.mark.parametrize('bits', range(1, 9))
def test_posterize_agrees_with_pillow(bits):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    expected = np.asarray(ImageOps.posterize(Image.fromarray(levels), bits)) / 255
    np.testing.assert_allclose(image_ops.posterize(_floats(levels), bits), expected, atol=1e-6)


@pytest.mark.parametrize('threshold', [0, 1, 100, 128, 255, 256])
def test_solarize_agrees_with_pillow(threshold):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(levels), threshold)) / 255
    solarized = image_ops.solarize(_floats(levels), (threshold - 0.5) / 255)
    np.testing.assert_allclose(solarized, expected, atol=1e-6)
    if threshold == 128:  # the default
        found = jax.jit(augment.make('solarize(p=1.0)'))(jax.random.key(0), _floats(levels))
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('shape', [(1, 1, 3), (2, 5, 3)])
def test_smooth_of_an_image_that_is_all_edge(shape):
    image = _floats(PHOTOS[0, : shape[0], : shape[1]])
    np.testing.assert_array_equal(image_ops.smooth(image), image)


# The drawing of them.


def _many(spec, count, image):
    images = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (count, *image.shape))
    views = jax.jit(functools.partial(augment.views, augment.make(spec)))
    return np.asarray(views(jax.random.key(5), images))


def test_operations_and_signs_are_drawn_uniformly():
    """Each view is recognized among the images that one operation can make."""
    image, count = _floats(PHOTOS[0, 8:16, 8:16]), 4000
    views = _many('rand_augment(n=1, m=10)', count, image)
    cases = [(n, s) for n in NAMES[:-1] for s in ([False, True] if n in SIGNED else [False])]
    draws = np.array([_uniform(*case) for case in cases], np.float32)
    known = np.asarray(_operations(10, 224, image.shape)(image[None], draws))[:, 0]
    apart = np.abs(known[:, None] - known).max(axis=(2, 3, 4)) + np.eye(len(known))
    assert apart.min() > 0.01
    same = np.abs(views[:, None] - known).max(axis=(2, 3, 4)) < 1e-4
    assert same.sum(axis=1).max() == 1
    counts = dict(zip(cases, same.sum(axis=0), strict=True))
    counts['CutoutAbs', False] = (~same.any(axis=1)).sum()
    gray = (np.abs(views - np.array([125, 123, 114]) / 255).max(axis=-1) < 1e-6).any(axis=(1, 2))
    assert gray.sum() == counts['CutoutAbs', False]
    by_name = [counts[name, False] + counts.get((name, True), 0) for name in NAMES]
    assert scipy.stats.chisquare(by_name).pvalue > 1e-4
    for name in SIGNED:
        both = counts[name, False], counts[name, True]
        assert scipy.stats.chisquare(both).pvalue > 1e-4


def test_n_operations_follow_one_another():
    """The draws are replayed from the keys; pairs of operations are uniform too."""
    keys = jax.random.split(jax.random.key(2), 6000)
    draws = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (8,)))(keys)).reshape(-1, 2, 4)
    pairs = (draws[..., 0] * 16).astype(int) @ [16, 1]
    assert scipy.stats.chisquare(np.bincount(pairs, minlength=256)).pvalue > 1e-4
    image = _floats(PHOTOS[0])
    views = jax.jit(jax.vmap(augment.make('rand_augment'), (0, None)))(keys[:64], image)
    one = jax.jit(jax.vmap(operation(14, 224, image.shape)))
    expected = one(one(jnp.broadcast_to(image, views.shape), draws[:64, 0]), draws[:64, 1])
    np.testing.assert_allclose(views, expected, atol=1e-6)


@pytest.mark.wide
def test_jit_and_vmap_change_nothing():
    images, key = _floats(np.tile(PHOTOS, (4, 1, 1, 1))), jax.random.key(9)
    for spec in ('rand_augment(n=3, m=21)', 'random_crop(2)', 'solarize(p=0.5)'):
        op = augment.make(spec)
        views = jax.jit(functools.partial(augment.views, op))(key, images)
        again = jax.jit(functools.partial(augment.views, op))(key, images)
        np.testing.assert_array_equal(views, again)
        with jax.disable_jit():
            for i, one in enumerate(jax.random.split(key, len(images))[:4]):
                np.testing.assert_allclose(op(one, images[i]), views[i], atol=1e-6)


def test_no_operation_at_all():
    image = _floats(PHOTOS[0])
    np.testing.assert_array_equal(_many('rand_augment(n=0)', 2, image), [image, image])


def test_cut_out_squares_are_where_the_code_puts_them():
    """The side shrinks with the image; a square's corner is spread as NumPy's draws are."""
    uniform = np.random.default_rng(0).random((500, 2))
    draws = np.array([_uniform('CutoutAbs', center=u) for u in uniform], np.float32)
    black = jnp.zeros((1, 24, 40, 3))
    for side, width, height in ((None, 56 / 3, 56 / 3), (224, 10 / 3, 2)):
        cut = np.asarray(_operations(14, side, black.shape[1:])(black, draws))[:, 0, ..., 0] > 0
        columns, rows = cut.any(axis=1), cut.any(axis=2)
        assert columns.sum(axis=1).max() == math.floor(width) + 1
        assert rows.sum(axis=1).max() == math.floor(height) + 1
        left = np.floor(np.maximum(0, 1 + uniform[:, 0] * 39 - width / 2))
        assert (columns.argmax(axis=1) == left).mean() > 0.99
        np.testing.assert_array_equal(cut, columns[:, None] & rows[..., None])


@pytest.mark.parametrize('padding', [0, 1, 4])
def test_random_crops_are_all_windows_equally_often(padding):
    image, places = PHOTOS[0, :7, :5] / 255 + 0.001, 2 * padding + 1
    padded = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)))
    windows = np.array(
        [padded[i : i + 7, j : j + 5] for i in range(places) for j in range(places)], np.float32
    )
    views = _many(f'random_crop(padding={padding})', 4000, image)
    same = (views[:, None] == windows).all(axis=(2, 3, 4))
    np.testing.assert_array_equal(same.sum(axis=1), 1)
    if padding:
        assert scipy.stats.chisquare(same.sum(axis=0)).pvalue > 1e-4


@pytest.mark.parametrize(
    ('spec', 'mentioned'),
    [
        ('solarize(threshold=2)', 'threshold must be a finite number from 0 to 1, got 2'),
        ('solarize(p=-1)', 'p must be a finite number from 0 to 1, got -1'),
        ('random_crop(padding=-1)', 'padding must be a whole number from 0 to 4096, got -1'),
        ('random_crop(padding=1.5)', 'whole number'),
        ('rand_augment(n=1.0)', 'n must be a whole number from 0 to 100, got 1.0'),
        ('rand_augment(n=-1)', 'n must be a whole number from 0 to 100, got -1'),
        ('rand_augment(m=31)', 'm must be a finite number from 0 to 30, got 31'),
        ('rand_augment(m="high")', 'm must be'),
        ('rand_augment(side=0)', 'side must be a whole number from 1 to 65536 or None, got 0'),
        ('rand_augment(n=101)', 'n must be a whole number from 0 to 100, got 101'),
    ],
)
def test_wrong_specs(spec, mentioned):
    with pytest.raises(UserError) as error:
        augment.make(spec)
    assert mentioned in str(error.value)
