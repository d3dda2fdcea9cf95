"""Shadows of a victim, trained one by one and kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_extract
from ssl_extract import UserError, encoders, victims
from ssl_extract.encoders import chain
from ssl_extract.training import Recipe

INPUTS = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
RECIPE = dict(encoder='plane', method='contraction', augmentation='none', epochs=1, batch_size=20)


@pytest.fixture(autouse=True)
def recipe(registries_restored):
    """A network and a method that are compiled in no time."""

    @encoders.register('plane')
    def plane():
        def init(key, inputs):
            params = {'kernel': jax.random.normal(key, (inputs.shape[-1], 4))}
            return {'params': params, 'batch_stats': {}}

        def apply(variables, inputs):
            return inputs @ variables['params']['kernel']

        return encoders.Network(init, apply, lambda v, inputs: (apply(v, inputs), {}))

    @victims.VICTIMS.register('contraction')
    def contraction(encoder, augmentation):
        def objective(params, batch_stats, batch):
            outputs, stats = chain.train(networks, params, batch_stats, batch['inputs'])
            return jnp.sum(outputs['encoder'] ** 2), (stats, {})

        networks = {'encoder': encoder}
        return Recipe(
            init=lambda key, inputs: chain.init(networks, key, inputs),
            prepare=lambda batch, key, ask, account: (batch, account, None),
            objective=objective,
        )


def test_each_shadow_is_a_pretraining_on_its_own_half_and_is_kept(tmp_path):
    first = ssl_extract.train_shadows(INPUTS, [3], folder=tmp_path, **RECIPE)
    written = (tmp_path / '3' / 'meta.json').stat().st_mtime_ns
    shadows = ssl_extract.train_shadows(INPUTS, [3, 4], folder=tmp_path, **RECIPE)
    assert (tmp_path / '3' / 'meta.json').stat().st_mtime_ns == written
    assert same(shadows[0], first[0]) and not same(shadows[0], shadows[1])
    half = np.sort(np.random.default_rng(4).permutation(60)[:30])
    assert same(shadows[1], ssl_extract.pretrain(INPUTS[half], seed=4, **RECIPE))
    assert not same(shadows[1], ssl_extract.pretrain(INPUTS[:30], seed=4, **RECIPE))
    with pytest.raises(UserError, match='another call \\(arrays differs\\)'):
        ssl_extract.train_shadows(INPUTS, [4], share=0.6, folder=tmp_path, **RECIPE)


def same(a, b):
    return all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a.variables), jax.tree.leaves(b.variables), strict=True)
    )


@pytest.mark.parametrize(
    ('seeds', 'how', 'said'),
    [
        ([1, 1], {}, 'all different'),
        ([], {}, 'one or more'),
        ([-1], {}, 'seeds'),
        ([1], {'seed': 2}, 'seed: not of one shadow'),
        ([1], {'share': 0.0}, 'share'),
        ([1], {'share': 0.1}, 'batch_size=20 is more than the 6 inputs'),
    ],
)
def test_wrong_arguments_are_refused(seeds, how, said):
    with pytest.raises(UserError, match=said):
        ssl_extract.train_shadows(INPUTS, seeds, **RECIPE | how)
