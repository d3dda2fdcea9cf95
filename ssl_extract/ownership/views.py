"""Representations of views of images, and the cosines between them."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ssl_extract import augment, numerics
from ssl_extract.augment.checks import check_range
from ssl_extract.evaluation.features import check_features
from ssl_extract.ownership.base import Represent


def represent_views(
    encoders: Sequence[Represent], images: np.ndarray, augmentations: Sequence[str], seed: int
) -> list[np.ndarray]:
    """Represents one view of each image for each augmentation, all encoders the same views.

    >>> views = represent_views([lambda x: x[:, 0, 0]], np.ones((4, 2, 2, 3)), ['flip'] * 2, 0)
    >>> views[0].shape
    (2, 4, 3)

    Args:
        encoders: functions of images.
        images: float [N, H, W, C] in [0, 1].
        augmentations: V specs of `ssl_extract.augment`, one for each view.
        seed: of the views.

    Returns:
        For each encoder, float64 [V, N, D] of L2 norm 1; a representation of zeros stays zero.

    Raises:
        UserError: the inputs are no images in [0, 1], an augmentation does not fit, or
            representations are not finite.
    """
    images = np.asarray(images, np.float32)
    check_range(images, 'an ownership test on views')
    keys = jax.random.split(jax.random.key(seed), len(augmentations))
    shown: list[list[np.ndarray]] = [[] for _ in encoders]
    for key, augmentation in zip(keys, augmentations, strict=True):
        view = np.asarray(_view(augmentation)(key, images))
        for kept, encoder in zip(shown, encoders, strict=True):
            kept.append(numerics.units(check_features(encoder(view))))
    return [np.stack(kept) for kept in shown]


@functools.cache
def _view(augmentation: str) -> Callable[[jax.Array, np.ndarray], jax.Array]:
    """Returns the compiled function of a spec, one for all suspects."""
    return jax.jit(functools.partial(augment.views, augment.make(augmentation)))


def within(views: np.ndarray) -> np.ndarray:
    """Averages the cosine over all pairs of views of an image, float64 [N].

    >>> within(np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])).round(3).tolist()
    [0.333]

    Args:
        views: float64 [V, N, D] of norm 1, V >= 2.
    """
    count = len(views)
    pairs = np.sum(views.sum(axis=0) ** 2, axis=1) - np.sum(views**2, axis=(0, 2))
    return pairs / (count * (count - 1))


def between(views: np.ndarray) -> np.ndarray:
    """Averages the cosine of an image's views to the views of all other images, float64 [N].

    >>> between(np.array([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]])).round(3).tolist()
    [0.3, 0.7, 0.4]

    Args:
        views: float64 [V, N, D] of norm 1, N >= 2.
    """
    own = views.sum(axis=0)
    others = own @ own.sum(axis=0) - np.sum(own**2, axis=1)
    return others / (len(views) ** 2 * (len(own) - 1))
