"""SimCLR, the paper's method for CIFAR-10 and SVHN.

Chen et al. 2020, arXiv 2002.05709.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_extract import encoders, losses
from ssl_extract.encoders import chain
from ssl_extract.ranges import Positive, Width
from ssl_extract.training import Recipe
from ssl_extract.victims.pretraining.base import prepare_two_views, register

# Section 4.1 and appendix A.1 of arXiv 2205.07890; the temperature is that of the code.
PAPER = dict(
    method='simclr(temperature=0.07, hidden=512, dim=128)',
    augmentation='simclr',
    optimizer='adam(weight_decay=1e-4)',
    schedule='cosine',
    learning_rate=3e-4,
    batch_size=256,
    epochs=200,
)


@register('simclr', least_batch=2)
def simclr(
    encoder: encoders.Network,
    augmentation: Callable,
    temperature: Positive = 0.07,
    hidden: Width = 512,
    dim: Width = 128,
) -> Recipe:
    """Trains two views of an image to attract, and all other views to repel each other (NT-Xent).

    >>> network = encoders.make('resnet18(stem="patch", width=8, stages=(1,))')
    >>> recipe = simclr(network, lambda key, image: image, hidden=8, dim=4)
    >>> recipe.heads
    (('head', 'simclr(hidden=8, dim=4)'),)

    Args:
        encoder: the network whose output is the representation.
        augmentation: `(key, image) -> image`.
        temperature: of the NT-Xent loss.
        hidden: width of the projection head's hidden layer.
        dim: width of the projections.
    """
    heads = (('head', f'simclr(hidden={hidden}, dim={dim})'),)
    networks = {'encoder': encoder} | {name: encoders.make_head(spec) for name, spec in heads}
    nt_xent = losses.make(f'infonce(temperature={temperature})')

    def objective(params: Any, batch_stats: Any, batch: dict[str, Any]) -> tuple[jax.Array, Any]:
        first, second = batch['views']
        both = jnp.concatenate([first, second])  # one forward pass: BatchNorm sees both views
        outputs, batch_stats = chain.train(networks, params, batch_stats, both)
        return nt_xent(*jnp.split(outputs['head'], 2)), (batch_stats, {})

    return Recipe(
        init=lambda key, images: chain.init(networks, key, images),
        prepare=prepare_two_views(augmentation),
        objective=objective,
        heads=heads,
    )
