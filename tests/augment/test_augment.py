"""Each operation against another one: Pillow's, SciPy's, colorsys', torchvision's in NumPy."""

import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image, ImageEnhance

from ssl_extract import augment
from ssl_extract.augment import image_ops
from ssl_extract.errors import UserError

LEVEL = 1 / 255
BYTES = np.random.default_rng(0).integers(0, 256, (3, 16, 12, 3), dtype=np.uint8)
IMAGES = BYTES.astype(np.float32) / 255
IMAGE = IMAGES[0]
HARD = jnp.asarray(  # black, white, noise and full colors, 64 images in all
    np.tile([0 * IMAGE, 0 * IMAGE + 1, IMAGE, IMAGE > 0.5], (16, 1, 1, 1)), jnp.float32
)
SPECS = [
    '',
    'simclr',
    'random_resized_crop',
    'flip',
    'color_jitter',
    'grayscale',
    'gaussian_blur',
    'solarize',
    'random_crop',
    'rotation',
    'rand_augment',
    'grayscale | flip(p=1.0)',
]


@functools.cache
def _views(spec):
    return jax.jit(functools.partial(augment.views, augment.make(spec)))


def _many(spec, count, image):
    """`count` views of one image."""
    images = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (count, *image.shape))
    return np.asarray(_views(spec)(jax.random.key(7), images))


# The deterministic functions.


