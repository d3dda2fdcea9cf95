"""Image sets as uint8 arrays, and the guard that keeps queries and test images apart.

    digits = load('digits', 'train[:80%]', size=16)
    cifar = load('cifar10', 'test', data_dir='/data/tfds')

`digits` comes with scikit-learn and `noise` is drawn here: independent uniform pixels, what a thief
without data can ask with. Every other name is a prepared TFDS set (`ssl_extract.tfds_sets`).
"""

import hashlib
from typing import NamedTuple

import numpy as np

from ssl_extract import tfds_sets
from ssl_extract.errors import UserError

_DIGITS_TEST = 500  # of the 1,797 images; the other 1,297 are the training split
_NOISE = 50_000  # images of its one split
_NOISE_SIZE = 32  # pixels, if no size is given
_NOISE_SEED = 2022


class Dataset(NamedTuple):
    """Images in memory.

    Attributes:
        images: uint8 [N, H, W, 3].
        labels: int32 [N], or None if the set, or one image of it, has none.
        num_classes: of the labels; 0 without.
        name: the set and its slice, as in 'cifar10/train[:20000]'.
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_classes: int
    name: str


def load(
    name: str, split: str, *, size: int | None = None, data_dir: str = '', cache_dir: str = ''
) -> Dataset:
    """Loads a slice of an image-classification set, its gray images as RGB.

    A TFDS set is decoded once and kept in `cache_dir`, without TensorFlow.

    Args:
        name: 'digits', 'noise' (50,000 images that no one photographed, 'train', no labels) or a
            TFDS set, such as 'cifar10', 'cifar10:3.0.2' or 'set/config'.
        split: TFDS's language: 'train', 'train[:20000]', 'train[10%:20%]', 'train+test'.
        size: side in pixels; the central square of each image is resized to it (bilinear,
            antialiased). None keeps the images as they are; noise is drawn at 32 then.
        data_dir: where TFDS sets are prepared; '' for TFDS's own default.
        cache_dir: where decoded images are kept; '' for ~/.cache/ssl_extract.

    >>> load('digits', 'train[:20%]').images.shape
    (259, 8, 8, 3)

    Raises:
        UserError: the set is not prepared, the split or slice does not exist or is empty, the set
            has no image to use, or the images differ in size and no `size` is given.
    """
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise UserError(f'size={size!r}: write the side in pixels, at least 1, or None')
    if name == 'digits':
        images, labels, num_classes = _load_digits(split, size)
    elif name == 'noise':
        images, labels, num_classes = _load_noise(split, size or _NOISE_SIZE)
    else:
        images, labels, num_classes = tfds_sets.load(name, split, size, data_dir, cache_dir)
    if (labels < 0).any():  # TFDS writes -1 for "no label"
        return Dataset(images, None, 0, f'{name}/{split}')
    return Dataset(images, labels, num_classes, f'{name}/{split}')


def require_labels(dataset: Dataset) -> np.ndarray:
    """The labels, int32 [N].

    Raises:
        UserError: there are none.
    """
    if dataset.labels is None:
        raise UserError(f'{dataset.name} has no labels: choose a labelled set or split')
    return dataset.labels


def hashes(images: np.ndarray) -> np.ndarray:
    """A hash of each image's content, type and shape: 32 hexadecimal digits, bytes [N].

    >>> a, b, c = hashes(np.array([[0, 1], [0, 2], [0, 1]], np.uint8))
    >>> a == c, a == b, len(a)
    (True, False, 32)
    """
    images = np.ascontiguousarray(images)
    kind = f'{images.dtype.str}{images.shape[1:]}'.encode()
    digests = [hashlib.blake2b(kind + image.tobytes(), digest_size=16) for image in images]
    return np.array([digest.hexdigest() for digest in digests], dtype='S32')


def digest(dataset: Dataset) -> str:
    """A hash of the whole content, images and labels in their order; 16 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=8)
    for array in (dataset.images, dataset.labels):
        if array is not None:
            whole.update(f'{array.dtype.str}{array.shape}'.encode())
            whole.update(np.ascontiguousarray(array))
    return whole.hexdigest()


def distinct(dataset: Dataset) -> Dataset:
    """The first of each image's occurrences, in order: what a thief who pays for each would ask."""
    _, first = np.unique(hashes(dataset.images), return_index=True)
    keep = np.sort(first)
    labels = None if dataset.labels is None else dataset.labels[keep]
    return dataset._replace(images=dataset.images[keep], labels=labels)


def check_disjoint(queries: Dataset, test: Dataset) -> None:
    """Stops an evaluation on images that the surrogate was trained on.

    Raises:
        UserError: an image of `test` is among `queries`, or their sizes differ, so that nothing
            can be said.
    """
    if queries.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f'cannot compare {queries.name}, images {queries.images.shape[1:]}, with {test.name}, '
            f'images {test.images.shape[1:]}: load both with the same size'
        )
    shared = int(np.isin(hashes(test.images), hashes(queries.images)).sum())
    if shared:
        raise UserError(
            f'{shared} of the {len(test.images)} images of {test.name} are among the queries '
            f'{queries.name}: query another split or slice'
        )


def _load_digits(split: str, size: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """scikit-learn's digits, shuffled once and for all into stratified 'train' and 'test'."""
    from sklearn.datasets import load_digits  # takes a second to import
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 in the file
    order = np.arange(len(images))
    train, test = train_test_split(
        order, test_size=_DIGITS_TEST, stratify=digits.target, random_state=0
    )
    rows = {'train': train, 'test': test}
    pieces = tfds_sets.parse_split('digits', split, {k: len(v) for k, v in rows.items()})
    chosen = np.concatenate([rows[piece.split][piece.start : piece.stop] for piece in pieces])
    fitted = [tfds_sets.fit(image[..., None], size) for image in images[chosen]]
    return np.stack(fitted), digits.target[chosen].astype(np.int32), 10


def _load_noise(split: str, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Independent uniform pixels; each image has a seed of its own, so that slices agree."""
    pieces = tfds_sets.parse_split('noise', split, {'train': _NOISE})
    indices = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
    images = np.empty((len(indices), size, size, 3), np.uint8)
    for image, index in zip(images, indices, strict=True):
        rng = np.random.default_rng((_NOISE_SEED, index))
        image[:] = rng.integers(0, 256, image.shape, dtype=np.uint8)
    return images, np.full(len(indices), -1, np.int32), 0
