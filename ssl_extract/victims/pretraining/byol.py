"""BYOL, which learns from a slowly moving copy of itself.

Grill et al. 2020, arXiv 2006.07733.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_extract import encoders
from ssl_extract.encoders import chain
from ssl_extract.ranges import Share, Width
from ssl_extract.training import Recipe
from ssl_extract.victims.pretraining.base import prepare_two_views, register

TARGET = 'target'  # the name of the moving copy among the statistics
FOLLOWED = ('encoder', 'projector')


@register('byol', least_batch=2)
def byol(
    encoder: encoders.Network,
    augmentation: Callable,
    momentum: Share = 0.99,
    hidden: Width = 512,
    dim: Width = 128,
) -> Recipe:
    """Trains each view to predict a moving copy's projection of the other view.

    `2 - 2 cos(q1, stop(z2))` and the same of the views exchanged, q = predictor(projector(
    encoder(x))), z = the copy of projector(encoder(x)). Before each step the copy becomes `momentum
    * copy + (1 - momentum) * weights`. In the paper the momentum rises to 1 by a cosine; here it is
    constant. Projector and predictor are two linear layers with BatchNorm and ReLU in between.

    >>> network = encoders.make('resnet18(stem="patch", width=8, stages=(1,))')
    >>> recipe = byol(network, lambda key, image: image, hidden=8, dim=4)
    >>> variables = recipe.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> sorted(variables['params']), sorted(variables['batch_stats']['target'])
    (['encoder', 'predictor', 'projector'], ['encoder', 'projector'])

    Args:
        encoder: the network whose output is the representation.
        augmentation: `(key, image) -> image`.
        momentum: the share of the copy that stays in a step.
        hidden: width of the hidden layers of projector and predictor.
        dim: width of the projection and of the prediction.
    """
    head = f'simsiam_predictor(hidden={hidden}, dim={dim})'
    heads = (('projector', head), ('predictor', head))
    networks = {'encoder': encoder} | {name: encoders.make_head(spec) for name, spec in heads}
    followed = {name: networks[name] for name in FOLLOWED}

    def init(key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
        variables = chain.init(networks, key, inputs)
        copy = {name: jax.tree.map(jnp.copy, variables['params'][name]) for name in FOLLOWED}
        return variables | {'batch_stats': variables['batch_stats'] | {TARGET: copy}}

    def objective(params: Any, batch_stats: Any, batch: dict[str, Any]) -> tuple[jax.Array, Any]:
        now = jax.lax.stop_gradient({name: params[name] for name in FOLLOWED})
        copy = optax.incremental_update(now, batch_stats[TARGET], 1 - momentum)
        predictions, targets = [], []
        for view in batch['views']:  # BatchNorm sees one view at a time
            own, batch_stats = chain.train(networks, params, batch_stats, view)
            other, _ = chain.train(followed, copy, batch_stats, view)
            predictions.append(own['predictor'])
            targets.append(jax.lax.stop_gradient(other['projector']))
        loss = _distance(predictions[0], targets[1]) + _distance(predictions[1], targets[0])
        return loss, (batch_stats | {TARGET: copy}, {})

    return Recipe(init, prepare_two_views(augmentation), objective, heads)


def _distance(prediction: jax.Array, target: jax.Array) -> jax.Array:
    return 2 - 2 * optax.losses.cosine_similarity(prediction, target, epsilon=1e-8).mean()
