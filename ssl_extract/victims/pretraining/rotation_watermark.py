"""SimCLR with the rotation watermark.

Dziedzic et al. 2022, arXiv 2205.07890, sections 5.1 and E.2. The owner's private augmentation is a
rotation. A predictor of the rotation's half, [0, 180) against [180, 360) degrees, is trained
jointly with the encoder. In the authors' code the predictor's parameters are not given to the
optimizer and epochs of the two losses alternate; here the predictor is trained, and each step has
both losses.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_extract import augment, encoders, losses
from ssl_extract.encoders import chain
from ssl_extract.ranges import Positive, Width
from ssl_extract.training import Recipe
from ssl_extract.victims.pretraining import simclr
from ssl_extract.victims.pretraining.base import prepare_two_views, register

MARK = 'rotation'  # the name of the predictor among the heads
HALVES = ('rotation(degrees=(0.0, 180.0))', 'rotation(degrees=(180.0, 360.0))')
# The authors' code loads a victim of 100 epochs; the rest is that of SimCLR.
PAPER = simclr.PAPER | dict(
    method='rotation_watermark(temperature=0.07, hidden=512, dim=128, predictor=256)', epochs=100
)


@register('rotation_watermark', least_batch=2)
def rotation_watermark(
    encoder: encoders.Network,
    augmentation: Callable,
    temperature: Positive = 0.07,
    hidden: Width = 512,
    dim: Width = 128,
    predictor: Width = 256,
    weight: Positive = 1.0,
) -> Recipe:
    """Trains SimCLR and a predictor of the half of a rotation, the owner's mark.

    NT-Xent of two views of an image, plus `weight` times the cross-entropy of the predictor on the
    image rotated once by an angle of each half. Half of the images of a step are rotated, and all
    pass the encoder at once, so that a step costs two of SimCLR. Angles near 0 and 180 degrees tell
    little: no predictor is right on all images.

    >>> network = encoders.make('resnet18(stem="patch", width=8, stages=(1,))')
    >>> recipe = rotation_watermark(network, lambda key, image: image, predictor=4)
    >>> [name for name, spec in recipe.heads]
    ['head', 'rotation']

    Args:
        encoder: the network whose output is the representation.
        augmentation: `(key, image) -> image`, of the two views.
        temperature: of the NT-Xent loss.
        hidden: width of the projection head's hidden layer.
        dim: width of the projections.
        predictor: width of the predictor's hidden layer.
        weight: of the predictor's loss.
    """
    heads = (
        ('head', f'simclr(hidden={hidden}, dim={dim})'),
        (MARK, f'rotation_predictor(hidden={predictor})'),
    )
    networks = {'encoder': encoder} | {name: encoders.make_head(spec) for name, spec in heads}
    nt_xent = losses.make(f'infonce(temperature={temperature})')
    two_views = prepare_two_views(augmentation)

    def prepare(batch: dict[str, Any], key: jax.Array, ask: Any, account: Any) -> tuple:
        views_key, mark_key = jax.random.split(key)
        views, account, queries = two_views(batch, views_key, ask, account)
        return views | {'rotated': rotated(mark_key, batch['inputs'])}, account, queries

    def objective(params: Any, batch_stats: Any, batch: dict[str, Any]) -> tuple[jax.Array, Any]:
        images = jnp.concatenate([*batch['views'], *batch['rotated']])
        outputs, batch_stats = chain.train(networks, params, batch_stats, images)
        first, second, *_ = jnp.split(outputs['head'], 4)
        logits = outputs[MARK][2 * len(first) :, 0]
        labels = jnp.repeat(jnp.arange(2), len(first))
        mark = optax.losses.sigmoid_binary_cross_entropy(logits, labels).mean()
        measured = {'mark_loss': mark, 'watermark_success': jnp.mean((logits >= 0) == labels)}
        return nt_xent(first, second) + weight * mark, (batch_stats, measured)

    return Recipe(
        init=lambda key, images: chain.init(networks, key, images),
        prepare=prepare,
        objective=objective,
        heads=heads,
    )


def rotated(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotates each image once by an angle of [0, 180) and once by one of [180, 360) degrees.

    Args:
        key: of the angles.
        images: float [B, H, W, 3] in [0, 1].
    """
    keys = jax.random.split(key)
    low, high = map(augment.make, HALVES)
    return augment.views(low, keys[0], images), augment.views(high, keys[1], images)
