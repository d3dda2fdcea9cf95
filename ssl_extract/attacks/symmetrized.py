"""Symmetrized extraction: SimSiam with the victim as one branch.

The `symmetrized` loss of arXiv 2205.07890, section 3.3, on SimSiam's form (Chen and He 2021, arXiv
2011.10566): for two views x1, x2 of an image, the surrogate f, a projector h and a predictor p,

    L = -1/2 [ cos(p(h(f(x1))), stop(h(victim(x2)))) + cos(p(h(f(x2))), stop(h(victim(x1)))) ].
"""

import jax
import jax.numpy as jnp

from ssl_extract import encoders
from ssl_extract.attacks.base import Attack, register, stacked
from ssl_extract.encoders import chain
from ssl_extract.ranges import Width
from ssl_extract.training import Recipe


@register(
    'symmetrized',
    least_batch=2,  # for the projector's BatchNorm two views of one input are opposite
    plan='views(m=2)',
    loss='symmetrized',
    query_augmentation='simclr',
    budget=9_000,  # 4,500 images, two views of each
    epochs=100,
    batch_size=256,
    optimizer='sgd(momentum=0.9, weight_decay=1e-4)',
    schedule='cosine',
    learning_rate=0.05,
)
def symmetrized(
    student, answer_dim, plan, loss, hidden: Width = 512, dim: Width = 512, bottleneck: Width = 128
) -> Attack:
    """Trains each view to predict the projection of the victim's answer to the other view.

    The projector receives the surrogate's outputs and, without gradient, the victim's answers.

    >>> from ssl_extract import attacks
    >>> attacks.preset('symmetrized')['loss']
    'symmetrized'

    Args:
        hidden: width of the projector's hidden layers.
        dim: width of projection and prediction.
        bottleneck: width of the predictor's hidden layer.
    """
    specs = (
        ('projector', f'simsiam_projector(hidden={hidden}, dim={dim})'),
        ('predictor', f'simsiam_predictor(hidden={bottleneck}, dim={dim})'),
    )
    heads = {name: encoders.make_head(spec) for name, spec in specs}

    def init(key, inputs):
        first, second = jax.random.split(key)
        behind = chain.init(heads, second, jnp.zeros((1, answer_dim)))
        return chain.merge(student.init(first, inputs), behind)

    def prepare(batch, key, ask, account):
        answered = plan.ask(batch, key, ask, account, 2)
        where = answered.where[0] & answered.where[1]
        batch = {
            'inputs': stacked(answered.queries),
            'answers': jnp.where(where[:, None], answered.answers, _mean(answered.answers, where)),
            'where': where,
        }
        return batch, answered.account, answered.ledger

    def objective(params, batch_stats, batch):
        answers = stacked(batch['answers'][::-1])  # each view meets the answer to the other
        held = jax.lax.stop_gradient(
            chain.part({'params': params, 'batch_stats': batch_stats}, 'projector')
        )
        targets, _ = heads['projector'].train(held, answers)
        outputs, batch_stats = student.train(params, batch_stats, batch['inputs'])
        outputs, batch_stats = chain.train(heads, params, batch_stats, outputs)
        where = jnp.tile(batch['where'], 2)
        return loss(outputs['predictor'], targets, where=where), (batch_stats, {})

    return Attack(Recipe(init, prepare, objective, student.heads + specs), asks=2)


def _mean(answers: jax.Array, where: jax.Array) -> jax.Array:
    """Averages the answers over answered pairs, [D].

    The mean takes the place of rows without answer, so that these rows move no mean in the
    projector's BatchNorm.
    """
    total = jnp.sum(jnp.where(where[:, None], answers, 0), axis=(0, 1))
    return total / jnp.maximum(2 * jnp.sum(where), 1)
