"""Each operation against another implementation: Pillow, SciPy, colorsys, torchvision's code in NumPy."""

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

from ssl_extract import augment, image_ops
from ssl_extract.errors import UserError

LEVEL = 1 / 255
BYTES = np.random.default_rng(0).integers(0, 256, (3, 16, 12, 3), dtype=np.uint8)
IMAGES = BYTES.astype(np.float32) / 255
IMAGE = IMAGES[0]
SPECS = [
    '',
    'simclr',
    'random_resized_crop',
    'flip',
    'color_jitter',
    'grayscale',
    'gaussian_blur',
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
        rotated = image_ops.adjust_hue(image, turns)
        np.testing.assert_allclose(rotated, _colorsys_hue(image, turns), atol=2e-6)


def test_hue_turns_red_to_green_to_blue():
    red = jnp.array([[[1.0, 0.0, 0.0]]])
    np.testing.assert_allclose(image_ops.adjust_hue(red, 1 / 3)[0, 0], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(image_ops.adjust_hue(red, -1 / 3)[0, 0], [0, 0, 1], atol=1e-6)


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
    cropped = image_ops.crop_and_resize(IMAGE, *box)
    np.testing.assert_allclose(cropped, np.stack(expected, -1), atol=1e-6)


def test_crop_of_everything_changes_nothing():
    np.testing.assert_allclose(image_ops.crop_and_resize(IMAGE, 0, 0, 16, 12), IMAGE, atol=1e-7)


@pytest.mark.parametrize('kernel', [1, 3, 5, 11])
@pytest.mark.parametrize('sigma', [0.1, 0.8, 2.0])
def test_blur_agrees_with_scipy(sigma, kernel):
    taps = np.exp(-((np.arange(kernel) - kernel // 2) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    expected = scipy.ndimage.convolve(
        IMAGE.astype(float), np.multiply.outer(taps, taps)[..., None], mode='mirror'
    )
    np.testing.assert_allclose(image_ops.blur(IMAGE, sigma, kernel), expected, atol=1e-6)


def test_to_float():
    images = augment.to_float(BYTES)
    assert images.dtype == jnp.float32
    np.testing.assert_allclose(images, BYTES / 255.0, atol=1e-7)


# What all operations share.


@pytest.mark.parametrize('spec', SPECS)
def test_contract(spec):
    hard = np.stack([np.zeros_like(IMAGE), np.ones_like(IMAGE), IMAGE, (IMAGE > 0.5) * 1.0])
    images = jnp.asarray(np.tile(hard, (16, 1, 1, 1)), jnp.float32)
    key = jax.random.key(0)
    views = _views(spec)(key, images)
    assert (views.shape, views.dtype) == (images.shape, jnp.float32)
    assert 0 <= views.min() <= views.max() <= 1
    np.testing.assert_array_equal(views, _views(spec)(key, images))
    op, keys = augment.make(spec), jax.random.split(key, 64)
    for i in (2, 63):  # without jit, without vmap
        np.testing.assert_allclose(op(keys[i], images[i]), views[i], atol=1e-6)
    if spec:
        other = _views(spec)(jax.random.key(1), images)
        assert not np.array_equal(views, other) or spec == 'grayscale | flip(p=1.0)'
    else:
        np.testing.assert_array_equal(views, images)


@pytest.mark.parametrize('spec', ['simclr'])
def test_four_devices_give_what_one_gives(spec):
    images = jnp.asarray(np.tile(IMAGES, (8, 1, 1, 1)))
    alone = _views(spec)(jax.random.key(3), images)
    mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    sharded = _views(spec)(jax.random.key(3), jax.device_put(images, sharding))
    assert sharded.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(sharded, alone, atol=1e-6)


def test_each_image_and_each_view_draws_its_own():
    same = jnp.broadcast_to(IMAGE, (16, *IMAGE.shape))
    two_views = jax.jit(functools.partial(augment.two_views, augment.make('random_resized_crop')))
    first, second = two_views(jax.random.key(0), same)
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


@pytest.mark.parametrize('p', [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('flip(p={})', lambda image: image[:, ::-1]),
        ('grayscale(p={})', image_ops.grayscale),
    ],
)
def test_rates(name, change, p):
    views = _many(name.format(p), 2000, IMAGE[:4, :4])
    touched = np.asarray(change(IMAGE[:4, :4]))
    is_touched = np.isclose(views, touched, atol=1e-6).all(axis=(1, 2, 3))
    assert (is_touched ^ (views == IMAGE[:4, :4]).all(axis=(1, 2, 3))).all()
    _assert_rate(is_touched, p)


@pytest.mark.parametrize('name', ['color_jitter(p={})', 'gaussian_blur(p={})'])
@pytest.mark.parametrize('p', [0.0, 0.8])
def test_rates_of_change(name, p):
    views = _many(name.format(p), 2000, IMAGE[:4, :4])
    _assert_rate((views != IMAGE[:4, :4]).any(axis=(1, 2, 3)), p)


def _position_image(side):
    """An image whose channels hold the row and the column, from 0 to 1."""
    rows, columns = np.mgrid[:side, :side] / (side - 1)
    return np.stack([rows, columns, rows], axis=-1)


def _boxes(views, side):
    """Top, left, height and width [N] of the boxes that views of a position image show.

    Bilinear scaling by h / side leaves the middle rows of a linear ramp linear: their step is h / side.
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


@pytest.mark.parametrize(
    ('strengths', 'adjust', 'low', 'high'),
    [
        ((0.8, 0, 0, 0), image_ops.adjust_brightness, 0.2, 1.8),
        ((0, 0.8, 0, 0), image_ops.adjust_contrast, 0.2, 1.8),
        ((0, 0, 1.5, 0), image_ops.adjust_saturation, 0.0, 2.5),
        ((0, 0, 0, 0.2), image_ops.adjust_hue, -0.2, 0.2),
    ],
)
def test_jitter_draws_factors_uniformly(strengths, adjust, low, high):
    """With one of the four alone, the factor can be read off by comparing with a fine grid."""
    image = np.array([[[0.3, 0.35, 0.4], [0.35, 0.3, 0.38]]], np.float32)
    views = _many(f'color_jitter{(*strengths, 1.0)}', 1000, image)
    factors = np.linspace(low, high, 801)
    grid = jax.jit(jax.vmap(lambda factor: adjust(image, factor)))(
        jnp.asarray(factors, jnp.float32)
    )
    distance = np.abs(views[:, None] - np.asarray(grid)).max(axis=(2, 3, 4))
    assert distance.min(axis=1).max() < 2e-3
    found = factors[distance.argmin(axis=1)]
    uniform = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(found, uniform.cdf).statistic < 1.95 / np.sqrt(1000)


def test_jitter_applies_all_four_in_every_order():
    """Amounts are recovered from a constant image's draws by replaying the key."""
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (6,)))
    keys = jax.random.split(jax.random.key(11), 500)
    draws = np.asarray(uniform(keys))
    op = augment.make('color_jitter(p=1.0)')
    images = jnp.broadcast_to(IMAGE[:4, :4], (500, 4, 4, 3))
    views = np.asarray(jax.jit(jax.vmap(op))(keys, images))
    adjust = (
        image_ops.adjust_brightness,
        image_ops.adjust_contrast,
        image_ops.adjust_saturation,
        image_ops.adjust_hue,
    )
    orders = list(itertools.permutations(range(4)))
    step = jax.jit(
        lambda image, amounts, order: functools.reduce(
            lambda x, i: adjust[i](x, amounts[i]), order, image
        ),
        static_argnums=2,
    )
    amounts = np.array([0.2, 0.2, 0.2, -0.2]) + draws[:, :4] * np.array([1.6, 1.6, 1.6, 0.4])
    found = np.zeros(24, int)
    for view, amount, draw in zip(views[:120], amounts, draws, strict=False):
        index = int(draw[4] * 24)
        expected = step(images[0], jnp.asarray(amount, jnp.float32), orders[index])
        np.testing.assert_allclose(view, expected, atol=1e-5)
        found[index] += 1
    assert (found > 0).all()
    everything = np.bincount((draws[:, 4] * 24).astype(int), minlength=24)
    assert scipy.stats.chisquare(everything).pvalue > 1e-4


@pytest.mark.parametrize(('side', 'kernel'), [(8, 3), (32, 3), (50, 5), (64, 7), (224, 23)])
def test_blur_kernel_is_a_tenth_of_the_image(side, kernel):
    """A single bright column spreads over exactly `kernel` columns."""
    image = np.zeros((side, side, 3), np.float32)
    image[:, side // 2] = 1
    blurred = augment.make('gaussian_blur(sigma=(2.0, 2.0))')(jax.random.key(0), jnp.asarray(image))
    assert (np.asarray(blurred)[0, :, 0] > 0).sum() == kernel


def test_blur_draws_sigma_uniformly():
    image = np.zeros((7, 7, 3), np.float32)
    image[:, 3] = 1
    views = _many('gaussian_blur(kernel=3)', 1000, image)
    ratio = views[:, 0, 2, 0] / views[:, 0, 3, 0]  # exp(-1 / (2 sigma^2))
    found = np.sqrt(-0.5 / np.log(np.maximum(ratio, 1e-30)))
    found = np.where(ratio < 1e-4, np.nan, found)  # below sigma 0.23 the neighbour is dark
    uniform = scipy.stats.uniform(0.1, 1.9)
    bright = found[~np.isnan(found)]
    low = np.sqrt(-0.5 / np.log(1e-4))
    cdf = lambda x: (uniform.cdf(x) - uniform.cdf(low)) / (1 - uniform.cdf(low))  # noqa: E731
    assert scipy.stats.kstest(bright, cdf).statistic < 1.95 / np.sqrt(len(bright))
    _assert_rate(np.isnan(found), uniform.cdf(low))


def test_simclr_is_the_chain_with_the_papers_constants():
    chain = augment.make(
        'random_resized_crop(scale=(0.08, 1.0)) | flip(p=0.5) | '
        'color_jitter(0.8, 0.8, 0.8, 0.2, p=0.8) | grayscale(p=0.2) | '
        'gaussian_blur(sigma=(0.1, 2.0), p=1.0)'
    )
    # one chain within another draws its keys from the outer one's
    key = jax.random.key(2)
    inner = jax.random.split(key, 1)[0]
    np.testing.assert_allclose(augment.make('simclr')(key, IMAGE), chain(inner, IMAGE), atol=1e-6)


def test_simclr_arguments():
    views = _many('simclr(strength=0, flip=0, min_scale=1)', 16, np.full((8, 8, 3), 0.25))
    np.testing.assert_allclose(views, 0.25, atol=1e-6)
    weak = _many('simclr(strength=0.1)', 64, IMAGE)
    assert np.abs(weak.mean(axis=(1, 2, 3)) - IMAGE.mean()).max() < 0.25


@pytest.mark.parametrize(
    ('spec', 'mentioned'),
    [
        ('simclrr', "did you mean 'simclr'"),
        ('flip(q=1)', 'it takes (p'),
        ('flip(p=1.5)', 'flip: p is 1.5'),
        ('flip(p="often")', 'flip'),
        ('grayscale(p=-0.1)', 'grayscale: p'),
        ('random_resized_crop(scale=(0, 1))', 'random_resized_crop: scale is (0, 1)'),
        ('random_resized_crop(scale=(0.5, 1.1))', '<= 1'),
        ('random_resized_crop(scale=0.5)', 'random_resized_crop'),
        ('random_resized_crop(ratio=(2, 1))', 'ratio is (2, 1)'),
        ('color_jitter(hue=0.6)', '[0, 0.5]'),
        ('color_jitter(contrast=-1)', 'contrast is -1'),
        ('gaussian_blur(kernel=4)', 'odd'),
        ('gaussian_blur(sigma=(0, 1))', 'sigma'),
        ('simclr(strength=9)', 'simclr: strength is 9'),
        ('simclr(min_scale=0)', 'scale'),
        ('flip | | grayscale', 'cannot read'),
    ],
)
def test_wrong_specs(spec, mentioned):
    with pytest.raises(UserError) as error:
        augment.make(spec)
    assert mentioned in str(error.value)
    assert '\n' not in str(error.value)


def test_a_kernel_larger_than_the_image():
    with pytest.raises(UserError, match='kernel is 15: write less than 12'):
        augment.make('gaussian_blur(kernel=15)')(jax.random.key(0), jnp.zeros((6, 9, 3)))
