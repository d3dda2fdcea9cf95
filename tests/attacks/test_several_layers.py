"""Extraction from several layers: what is learned of which layer, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import attacks, augment, encoders, losses
from ssl_extract.attacks import several_layers
from ssl_extract.errors import UserError

WIDTHS = (3, 1, 2)


def make(spec):
    return attacks.make(
        spec,
        encoder=encoders.make('resnet18(stem="patch", width=4, stages=(1,))'),
        answer_dim=sum(WIDTHS),
        plan=attacks.PLANS.make('once'),
        loss=losses.l1_cosine(),
        student_augmentation=augment.make(''),
    )


@pytest.mark.parametrize('chosen', [(0, 1, 2), (2, 0)])
def test_the_loss_is_the_mean_over_the_chosen_layers(chosen):
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(5, width)).astype(np.float32) for width in WIDTHS]
    told = [rng.normal(size=(5, WIDTHS[layer])).astype(np.float32) for layer in chosen]
    loss = several_layers._of_layers(losses.mse(), WIDTHS, chosen)
    where = np.array([True, True, False, True, True])
    got = loss(np.concatenate(told, 1), np.concatenate(layers, 1), where=where)
    each = [np.mean((mine - layers[i])[where] ** 2) for mine, i in zip(told, chosen, strict=True)]
    assert float(got) == pytest.approx(np.mean(each), rel=1e-5)


def test_a_head_stands_behind_the_surrogate_as_wide_as_what_is_learned():
    attack = make(f'several_layers(widths={WIDTHS}, take=(0, 2))')
    variables = attack.recipe.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    shapes = {leaf.shape for leaf in jax.tree.leaves(variables['params']['layers'])}
    assert shapes == {(4, 5), (5,)}


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('several_layers(widths=(3, 2))', 'have 5 numbers together, and the answers 6'),
        (f'several_layers(widths={WIDTHS}, take=(3,))', 'write different layers from 0 to 2'),
        (f'several_layers(widths={WIDTHS}, take=(1, 1))', 'write different layers from 0 to 2'),
    ],
)
def test_layers_that_are_not_there_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        make(spec)
