"""Views of the images that accounts send, for the study of detection."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import augment

BATCH = 250


def viewed(images: np.ndarray, view: str, seed: Sequence[int]) -> np.ndarray:
    """Draws an augmented view of each image, uint8[N, H, W, 3], as an attacker would send it."""
    draws = np.random.default_rng(seed).integers(2**32, size=len(images), dtype=np.uint32)
    pad = -len(images) % BATCH  # to whole batches, for one compilation
    padded, draws = (np.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)) for x in (images, draws))
    parts = [
        np.asarray(_view(view)(padded[start : start + BATCH], draws[start : start + BATCH]))
        for start in range(0, len(padded), BATCH)
    ]
    return np.concatenate(parts)[: len(images)]


@functools.cache
def _view(view: str) -> Callable:
    op = augment.make(view)

    def apply(images, draws):
        seen = jax.vmap(op)(jax.vmap(jax.random.key)(draws), augment.to_float(images))
        return jnp.round(255 * seen).astype(jnp.uint8)

    return jax.jit(apply)
