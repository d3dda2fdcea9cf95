"""Built-in sets that need no files: scikit-learn's digits, and noise."""

import numpy as np

from ssl_extract.data.loading import register
from ssl_extract.data.sets import Dataset
from ssl_extract.data.splits import select
from ssl_extract.data.tfds import fit

_DIGITS_TEST = 500  # of the 1,797 images; the other 1,297 are the training split
_NOISE = 50_000  # images of its one split
_NOISE_SIZE = 32  # pixels, if no size is given
_NOISE_SEED = 2022


@register('digits')
def digits(*, split: str, size: int | None) -> Dataset:
    """scikit-learn's digits, shuffled once and for all into stratified 'train' and 'test'."""
    from sklearn.datasets import load_digits  # takes a second to import
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 in the file
    order = np.arange(len(images))
    train, test = train_test_split(
        order, test_size=_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    rows = select(split, {'train': train, 'test': test})
    fitted = [fit(image[..., None], size) for image in images[rows]]
    return Dataset(np.stack(fitted), bunch.target[rows], 10)


@register('noise')
def noise(*, split: str, size: int | None) -> Dataset:
    """Independent uniform pixels; each image has a seed of its own, so that slices agree."""
    rows = select(split, {'train': np.arange(_NOISE)})
    images = np.empty((len(rows), size or _NOISE_SIZE, size or _NOISE_SIZE, 3), np.uint8)
    for image, row in zip(images, rows, strict=True):
        rng = np.random.default_rng((_NOISE_SEED, row))
        image[:] = rng.integers(0, 256, image.shape, dtype=np.uint8)
    return Dataset(images)
