"""SimSiam, the method of the paper's ImageNet victim.

Chen and He 2021, arXiv 2011.10566.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from ssl_extract import encoders
from ssl_extract.encoders import chain
from ssl_extract.ranges import Width
from ssl_extract.training import Recipe
from ssl_extract.victims.pretraining.base import prepare_two_views, register

# The authors' CIFAR-10 settings (appendix D of arXiv 2011.10566): SGD, rate 0.03 at batch 512, 800
# epochs, no blur; the projector there has two layers, here three as in the main text.
PAPER = dict(
    method='simsiam(hidden=2048, dim=2048, bottleneck=512)',
    augmentation='random_resized_crop(scale=(0.2, 1.0)) | flip'
    ' | color_jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)'
    ' | grayscale(p=0.2)',
    optimizer='sgd(momentum=0.9, weight_decay=5e-4)',
    schedule='cosine',
    learning_rate=0.03,
    batch_size=512,
    epochs=800,
)


@register('simsiam', least_batch=2)
def simsiam(
    encoder: encoders.Network,
    augmentation: Callable,
    hidden: Width = 2048,
    dim: Width = 2048,
    bottleneck: Width = 512,
) -> Recipe:
    """Trains each view to predict the constant projection of the other view, without negatives.

    `-1/2 [cos(p1, stop(z2)) + cos(p2, stop(z1))]`, z = projector(encoder(x)), p = predictor(z).

    >>> network = encoders.make('resnet18(stem="patch", width=8, stages=(1,))')
    >>> recipe = simsiam(network, lambda key, image: image, hidden=8, dim=4, bottleneck=2)
    >>> [name for name, spec in recipe.heads]
    ['projector', 'predictor']

    Args:
        encoder: the network whose output is the representation.
        augmentation: `(key, image) -> image`.
        hidden: width of the projector's hidden layers.
        dim: width of the projection z and of the prediction p.
        bottleneck: width of the predictor's hidden layer.
    """
    heads = (
        ('projector', f'simsiam_projector(hidden={hidden}, dim={dim})'),
        ('predictor', f'simsiam_predictor(hidden={bottleneck}, dim={dim})'),
    )
    networks = {'encoder': encoder} | {name: encoders.make_head(spec) for name, spec in heads}

    def objective(params: Any, batch_stats: Any, batch: dict[str, Any]) -> tuple[jax.Array, Any]:
        outputs = []
        for view in batch['views']:  # BatchNorm sees one view at a time, as in the authors' code
            output, batch_stats = chain.train(networks, params, batch_stats, view)
            outputs.append(output)
        first, second = outputs
        loss = 0.5 * _negative_cosine(first['predictor'], second['projector'])
        loss += 0.5 * _negative_cosine(second['predictor'], first['projector'])
        return loss, (batch_stats, {})

    return Recipe(
        init=lambda key, images: chain.init(networks, key, images),
        prepare=prepare_two_views(augmentation),
        objective=objective,
        heads=heads,
    )


def _negative_cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
    target = jax.lax.stop_gradient(target)
    return -optax.losses.cosine_similarity(prediction, target, epsilon=1e-8).mean()