@pytest.mark.parametrize('factor', [0.0, 0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize(
    ('adjust', 'reference', 'tolerance'),
    [  # Pillow truncates, and rounds the grays and their mean to whole levels beforehand
        (image_ops.adjust_brightness, ImageEnhance.Brightness, 1.01),
        (image_ops.adjust_contrast, ImageEnhance.Contrast, 1.51),
        (image_ops.adjust_saturation, ImageEnhance.Color, 1.51),
    ],
)
def test_enhancers_agree_with_pillow(adjust, reference, tolerance, factor):
    for bytes_, image in zip(BYTES, IMAGES, strict=True):
        expected = np.asarray(reference(Image.fromarray(bytes_)).enhance(factor)) * LEVEL
        np.testing.assert_allclose(adjust(image, factor), expected, atol=tolerance * LEVEL)


def test_enhancers_in_closed_form():
    weights = np.array([0.299, 0.587, 0.114])
    gray = IMAGE.astype(float) @ weights
    for factor in (0.3, 1.7):
        for adjust, other in (
            (image_ops.adjust_brightness, 0.0),
            (image_ops.adjust_contrast, gray.mean()),
            (image_ops.adjust_saturation, gray[..., None]),
        ):
            expected = np.clip(factor * IMAGE + (1 - factor) * other, 0, 1)
            np.testing.assert_allclose(adjust(IMAGE, factor), expected, atol=1e-6)


def test_grayscale_agrees_with_pillow():
    expected = np.asarray(Image.fromarray(BYTES[0]).convert('L'))[..., None] * LEVEL
    gray = image_ops.grayscale(IMAGE)
    assert gray.shape == IMAGE.shape
    np.testing.assert_allclose(gray, np.repeat(expected, 3, -1), atol=0.51 * LEVEL)


def _colorsys_hue(image, turns):
    def rotate(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)

    return np.array([[rotate(pixel) for pixel in row] for row in image.astype(float)])


@pytest.mark.parametrize('turns', [-0.5, -0.2, -0.01, 0.0, 0.13, 0.2, 0.5])
def test_hue_agrees_with_colorsys(turns):
    corners = np.array(list(itertools.product([0, 0.5, 1], repeat=3)), np.float32)
    for image in (IMAGE, corners[None]):  # the corners: gray, black, white and ties of two channels
        rotated = jax.jit(image_ops.adjust_hue)(image, turns)
        np.testing.assert_allclose(rotated, _colorsys_hue(image, turns), atol=2e-6)


def test_hue_turns_red_to_green_to_blue():
    adjust_hue = jax.jit(image_ops.adjust_hue)
    red = jnp.array([[[1.0, 0.0, 0.0]]])
    np.testing.assert_allclose(adjust_hue(red, 1 / 3)[0, 0], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(adjust_hue(red, -1 / 3)[0, 0], [0, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    'box', [(0, 0, 16, 12), (3, 2, 7, 9), (15, 11, 1, 1), (0, 5, 16, 3), (4, 0, 12, 12)]
)
def test_crop_agrees_with_pillow(box):
    top, left, height, width = box
    expected = [
        np.asarray(
            Image.fromarray(IMAGE[top : top + height, left : left + width, channel]).resize(
                (12, 16), Image.Resampling.BILINEAR
            )
        )
        for channel in range(3)
    ]
    cropped = jax.jit(image_ops.crop_and_resize)(IMAGE, *box)
    np.testing.assert_allclose(cropped, np.stack(expected, -1), atol=1e-6)


def test_crop_of_everything_changes_nothing():
    np.testing.assert_allclose(image_ops.crop_and_resize(IMAGE, 0, 0, 16, 12), IMAGE, atol=1e-7)


@pytest.mark.parametrize('kernel', [1, 3, 11])
@pytest.mark.parametrize('sigma', [0.1, 0.8, 2.0])
def test_blur_agrees_with_scipy(sigma, kernel):
    taps = np.exp(-((np.arange(kernel) - kernel // 2) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    expected = scipy.ndimage.convolve(
        IMAGE.astype(float), np.multiply.outer(taps, taps)[..., None], mode='mirror'
    )
    blurred = jax.jit(image_ops.blur, static_argnums=2)(IMAGE, sigma, kernel)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize('angle', [30.0, 90.0, 200.0, 359.0])
def test_rotation_agrees_with_pillow(angle):
    expected = np.asarray(Image.fromarray(BYTES[0]).rotate(angle)) * LEVEL
    rotated = augment.make(f'rotation(degrees=({angle}, {angle}))')(jax.random.key(0), IMAGES[0])
    np.testing.assert_allclose(rotated, expected, atol=1e-6)


def test_rotations_are_drawn_from_all_angles_of_the_bounds():
    gradient = np.zeros((64, 64, 1), np.float32) + np.linspace(0, 1, 64)[None, :, None]
    views = np.asarray(_many('rotation(degrees=(180.0, 360.0))', 200, gradient))[..., 0]
    center = views[:, 16:48, 16:48]  # without black corners
    right, up = (center[:, :, 16:] - center[:, :, :16], center[:, :16] - center[:, 16:])
    angles = np.degrees(np.arctan2(up.mean((1, 2)), right.mean((1, 2)))) % 360
    assert scipy.stats.kstest(angles, scipy.stats.uniform(180, 180).cdf).pvalue > 0.01


def test_to_float():
    images = augment.to_float(BYTES)
    assert images.dtype == jnp.float32
    np.testing.assert_allclose(images, BYTES / 255.0, atol=1e-7)


# What all operations share.


@pytest.mark.parametrize('spec', SPECS)
def test_contract(spec):
    images = HARD
    key = jax.random.key(0)
    views = _views(spec)(key, images)
    assert (views.shape, views.dtype) == (images.shape, jnp.float32)
    assert 0 <= views.min() <= views.max() <= 1
    np.testing.assert_array_equal(views, _views(spec)(key, images))
    if spec != 'simclr':  # whose parts are here; without jit, without vmap
        op, keys = augment.make(spec), jax.random.split(key, 64)
        np.testing.assert_allclose(op(keys[62], images[62]), views[62], atol=1e-6)
    if spec:
        other = _views(spec)(jax.random.key(1), images)
        assert not np.array_equal(views, other) or spec == 'grayscale | flip(p=1.0)'
    else:
        np.testing.assert_array_equal(views, images)


@pytest.mark.devices
def test_four_devices_give_what_one_gives():
    alone = _views('simclr')(jax.random.key(3), HARD)
    mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    sharded = _views('simclr')(jax.random.key(3), jax.device_put(HARD, sharding))
    assert sharded.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(sharded, alone, atol=1e-6)


def test_each_image_and_each_view_draws_its_own():
    same = jnp.broadcast_to(IMAGE, (16, *IMAGE.shape))
    op = augment.make('gaussian_blur(sigma=(1.0, 2.0))')
    first, second = jax.jit(functools.partial(augment.two_views, op))(jax.random.key(0), same)
    views = np.concatenate([first, second]).reshape(32, -1)
    assert len(np.unique(views, axis=0)) == 32


def test_chain_applies_in_the_written_order():
    key = jax.random.key(4)
    first, second = jax.random.split(key)
    crop, blur = augment.make('random_resized_crop'), augment.make('gaussian_blur')
    expected = blur(second, crop(first, IMAGE))
    chained = augment.make('random_resized_crop | gaussian_blur')(key, IMAGE)
    np.testing.assert_allclose(chained, expected, atol=1e-6)
    assert not np.allclose(augment.make('gaussian_blur | random_resized_crop')(key, IMAGE), chained)


# Distributions.


def _assert_rate(changed, expected):
    low, high = scipy.stats.binom.interval(1 - 1e-6, len(changed), expected)
    assert low <= changed.sum() <= high


@pytest.mark.parametrize('p', [0.0, 0.25])
@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('flip(p={})', lambda image: image[:, ::-1]),
        ('grayscale(p={})', image_ops.grayscale),
        ('solarize(p={})', lambda image: np.where(image >= 128 / 255, 1 - image, image)),
    ],
)
def test_rates(name, change, p):
    views = _many(name.format(p), 2000, IMAGE[:4, :4])
    touched = np.asarray(change(IMAGE[:4, :4]))
    is_touched = np.isclose(views, touched, atol=1e-6).all(axis=(1, 2, 3))
    assert (is_touched ^ (views == IMAGE[:4, :4]).all(axis=(1, 2, 3))).all()
    _assert_rate(is_touched, p)


def test_rate_of_blur():
    views = _many('gaussian_blur(sigma=(1.0, 2.0), p=0.5)', 2000, IMAGE[:4, :4])
    _assert_rate((views != IMAGE[:4, :4]).any(axis=(1, 2, 3)), 0.5)


def _position_image(side):
    """An image whose channels hold the row and the column, from 0 to 1."""
    rows, columns = np.mgrid[:side, :side] / (side - 1)
    return np.stack([rows, columns, rows], axis=-1)


def _boxes(views, side):
    """Top, left, height and width [N] of the boxes that views of a position image show.

    Away from its edges, scaling by h / side leaves a linear ramp linear, with steps of h / side.
    """
    middle = side // 2
    found = []
    for channel, axis in ((0, 1), (1, 2)):
        line = np.take(views[..., channel], middle, axis=3 - axis) * (side - 1)
        length = (line[:, middle] - line[:, middle - 1]) * side
        start = line[:, middle] - (middle + 0.5) * length / side + 0.5
        found.append((start, length))
    return found[0][0], found[1][0], found[0][1], found[1][1]


def _torchvision_boxes(count, side, scale, ratio):
    """RandomResizedCrop.get_params of torchvision, in NumPy."""
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(count):
        for _ in range(10):
            area = side * side * rng.uniform(*scale)
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            width, height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < width <= side and 0 < height <= side:
                top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
                break
        else:
            top, left, height, width = 0, 0, side, side
        boxes.append((top, left, height, width))
    return np.array(boxes).T


def test_crop_boxes_are_distributed_as_torchvision_draws_them():
    side, count = 32, 4000
    views = _many('random_resized_crop', count, _position_image(side))
    boxes = np.array(_boxes(views, side))
    np.testing.assert_allclose(boxes, boxes.round(), atol=0.02)  # whole pixels
    top, left, height, width = boxes = boxes.round()
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= side).all() and (left + width <= side).all()
    expected = _torchvision_boxes(count, side, (0.08, 1.0), (3 / 4, 4 / 3))
    for mine, theirs in zip(boxes, expected, strict=True):
        assert scipy.stats.ks_2samp(mine, theirs).statistic < 1.95 * np.sqrt(2 / count)  # 0.1 %
    area, expected_area = height * width, expected[2] * expected[3]
    assert scipy.stats.ks_2samp(area, expected_area).statistic < 1.95 * np.sqrt(2 / count)
    aspect, expected_aspect = width / height, expected[3] / expected[2]
    assert scipy.stats.ks_2samp(aspect, expected_aspect).statistic < 1.95 * np.sqrt(2 / count)


def test_crop_scale_and_ratio_are_kept():
    views = _many(
        'random_resized_crop(scale=(0.2, 0.3), ratio=(1.0, 2.0))', 500, _position_image(32)
    )
    _, _, height, width = np.round(_boxes(views, 32))
    area = height * width / 32**2
    assert (np.abs(area - 0.25) < 0.05 + 0.5 * (height + width) / 32**2).all()
    assert (width >= height).all()
    assert (width + 0.5 >= 2 * (height - 0.5)).sum() > 0
    assert ((width - 0.5) / (height + 0.5) <= 2).all()


def test_a_crop_that_never_fits_is_the_largest_central_one():
    view = _many('random_resized_crop(scale=(1.0, 1.0), ratio=(2.0, 2.0))', 1, IMAGE[:12, :12])[0]
    expected = image_ops.crop_and_resize(IMAGE[:12, :12], 3, 0, 6, 12)
    np.testing.assert_allclose(view, expected, atol=1e-6)


def test_jitter_applies_all_four_in_every_order():
    """The draws are replayed from the keys, and the four are applied one after the other."""
    keys = jax.random.split(jax.random.key(11), 1000)
    draws = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (6,)))(keys))
    image = jnp.asarray(IMAGE[:4, :4])
    views = jax.jit(jax.vmap(augment.make('color_jitter'), (0, None)))(keys, image)
    touched = (np.asarray(views) != np.asarray(image)).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(touched, draws[:, 5] < 0.8)
    _assert_rate(touched, 0.8)
    found = (draws[:, 4] * 24).astype(int)
    assert scipy.stats.chisquare(np.bincount(found, minlength=24)).pvalue > 1e-4
    low, high = np.array([0.2, 0.2, 0.2, -0.2]), np.array([1.8, 1.8, 1.8, 0.2])
    names = ('brightness', 'contrast', 'saturation', 'hue')
    adjust = [jax.jit(getattr(image_ops, f'adjust_{name}')) for name in names]
    orders = list(itertools.permutations(range(4)))
    for i in np.concatenate([np.flatnonzero(touched & (found == k))[:2] for k in range(24)]):
        expected = image
        for which in orders[found[i]]:
            amount = low[which] + draws[i, which] * (high - low)[which]
            expected = adjust[which](expected, np.float32(amount))
        np.testing.assert_allclose(views[i], expected, atol=1e-5)


