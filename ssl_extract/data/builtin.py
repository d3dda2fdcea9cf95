"""Built-in sets that need no files: scikit-learn's digits, and noise."""

import numpy as np

from ssl_extract.checks import check_memory
from ssl_extract.data.loading import Side, register
from ssl_extract.data.sets import Dataset
from ssl_extract.data.splits import select
from ssl_extract.data.tfds import fit

_DIGITS_TEST = 500  # of the 1,797 images; the other 1,297 are the training split
_NOISE = 50_000  # images of the split 'train'
_NOISE_SIZE = 32  # pixels, without `size`
_NOISE_SEED = 2022


@register('digits')
def digits(*, split: str, size: Side | None) -> Dataset:
    """Loads scikit-learn's digits, in a fixed order, stratified into 'train' and 'test'.

    >>> digits(split='test[:3]', size=None).inputs.shape
    (3, 8, 8, 3)

    Args:
        split: such as 'train[:80%]'; 'train' has 1,297 images, 'test' 500.
        size: side in pixels; None keeps 8.
    """
    from sklearn.datasets import load_digits  # takes a second to import
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 in the file
    order = np.arange(len(images))
    train, test = train_test_split(
        order, test_size=_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    rows = select(split, {'train': train, 'test': test})
    check_memory(f'size={size}: {len(rows):,} images', len(rows) * 3 * (size or 8) ** 2)
    fitted = [fit(image[..., None], size) for image in images[rows]]
    return Dataset(np.stack(fitted), bunch.target[rows], 10)


@register('noise')
def noise(*, split: str, size: Side | None) -> Dataset:
    """Draws independent uniform pixels; each image has a separate seed, so that slices agree.

    >>> noise(split='train[:3]', size=4).inputs.shape
    (3, 4, 4, 3)

    Args:
        split: such as 'train[:1000]'; 'train' has 50,000 images.
        size: side in pixels; None draws 32.
    """
    rows = select(split, {'train': np.arange(_NOISE)})
    side = size or _NOISE_SIZE
    check_memory(f'size={size}: {len(rows):,} images', len(rows) * 3 * side**2)
    images = np.empty((len(rows), side, side, 3), np.uint8)
    for image, row in zip(images, rows, strict=True):
        rng = np.random.default_rng((_NOISE_SEED, row))
        image[:] = rng.integers(0, 256, image.shape, dtype=np.uint8)
    return Dataset(images)
