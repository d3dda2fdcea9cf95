"""Sets that need no files: scikit-learn's digits, and noise."""

import numpy as np

from ssl_extract.data import tfds

_DIGITS_TEST = 500  # of the 1,797 images; the other 1,297 are the training split
_NOISE = 50_000  # images of its one split
NOISE_SIZE = 32  # pixels, if no size is given
_NOISE_SEED = 2022


def digits(split: str, size: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """scikit-learn's digits, shuffled once and for all into stratified 'train' and 'test'."""
    from sklearn.datasets import load_digits  # takes a second to import
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 in the file
    order = np.arange(len(images))
    train, test = train_test_split(
        order, test_size=_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    rows = {'train': train, 'test': test}
    pieces = tfds.parse_split('digits', split, {k: len(v) for k, v in rows.items()})
    chosen = np.concatenate([rows[piece.split][piece.start : piece.stop] for piece in pieces])
    fitted = [tfds.fit(image[..., None], size) for image in images[chosen]]
    return np.stack(fitted), bunch.target[chosen].astype(np.int32), 10


def noise(split: str, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Independent uniform pixels; each image has a seed of its own, so that slices agree."""
    pieces = tfds.parse_split('noise', split, {'train': _NOISE})
    indices = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
    images = np.empty((len(indices), size, size, 3), np.uint8)
    for image, index in zip(images, indices, strict=True):
        rng = np.random.default_rng((_NOISE_SEED, index))
        image[:] = rng.integers(0, 256, image.shape, dtype=np.uint8)
    return images, np.full(len(indices), -1, np.int32), 0
