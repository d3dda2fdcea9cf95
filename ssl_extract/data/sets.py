"""Image sets as uint8 arrays, and the guard that keeps queries and test images apart.

    digits = load('digits', 'train[:80%]', size=16)
    cifar = load('cifar10', 'test', data_dir='/data/tfds')

`digits` comes with scikit-learn and `noise` is drawn here: independent uniform pixels, what an
attacker without data can ask with. Every other name is a prepared TFDS set
(`ssl_extract.data.tfds`).
"""

import hashlib
from typing import NamedTuple

import numpy as np

from ssl_extract.data import builtin
from ssl_extract.data import tfds as tfds_sets
from ssl_extract.errors import UserError


class Dataset(NamedTuple):
    """Images in memory.

    Attributes:
        inputs: uint8 [N, H, W, 3].
        labels: int32 [N], or None if the set, or one image of it, has none.
        num_classes: of the labels; 0 without.
        name: the set and its slice, as in 'cifar10/train[:20000]'.
    """

    inputs: np.ndarray
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

    >>> load('digits', 'train[:20%]').inputs.shape
    (259, 8, 8, 3)

    Raises:
        UserError: the set is not prepared, the split or slice does not exist or is empty, the set
            has no image to use, or the images differ in size and no `size` is given.
    """
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise UserError(f'size={size!r}: write the side in pixels, at least 1, or None')
    if name == 'digits':
        images, labels, num_classes = builtin.digits(split, size)
    elif name == 'noise':
        images, labels, num_classes = builtin.noise(split, size or builtin.NOISE_SIZE)
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
        raise UserError(f'{dataset.name} has no labels: choose a labeled set or split')
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
    for array in (dataset.inputs, dataset.labels):
        if array is not None:
            whole.update(f'{array.dtype.str}{array.shape}'.encode())
            whole.update(np.ascontiguousarray(array))
    return whole.hexdigest()


def distinct(dataset: Dataset) -> Dataset:
    """The first of each input's occurrences, in order: what is asked where each is paid for."""
    _, first = np.unique(hashes(dataset.inputs), return_index=True)
    keep = np.sort(first)
    labels = None if dataset.labels is None else dataset.labels[keep]
    return dataset._replace(inputs=dataset.inputs[keep], labels=labels)
