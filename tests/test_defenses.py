"""The contract of every registered defense, the chain, and what each one does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ssl_extract import defenses
from ssl_extract.errors import UserError

OUTPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(16, 6)), jnp.float32)
INPUTS = jnp.zeros((16, 4, 4, 3))
WHERE = jnp.arange(16) < 11
KEYS = jax.random.split(jax.random.key(7), 16)
CHAINS = [*defenses.DEFENSES, '', 'gaussian_noise(stddev=0.5) | round(decimals=1)']


def run(spec, outputs=OUTPUTS, keys=KEYS, where=WHERE):
    defense = defenses.make(spec)
    state = defense.init(outputs, INPUTS[: len(outputs)])
    return defense.apply(outputs, state, inputs=INPUTS[: len(outputs)], where=where, keys=keys)


@pytest.mark.parametrize('spec', CHAINS)
def test_contract(spec):
    defense = defenses.make(spec)
    state = defense.init(OUTPUTS, INPUTS)
    shapes = jax.eval_shape(lambda: (OUTPUTS, INPUTS))
    from_shapes = defense.init(*shapes)
    assert jax.tree.structure(state) == jax.tree.structure(from_shapes)
    outputs, new = run(spec)
    assert outputs.shape[0] == 16 and bool(jnp.all(jnp.isfinite(outputs)))
    assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    jitted = jax.jit(lambda o, s, k: defense.apply(o, s, inputs=INPUTS, where=WHERE, keys=k))
    np.testing.assert_allclose(jitted(OUTPUTS, state, KEYS)[0], outputs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('spec', CHAINS)
def test_rows_do_not_depend_on_the_batch(spec):
    outputs, _ = run(spec)
    part, _ = run(spec, OUTPUTS[4:7], KEYS[4:7], WHERE[4:7])
    np.testing.assert_allclose(part, outputs[4:7], rtol=1e-6, atol=1e-6)


def test_chain_is_its_parts_in_the_written_order():
    first, second = defenses.make('gaussian_noise(stddev=0.3)'), defenses.make('round(1)')
    outputs, _ = run('gaussian_noise(stddev=0.3) | round(1)')
    empty = defenses.EmptyState()
    folded = jax.vmap(lambda key: jax.random.fold_in(key, 0))(KEYS)
    by_hand, _ = defenses.DEFENSES['gaussian_noise'](stddev=0.3).apply(
        OUTPUTS, empty, inputs=INPUTS, where=WHERE, keys=folded
    )
    np.testing.assert_array_equal(outputs, jnp.round(by_hand, 1))
    reverse, _ = run('round(1) | gaussian_noise(stddev=0.3)')
    assert not np.allclose(reverse, jnp.round(reverse, 1))
    assert set(first.init(OUTPUTS, INPUTS)) == {'0_gaussian_noise'}
    assert set(second.init(OUTPUTS, INPUTS)) == {'0_round'}


def test_the_same_defense_twice_draws_twice():
    outputs, _ = run('gaussian_noise | gaussian_noise', jnp.zeros((16, 4000)))
    assert np.std(outputs) == pytest.approx(2**0.5, rel=0.02)


def test_empty_chain_is_the_identity():
    np.testing.assert_array_equal(run('')[0], OUTPUTS)


def test_gaussian_noise_has_the_stated_distribution():
    keys = jax.random.split(jax.random.key(1), 400)
    noisy, _ = run_many(keys)
    assert scipy.stats.kstest((noisy.ravel() - 10) / 2, 'norm').pvalue > 0.01
    correlation = np.corrcoef(noisy[:-1].ravel(), noisy[1:].ravel())[0, 1]
    assert abs(correlation) < 0.02


def run_many(keys):
    defense = defenses.make('gaussian_noise(mean=10.0, stddev=2.0)')
    outputs, inputs = jnp.zeros((len(keys), 50)), jnp.zeros((len(keys), 1))
    state = defense.init(outputs, inputs)
    where = jnp.ones(len(keys), bool)
    noisy, state = defense.apply(outputs, state, inputs=inputs, where=where, keys=keys)
    return np.asarray(noisy), state


def test_round_rounds():
    outputs, _ = run('round(decimals=1)')
    np.testing.assert_allclose(outputs, np.round(np.asarray(OUTPUTS), 1), atol=1e-6)
    np.testing.assert_array_equal(run('round(decimals=-1)')[0], 0)


def test_a_defense_may_change_the_width():
    @defenses.DEFENSES.register('first_two')
    def first_two():
        return defenses.stateless(lambda outputs, keys: outputs[:, :2])

    try:
        outputs, _ = run('first_two | gaussian_noise(stddev=0.0)')
        np.testing.assert_array_equal(outputs, OUTPUTS[:, :2])
    finally:
        del defenses.DEFENSES['first_two']


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('gausian_noise', "did you mean 'gaussian_noise'"),
        ('gaussian_noise(std=1)', r'it takes \(mean: float = 0.0, stddev: float = 1.0\)'),
        ('gaussian_noise(stddev=-1.0)', 'stddev must be 0 or more'),
        ('round(decimals=0.5)', 'decimals must be a whole number'),
        ('round |', 'cannot read'),
        ('round(decimals=x)', 'an argument is a number'),
    ],
)
def test_wrong_specs_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message):
        defenses.make(spec)
