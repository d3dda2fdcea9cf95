"""Suspects of known truth: what each obfuscation changes, and what it leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from ssl_extract import encoders
from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.ownership import retrained  # noqa: F401  (registers itself)
from ssl_extract.ownership.represented import represent_of
from ssl_extract.ownership.suspects import OBFUSCATIONS, obfuscate
from ssl_extract.runtime import parallel

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(64, 6)).astype(np.float32)


@pytest.fixture(scope='module', autouse=True)
def dense():
    """A network of one layer, which is compiled in no time."""

    def dense_of_suspects(width: int = 5) -> encoders.Network:
        def init(key, inputs):
            kernel = jax.random.normal(key, (inputs.shape[-1], width)) / 2
            params = {'kernel': kernel, 'bias': jnp.full(width, 0.1)}
            return {'params': params, 'batch_stats': {'mean': jnp.full(inputs.shape[-1], 0.2)}}

        def apply(variables, inputs):
            params, mean = variables['params'], variables['batch_stats']['mean']
            return (inputs - mean[None]) @ params['kernel'] + params['bias'][None]

        return encoders.Network(init, apply, lambda v, x: (apply(v, x), v['batch_stats']))

    encoders.register('dense_of_suspects')(dense_of_suspects)
    yield
    del encoders.ENCODERS.entries['dense_of_suspects']


@pytest.fixture(scope='module')
def encoder(dense):
    spec = 'dense_of_suspects(width=5)'
    variables = trained.make(spec).init(jax.random.key(0), jax.ShapeDtypeStruct((1, 6), 'f4'))
    return Encoder(spec, variables, (6,))


def weights(encoder):
    return [np.asarray(x) for x in jax.tree.leaves(encoder.variables['params']) if x.ndim > 1]


def others(encoder):
    kept = [x for x in jax.tree.leaves(encoder.variables['params']) if x.ndim < 2]
    return [np.asarray(x) for x in [*kept, *jax.tree.leaves(encoder.variables['batch_stats'])]]


def plain(inputs):
    return inputs[:, :4]


def answers(chain, inputs=INPUTS, seed=0):
    return obfuscate(chain, plain, seed=seed)(inputs)


def test_weights_are_noised_pruned_and_rounded_and_norms_are_left(encoder):
    noised, pruned, rounded = (
        obfuscate(chain, encoder)
        for chain in ('noise(scale=0.1)', 'prune(share=0.25)', 'quantize(bits=4)')
    )
    for before, after in zip(weights(encoder), weights(noised), strict=True):
        share = np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2))
        assert share == pytest.approx(0.1, rel=0.5)
    for before, after in zip(weights(encoder), weights(pruned), strict=True):
        cut = after == 0
        assert np.sum(cut) == round(0.25 * before.size)
        assert np.abs(before[cut]).max() <= np.abs(before[~cut]).min()
        np.testing.assert_array_equal(after[~cut], before[~cut])
    for before, after in zip(weights(encoder), weights(rounded), strict=True):
        assert len(np.unique(after)) <= 15
        assert np.abs(after - before).max() <= np.abs(before).max() / 7 * 0.501
    for changed in (noised, pruned, rounded):
        np.testing.assert_equal(others(changed), others(encoder))


def test_int8_hardly_moves_the_answers(encoder):
    before, after = (represent_of(e)(INPUTS) for e in (encoder, obfuscate('quantize', encoder)))
    assert 0 < np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_an_all_zero_array_stays_zero(encoder):
    params = jax.tree.map(np.zeros_like, encoder.variables['params'])
    empty = encoder._replace(variables=encoder.variables | {'params': params})
    for chain in ('noise', 'prune', 'quantize'):
        assert not any(array.any() for array in weights(obfuscate(chain, empty)))


def test_a_permutation_keeps_every_column():
    features = answers('permute')
    assert sorted(map(tuple, features.T)) == sorted(map(tuple, INPUTS[:, :4].T))
    assert not np.array_equal(features, INPUTS[:, :4])


def test_padding_adds_columns_that_are_constant_or_noise():
    constant, noise = answers('pad(count=3)'), answers('pad(count=300, constant=False, scale=2.0)')
    assert constant.shape == (64, 7) and np.sum(np.ptp(constant, axis=0) == 0) == 3
    columns = {tuple(column) for column in INPUTS[:, :4].T}
    added = np.array([column for column in noise.T if tuple(column) not in columns])
    assert added.shape == (300, 64) and added.std() == pytest.approx(2.0, rel=0.05)
    correlations = np.corrcoef(added.T)[np.triu_indices(64, 1)]
    assert np.abs(correlations).max() < 0.3  # each input has noise of its own


def test_noise_of_an_input_is_the_same_in_any_set():
    order = RNG.permutation(64)
    chain = 'pad(count=5, constant=False)'
    np.testing.assert_array_equal(answers(chain)[order], answers(chain, INPUTS[order]))


def test_a_rotation_keeps_distances_and_a_scaling_does_not():
    grams = [x @ x.T for x in (INPUTS[:, :4], answers('rotate'), answers('scale(shift=0.0)'))]
    np.testing.assert_allclose(grams[1], grams[0], atol=1e-5)
    assert np.abs(grams[2] - grams[0]).max() > 0.5
    assert np.abs(answers('rotate') - INPUTS[:, :4]).max() > 0.5


def test_an_affine_map_is_undone_by_least_squares():
    moved = answers('rotate | scale(spread=3.0) | rotate')
    assert LinearRegression().fit(moved, INPUTS[:, :4]).score(moved, INPUTS[:, :4]) > 0.99999


def test_draws_differ_by_seed_and_by_place():
    first, again, other = (answers('permute | rotate', seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    twice = answers('scale(spread=1.0) | scale(spread=1.0)') - INPUTS[:, :4]
    once = answers('scale(spread=1.0)') - INPUTS[:, :4]
    assert np.abs(twice - 2 * once).max() > 0.1


def test_fine_tuning_starts_from_the_weights_and_moves_them(encoder):
    chain = "fine_tune(2, {}, 'simclr(hidden=8, dim=4)', augmentation='')"
    kept = weights(encoder)
    small, large = (obfuscate(chain.format(rate), encoder, inputs=INPUTS) for rate in (1e-4, 1e-2))
    moved = [
        max(np.abs(a - b).max() for a, b in zip(kept, weights(e), strict=True))
        for e in (small, large)
    ]
    assert 0 < moved[0] < 1e-3 < moved[1] < 0.1  # Adam moves a weight by the rate in a step
    np.testing.assert_equal(weights(encoder), kept)


@pytest.mark.devices
def test_fine_tuning_takes_an_encoder_that_was_trained_on_several_devices(encoder):
    mesh = parallel.data_mesh(4)
    spread = encoder._replace(variables=parallel.replicate(encoder.variables, mesh))
    chain = "fine_tune(2, 1e-3, 'simclr(hidden=8, dim=4)', augmentation='')"
    found = [weights(obfuscate(chain, each, inputs=INPUTS)) for each in (encoder, spread)]
    np.testing.assert_array_equal(*found)


def test_distillation_gives_another_network_that_agrees(encoder):
    chain = "rotate | distill('dense_of_suspects(width=7)', steps=100, learning_rate=0.05)"
    copy = obfuscate(chain, encoder, inputs=INPUTS)
    assert copy.dim == 7 and encoder.dim == 5
    before, after = represent_of(encoder)(INPUTS), represent_of(copy)(INPUTS)
    assert LinearRegression().fit(after, before).score(after, before) > 0.99


@pytest.mark.parametrize(
    ('chain', 'said'),
    [
        ('rotate | prune', "'prune' changes weights, and there are none before it"),
        ('fine_tune', "trains: give the attacker's inputs"),
        ('prune(share=1.5)', 'share'),
        ('shave', 'unknown obfuscation'),
    ],
)
def test_wrong_chains_are_refused_before_anything_is_made(encoder, chain, said):
    with pytest.raises(UserError, match=said):
        obfuscate(chain, encoder)


def test_a_batch_needs_its_inputs(encoder):
    with pytest.raises(UserError, match='batch_size=64 is more than the 9 inputs'):
        obfuscate('fine_tune', encoder, inputs=INPUTS[:9])


def test_answers_that_overflow_are_an_error():
    with pytest.raises(UserError, match='hold NaN'):
        obfuscate('scale(spread=1e6)', lambda inputs: 1e37 * np.tile(inputs, 5))(INPUTS)


def test_traits_say_what_an_obfuscation_gives():
    given = {name: OBFUSCATIONS.traits(name).gives for name in OBFUSCATIONS if name != 'distill'}
    assert {name for name, gives in given.items() if gives == 'encoder'} == {
        'noise',
        'prune',
        'quantize',
        'fine_tune',
    }
