"""Features of a set of images, computed once with the encoder frozen, and the checks they pass."""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel

_IN_FLIGHT = 4  # batches dispatched ahead of the one that is fetched


def extract(
    apply: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    images: np.ndarray,
    *,
    batch_size: int = 256,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Representations of uint8 images, as float32 [N, D] on the host.

    `apply(variables, inputs float32 [B, H, W, 3] in [0, 1]) -> [B, D]` is compiled once for each
    image shape and batch size, whatever the variables: pass the same function for every encoder of
    one architecture. It must treat images independently (frozen BatchNorm), so that neither the
    batch size nor the padding of the last batch changes a row.

    Args:
        apply: the encoder, a pure function.
        variables: its parameters and statistics.
        images: uint8 [N, H, W, 3].
        batch_size: images per call; rounded up to a multiple of the devices of `mesh`.
        mesh: shards each batch over its devices; None computes on the default device.
        progress: shows a bar, if the work takes more than a few seconds.

    Raises:
        UserError: the images are not a non-empty uint8 [N, H, W, 3], or the outputs not [B, D].
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise UserError(
            'features are extracted from uint8 images [N, H, W, 3] with N >= 1, '
            f'got {images.dtype} {list(images.shape)}'
        )
    if batch_size < 1:
        raise UserError(f'batch_size must be at least 1, got {batch_size}')
    place = jnp.asarray
    if mesh is not None:
        batch_size = -(-batch_size // mesh.size) * mesh.size
        place = functools.partial(jax.device_put, device=parallel.batch_sharding(mesh))
        variables = parallel.replicate(variables, mesh)
    forward = _compiled(apply, mesh)
    pending: collections.deque[jax.Array] = collections.deque()
    blocks: list[np.ndarray] = []
    starts = range(0, len(images), batch_size)
    for start in tqdm(starts, desc='features', unit='batch', delay=3.0, disable=not progress):
        batch = images[start : start + batch_size]
        padding = [(0, batch_size - len(batch))] + [(0, 0)] * 3
        pending.append(forward(variables, place(np.pad(batch, padding))))
        if len(pending) > _IN_FLIGHT:
            blocks.append(np.asarray(pending.popleft()))
    blocks.extend(np.asarray(block) for block in pending)
    if blocks[0].ndim != 2:
        raise UserError(f'an encoder must give [B, D], this one gives {list(blocks[0].shape)}')
    return np.concatenate(blocks)[: len(images)]


@functools.lru_cache(maxsize=64)
def _compiled(apply: Callable, mesh: jax.sharding.Mesh | None) -> Callable:
    """The jitted forward pass of `apply`, the same object at every call."""

    def forward(variables: Any, images: jax.Array) -> jax.Array:
        return apply(variables, images.astype(jnp.float32) / 255).astype(jnp.float32)

    return jax.jit(forward, out_shardings=None if mesh is None else parallel.replicated(mesh))


def check_features(features: np.ndarray, name: str = 'features', width: int = 0) -> np.ndarray:
    """Returns `features` as float32 [N, D], if they are finite, not empty and of width D.

    Raises:
        UserError: naming what is wrong with them.
    """
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(f'{name} must be [N, D] with N, D >= 1, got {list(features.shape)}')
    if width and features.shape[1] != width:
        raise UserError(f'{name} must have width {width}, got {features.shape[1]}')
    features = features.astype(np.float32, copy=False)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(
            f'{name} hold NaN or infinity in {np.sum(~finite)} of {len(finite)} rows '
            f'(first: row {np.argmin(finite)}): the encoder has diverged'
        )
    return features


def check_labels(
    labels: np.ndarray | None, n: int, num_classes: int, name: str = 'labels'
) -> np.ndarray:
    """Returns `labels` as int32 [n], if there is one in [0, num_classes) for each example.

    Raises:
        UserError: naming what is wrong with them.
    """
    if labels is None:
        raise UserError(f'{name} are missing: a task needs a set with labels')
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f'{name} must be {n} integers, one for each row of the features, '
            f'got {labels.dtype} {list(labels.shape)}'
        )
    if num_classes < 2:
        raise UserError(f'num_classes must be at least 2, got {num_classes}')
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f'{name} must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}'
        )
    return labels.astype(np.int32)


def check_training_set(
    features: np.ndarray, labels: np.ndarray | None, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks the labeled features that a classifier learns from: each class must have examples.

    Raises:
        UserError: naming what is wrong with them.
    """
    features = check_features(features, 'training features')
    labels = check_labels(labels, len(features), num_classes, 'training labels')
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if len(missing):
        raise UserError(
            f'training labels have no example of class {", ".join(map(str, missing[:5]))}'
            f'{", ..." if len(missing) > 5 else ""} of {num_classes}: use more training examples'
        )
    return features, labels
