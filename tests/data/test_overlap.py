"""Near-duplicates against Pillow's thumbnails and NumPy's correlations."""

import io

import numpy as np
import pytest
from PIL import Image

from ssl_extract import data

RNG = np.random.default_rng(0)


def scenes(count, height=32, width=32, seed=0):
    """Smooth images of many colors, uint8, as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    resized = [Image.fromarray(image).resize((width, height), Image.BICUBIC) for image in coarse]
    return np.stack([np.asarray(image) for image in resized])


def as_jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format='JPEG', quality=90)
    return np.asarray(Image.open(buffer))


def with_a_pixel(image):
    changed = image.copy()
    changed[5, 7] = 255 - changed[5, 7]
    return changed


CHANGES = {
    'compressed': as_jpeg,
    'a pixel': with_a_pixel,
    'darker': lambda image: (image * 0.7).astype(np.uint8),
    'noisy': lambda image: np.clip(image + RNG.normal(0, 6, image.shape), 0, 255).astype(np.uint8),
}


def count(first, second):
    return data.count_near(data.Dataset(first), data.Dataset(second))


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_near_duplicates_are_counted_and_copies_are_not(change):
    train, others = scenes(60), scenes(40, seed=1)
    assert count(train, others) == 0
    changed = np.stack([change(image) for image in train[:7]])
    assert count(train, np.concatenate([changed, others])) == 7
    assert count(train, np.concatenate([changed, others, train[20:30]])) == 7
    assert count(np.concatenate([train, changed[:2]]), changed) == 5


@pytest.mark.parametrize(('height', 'width'), [(8, 8), (8, 12), (24, 40), (13, 50)])
def test_they_correlate_as_pillow_and_numpy_say(height, width):
    train = scenes(30, height, width)
    blend = np.linspace(0.6, 1, 30)[:, None, None, None]
    test = (blend * train + (1 - blend) * scenes(30, height, width, seed=1)).astype(np.uint8)

    def thumbnails(images):
        side = (min(width, 16), min(height, 16))
        gray = images.mean(axis=-1).astype(np.float32)
        return np.stack([Image.fromarray(x).resize(side, Image.BOX) for x in gray])

    both = np.concatenate([thumbnails(train), thumbnails(test)]).reshape(60, -1)
    nearest = np.corrcoef(both)[:30, 30:].max(axis=0)
    assert np.abs(nearest - data.NEAR).min() > 1e-5
    expected = (nearest >= data.NEAR).sum() - (train == test).all(axis=(1, 2, 3)).sum()
    assert 0 < expected < 29
    assert count(train, test) == expected


def test_noise_and_even_images_have_no_near_duplicates():
    noise = RNG.integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    assert count(noise[:20], noise[20:]) == 0
    even = np.arange(40, dtype=np.float32)[:, None, None, None] * np.ones((1, 16, 16, 3), 'f') / 7
    assert count(even[:20], even[20:]) == 0


def test_it_does_not_apply_to_other_inputs():
    vectors, tiny = np.ones((5, 64)), np.ones((5, 4, 4, 3))
    assert count(vectors, vectors) is None
    assert count(tiny, tiny) is None
    assert count(np.ones((5, 8, 8, 3)), np.ones((5, 9, 8, 3))) is None


def test_handwritten_digits_have_none():
    assert data.count_near(*(data.load('digits', split) for split in ('train', 'test'))) == 0
