"""Consistency: the images that an augmentation changes most."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import augment
from ssl_extract.numerics import units
from ssl_extract.ranges import Range
from ssl_extract.strategies.base import Rounds, Seen, State, Strategy, left, register

_BLOCK = 512  # images augmented at a time


@register('consistency', needs=('images',))
def consistency(
    rounds: Rounds = 4, views: Annotated[int, Range(2, 100)] = 4, augmentation: str = 'simclr'
) -> Strategy:
    """Asks the images on whose views the surrogate disagrees most.

    After Gao et al. (ECCV 2020), who ask the images with the largest variance of the predicted
    class probabilities over an image and its perturbations, summed over the classes.
    Representations have no classes: the variance is that of the L2-normalized representations of
    `views` augmented views, summed over the coordinates, which is one minus the squared length of
    the mean. Three more things differ. The image is not among the views. The views are SimCLR's
    instead of flips and crops. The surrogate is trained on the answered images alone, while the
    paper's learner is also trained to be consistent on the others. The first round, without a
    surrogate, is random; ties go by the order of chance.

    >>> consistency(rounds=3, views=2).rounds
    3

    Args:
        rounds: number of choices, the random first choice included.
        views: number of views of each image.
        augmentation: of a view, a spec of `ssl_extract.augment`.

    Raises:
        UserError: rounds or views is not a whole number of at least 2, or the spec is wrong.
    """
    op = augment.make(augmentation)

    @jax.jit
    def view(key: jax.Array, images: jax.Array) -> jax.Array:
        floats = augment.views(op, key, augment.to_float(images))
        return jnp.round(jnp.clip(floats, 0, 1) * 255).astype(jnp.uint8)

    def choose(seen: Seen, count: int, state: State):
        candidates = left(seen, count)
        if seen.represent is None:
            return candidates[:count], state
        key = jax.random.fold_in(jax.random.key(seen.seed), seen.round)
        block = min(_BLOCK, len(seen.inputs))  # all of one size, for one compilation
        scores = []
        for start in range(0, len(candidates), block):
            images = seen.inputs[candidates[start : start + block]]
            padded = np.pad(images, [(0, block - len(images))] + [(0, 0)] * 3)
            keys = jax.random.split(jax.random.fold_in(key, start), views)
            shown = [np.asarray(view(k, padded))[: len(images)] for k in keys]
            scores.append(instability(np.stack([seen.represent(s) for s in shown])))
        order = np.argsort(-np.concatenate(scores), kind='stable')
        return candidates[order[:count]], state

    return Strategy(rounds, choose)


def instability(representations: np.ndarray) -> np.ndarray:
    """Computes the variance over views of L2-normalized rows, summed over the coordinates.

    A zero row stays zero.

    >>> instability(np.array([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])).tolist()
    [0.5, 0.0]

    Args:
        representations: float [V, M, R], of V views of M inputs.

    Returns:
        float [M], in [0, 1].
    """
    rows = units(representations)
    return (rows - rows[0]).var(axis=0).sum(axis=-1)  # exactly 0 if no view differs
