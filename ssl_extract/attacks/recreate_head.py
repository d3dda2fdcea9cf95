"""Extraction through a projection head that is trained on the answers.

Algorithm 2 of arXiv 2205.07890: the victim's head is not accessible, so a head g is trained first
on the victim's representations of two views, as the victim's head was: views of an image attract
each other. Then the surrogate f is trained to minimize `loss(g(f(x1)), g(victim(x2)))` with g
fixed.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from ssl_extract import encoders, losses
from ssl_extract.attacks.base import Attack, register, stacked
from ssl_extract.encoders import chain
from ssl_extract.errors import UserError
from ssl_extract.ranges import Positive, Range
from ssl_extract.training import Recipe


@register(
    'recreate_head',
    least_batch=lambda head_loss, **_: losses.LOSSES.traits(head_loss).least_batch,
    plan='views(m=2)',
    loss='infonce(temperature=0.07)',
    query_augmentation='simclr',
    budget=9_000,  # 4,500 images, two views of each
    epochs=100,
    batch_size=256,
    optimizer='adam(weight_decay=1e-4)',
    schedule='cosine',
    learning_rate=3e-4,
)
def recreate_head(
    student,
    answer_dim,
    plan,
    loss,
    head: str = 'simclr(hidden=512, dim=128)',
    predictor: str = '',
    head_loss: str = 'infonce(temperature=0.07)',
    head_epochs: Annotated[float, Range(above=0, most=100)] = 2.0,
    head_learning_rate: Positive = 1e-3,
) -> Attack:
    """Trains a head on pairs of answers, then the surrogate through the head.

    Both losses of the paper (infonce, mse) are choices of `attack.loss`.

    >>> from ssl_extract import attacks
    >>> attacks.preset('recreate_head')['plan']
    'views(m=2)'

    Args:
        head: the network to recreate; SimSiam's is `simsiam_projector(hidden=512, dim=512)`.
        predictor: '' compares projections with projections. A network predicts the projection of
            one view from that of the other view, which gets no gradient then (as in SimSiam, with
            `head_loss="symmetrized"`).
        head_loss: between the projections of the two views.
        head_epochs: length of the head's training, in multiples of `attack.epochs`.
        head_learning_rate: of the head's training, at its start. The reference code trains the head
            at 1e-3 and the surrogate at 3e-4, which is `attack.learning_rate`.

    Raises:
        UserError: the plan does not store two views of an image, or the rate is not above 0.
    """
    if plan.stored < 2:
        raise UserError(
            'recreate_head trains its head on the answers to two views of an input: write '
            "attack.plan='views(m=2)'"
        )
    networks = {'head': encoders.make_head(head)}
    if predictor:
        networks['predictor'] = encoders.make_head(predictor)
    compare = losses.make(head_loss)

    def prepare(batch, key, ask, account):
        answered = plan.ask(batch, key, ask, account, 2)
        views = {
            'inputs': answered.queries[0],
            'pair': answered.answers,
            'answers': answered.answers[1],
            'where': answered.where[0] & answered.where[1],
        }
        return batch | views, answered.account, answered.ledger

    def head_objective(params, batch_stats, batch):
        outputs, batch_stats = chain.train(networks, params, batch_stats, stacked(batch['pair']))
        first, second = jnp.split(outputs['head'], 2)
        if predictor:
            ahead, back = jnp.split(outputs['predictor'], 2)
            pairs = [(ahead, jax.lax.stop_gradient(second)), (back, jax.lax.stop_gradient(first))]
        else:
            pairs = [(first, second)]
        values = [compare(*pair, where=batch['where']) for pair in pairs]
        return jnp.mean(jnp.stack(values)), (batch_stats, {})

    def objective(params, batch_stats, batch):
        outputs, batch_stats = student.train(params, batch_stats, batch['inputs'])
        project = networks['head'].apply
        frozen = batch_stats['head']  # from the phase before
        value = loss(
            project(frozen, outputs),
            project(frozen, batch['answers']),
            labels=batch.get('labels'),
            where=batch['where'],
        )
        return value, (batch_stats, {})

    before = Recipe(
        init=lambda key, images: chain.init(networks, key, jnp.zeros((1, answer_dim))),
        prepare=prepare,
        objective=head_objective,
    )
    recipe = Recipe(student.init, prepare, objective, student.heads)
    return Attack(recipe, 2, before, head_epochs, head_learning_rate)
