"""RDA: refine, discriminate and align.

"Refine, Discriminate and Align" (Wu et al., ECCV 2024, arXiv 2312.00855).

*Refine*: the prototype of an image is the mean of the normalized answers to m views of the image
(and so shorter than 1); these views are the only queries. *Discriminate and align*: the surrogate
sees several other views of an image in every step. Each output is contrasted with the prototypes
and outputs of other images, and aligned with the image's prototype in direction and length (the
loss `rda`).
"""

import jax
import jax.numpy as jnp

from ssl_extract import augment, losses
from ssl_extract.attacks.base import Attack, Views, objective, register, stacked
from ssl_extract.training import Recipe

# The views of the authors' code: 90 % of the image's area for queries, 75 % for the surrogate.
_VIEWS = (
    'random_resized_crop(scale=({0}, {0}), ratio=(1.0, 1.0)) | flip'
    ' | color_jitter(0.4, 0.4, 0.4, 0.2, p=0.8) | grayscale(p=0.2)'
    ' | gaussian_blur(sigma=(0.1, 2.0), p=0.1) | solarize(p=0.1)'
)
ONLINE_VIEWS = 10  # of each image in a step, under the plan `online`


@register(
    'rda',
    plan='views(m=10)',
    loss='rda(temperature=0.07, alpha=1.0, beta=1.0)',
    query_augmentation=_VIEWS.format(0.9),
    student_augmentation=_VIEWS.format(0.75),
    budget=25_000,  # 2,500 images, ten views of each
    epochs=100,
    batch_size=100,
    optimizer='adam(weight_decay=1e-4)',
    schedule='constant',
    learning_rate=1e-3,
)
def rda(student, plan, loss, student_augmentation, views: Views = 5) -> Attack:
    """Trains several of the surrogate's views of an image against the image's prototype.

    >>> from ssl_extract import attacks
    >>> attacks.preset('rda')['plan']
    'views(m=10)'

    Args:
        views: number of the surrogate's views of an image in a step.

    Raises:
        UserError: `views` is not a whole number above 0.
    """
    asks = plan.stored or ONLINE_VIEWS

    def prepare(batch, key, ask, account):
        query_key, *keys = jax.random.split(key, 1 + views)
        answered = plan.ask(batch, query_key, ask, account, asks)
        plain = batch['inputs']
        seen = jnp.stack([augment.views(student_augmentation, k, plain) for k in keys])
        batch = batch | {
            'inputs': stacked(seen),
            'answers': prototypes(answered.answers, answered.where),
            'where': jnp.any(answered.where, axis=0),
        }
        return batch, answered.account, answered.ledger

    mean = objective(student, loss, weights=(1 / views,) * views)
    return Attack(Recipe(student.init, prepare, mean, student.heads), asks=asks)


def prototypes(answers: jax.Array, where: jax.Array) -> jax.Array:
    """Averages the normalized answers [K, B, D] marked by `where` bool[K, B] to [B, D]."""
    unit = jnp.where(where[..., None], jax.vmap(losses.normalize)(answers), 0)
    return jnp.sum(unit, axis=0) / jnp.maximum(jnp.sum(where, axis=0), 1)[:, None]