def test_jitter_draws_no_negative_factor():
    """Saturation alone, by up to 1.5: its factors are read off by comparing with a fine grid."""
    image = np.array([[[0.3, 0.35, 0.4], [0.35, 0.3, 0.38]]], np.float32)
    views = _many('color_jitter(0, 0, 1.5, 0, p=1.0)', 1000, image)
    factors = np.linspace(0, 2.5, 1001)
    adjust = jax.vmap(functools.partial(image_ops.adjust_saturation, image))
    distance = np.abs(views[:, None] - adjust(factors.astype(np.float32))[None]).max(axis=(2, 3, 4))
    assert distance.min(axis=1).max() < 1e-3
    found = factors[distance.argmin(axis=1)]
    uniform = scipy.stats.uniform(0, 2.5)
    assert scipy.stats.kstest(found, uniform.cdf).statistic < 1.95 / np.sqrt(1000)  # 0.1 %


@pytest.mark.parametrize(('side', 'kernel'), [(8, 3), (32, 3), (50, 5), (110, 11)])
def test_blur_kernel_is_a_tenth_of_the_image(side, kernel):
    """A single bright column spreads over exactly `kernel` columns."""
    image = np.zeros((side, side, 3), np.float32)
    image[:, side // 2] = 1
    blurred = jax.jit(augment.make('gaussian_blur(sigma=(2.0, 2.0))'))(jax.random.key(0), image)
    assert (np.asarray(blurred)[0, :, 0] > 0).sum() == kernel


def test_blur_draws_sigma_uniformly():
    image = np.zeros((7, 7, 3), np.float32)
    image[:, 3] = 1
    views = _many('gaussian_blur(kernel=3)', 1000, image)
    ratio = views[:, 0, 2, 0] / views[:, 0, 3, 0]  # exp(-1 / (2 sigma^2))
    found = np.sqrt(-0.5 / np.log(np.maximum(ratio, 1e-30)))
    found = np.where(ratio < 1e-4, np.nan, found)  # below sigma 0.23 the neighbor is dark
    uniform = scipy.stats.uniform(0.1, 1.9)
    bright = found[~np.isnan(found)]
    low = np.sqrt(-0.5 / np.log(1e-4))
    cdf = lambda x: (uniform.cdf(x) - uniform.cdf(low)) / (1 - uniform.cdf(low))  # noqa: E731
    assert scipy.stats.kstest(bright, cdf).statistic < 1.95 / np.sqrt(len(bright))
    _assert_rate(np.isnan(found), uniform.cdf(low))


@pytest.mark.parametrize(
    ('spec', 'chain'),
    [
        (  # the paper's constants
            'simclr',
            'random_resized_crop(scale=(0.08, 1.0)) | flip(p=0.5) | '
            'color_jitter(0.8, 0.8, 0.8, 0.2, p=0.8) | grayscale(p=0.2) | '
            'gaussian_blur(sigma=(0.1, 2.0), p=1.0)',
        ),
        (
            'simclr(strength=0.5, flip=0.0, min_scale=0.3)',
            'random_resized_crop(scale=(0.3, 1.0)) | flip(p=0.0) | '
            'color_jitter(0.4, 0.4, 0.4, 0.1) | grayscale | gaussian_blur',
        ),
    ],
)
def test_simclr_is_this_program(spec, chain):
    programs = [jax.make_jaxpr(augment.make(s))(jax.random.key(0), IMAGE) for s in (spec, chain)]
    assert str(programs[0]) == str(programs[1])
    constants = [program.consts for program in programs]
    jax.tree.map(np.testing.assert_array_equal, *constants)


@pytest.mark.parametrize(
    ('spec', 'mentioned'),
    [
        ('simclrr', "did you mean 'simclr'"),
        ('flip(q=1)', 'it takes (p'),
        ('flip(p=1.5)', 'p must be a finite number from 0 to 1, got 1.5'),
        ('flip(p="often")', 'flip'),
        ('grayscale(p=-0.1)', 'p must be a finite number'),
        ('random_resized_crop(scale=(0, 1))', 'scale must be a list of 2'),
        ('random_resized_crop(scale=(0.5, 1.1))', 'got (0.5, 1.1)'),
        ('random_resized_crop(scale=0.5)', 'random_resized_crop'),
        ('random_resized_crop(ratio=(2, 1))', 'ratio is (2, 1)'),
        ('color_jitter(hue=0.6)', 'hue must be a finite number from 0 to 0.5'),
        ('color_jitter(contrast=-1)', 'contrast must be a finite number from 0 to 100'),
        ('color_jitter(brightness=101)', 'from 0 to 100, got 101'),
        ('color_jitter(saturation=1e39)', 'from 0 to 100'),
        ('random_resized_crop(ratio=(1, 1e400))', 'at most 1000'),
        ('gaussian_blur(sigma=1e-20)', 'sigma must be a list of 2'),
        ('gaussian_blur(sigma=(1, 1e39))', 'at most 1000'),
        ('gaussian_blur(kernel=4)', 'odd'),
        ('rotation(degrees=(180, 90))', 'degrees is (180, 90): write the smaller number first'),
        ('gaussian_blur(sigma=(0, 1))', 'sigma'),
        ('simclr(strength=9)', 'strength must be a finite number from 0 to 2.5'),
        ('simclr(min_scale=0)', 'scale'),
        ('flip | | grayscale', 'cannot read'),
    ],
)
def test_wrong_specs(spec, mentioned):
    with pytest.raises(UserError) as error:
        augment.make(spec)
    assert mentioned in str(error.value)
    assert '\n' not in str(error.value)


# Degenerate arguments and images.


def test_a_sigma_whose_square_is_nothing_does_not_blur():
    blurred = _many('gaussian_blur(sigma=(1e-14, 1e-14))', 2, IMAGE)
    np.testing.assert_array_equal(blurred, np.stack([IMAGE] * 2))
    np.testing.assert_array_equal(image_ops.blur(IMAGE, 0.0, 5), IMAGE)


def test_contrasts_whose_inverse_is_infinite():
    """Values differ by less than the smallest number whose inverse is finite, in float32."""
    image = np.zeros((4, 4, 3), np.float32)
    image[0, 0, 0], image[1, 1, 1] = 2e-39, 1e-38
    for op in (image_ops.autocontrast, lambda x: image_ops.adjust_hue(x, 0.3)):
        changed = np.asarray(jax.jit(op)(image))
        np.testing.assert_allclose(changed, 0, atol=1e-37)  # NaN is not near


@pytest.mark.parametrize('spec', SPECS)
def test_images_of_one_pixel(spec):
    """Each operation gives an image of [0, 1], or says that it cannot."""
    if spec in ('gaussian_blur', 'random_crop', 'simclr'):
        with pytest.raises(UserError, match='write less than'):
            _many(spec, 2, IMAGE[:1, :1])
        return
    views = _many(spec, 50, IMAGE[:1, :1])
    assert views.shape == (50, 1, 1, 3) and 0 <= views.min() <= views.max() <= 1


@pytest.mark.parametrize(
    ('spec', 'shape', 'message'),
    [
        ('random_crop(padding=6)', (6, 9, 3), 'padding is 6: write less than the side, 6'),
        ('random_resized_crop(scale=(1e-12, 1e-9))', (6, 9, 3), 'a bound above 0.0046'),
        ('flip', (16,), r'flip takes an image \[H, W, C\], got \[16\]'),
        ('random_resized_crop', (8, 8), r'\[H, W, C\], got \[8, 8\]'),
        ('color_jitter', (8, 8, 1), r'color_jitter takes an image \[H, W, 3\], got \[8, 8, 1\]'),
        ('grayscale', (8, 8, 1), r'grayscale takes an image \[H, W, 3\]'),
        ('simclr', (8, 8, 1), r'color_jitter takes an image \[H, W, 3\]'),
        ('rand_augment', (8, 8, 4), r'rand_augment takes an image \[H, W, 3\]'),
    ],
)
def test_images_that_do_not_fit_are_refused_before_anything_is_computed(spec, shape, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(augment.make(spec), jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    'spec', ['flip', 'random_crop', 'random_resized_crop', 'gaussian_blur', 'solarize', 'rotation']
)
def test_what_does_not_mix_channels_takes_one(spec):
    gray, colored = (_many(spec, 4, x) for x in (IMAGE[..., :1], np.repeat(IMAGE[..., :1], 3, -1)))
    np.testing.assert_allclose(gray, colored[..., :1], atol=1e-6)


@pytest.mark.parametrize('images', [255 * IMAGES, IMAGES - 0.5, IMAGES * np.nan])
@pytest.mark.parametrize('spec', ['', 'simclr'])
def test_values_outside_of_the_unit_interval_are_refused(spec, images):
    op, key = augment.make(spec), jax.random.key(0)
    with pytest.raises(UserError, match=r'takes floats in \[0, 1\], got '):
        augment.views(op, key, images)
    with pytest.raises(UserError, match=r'takes floats in \[0, 1\], got '):
        augment.two_views(op, key, jnp.asarray(images))
    if spec:
        with pytest.raises(UserError, match=r'takes floats in \[0, 1\], got '):
            op(key, images[0])


def test_images_that_are_not_decoded_are_refused():
    with pytest.raises(UserError, match='got uint8: decode images first'):
        jax.eval_shape(_views('flip'), jax.random.key(0), BYTES)
    with pytest.raises(UserError, match='to_float takes uint8 images in 0..255, got float32'):
        augment.to_float(IMAGES)


def test_a_kernel_larger_than_the_image():
    with pytest.raises(UserError, match='kernel is 15: write less than 12'):
        augment.make('gaussian_blur(kernel=15)')(jax.random.key(0), jnp.zeros((6, 9, 3)))
