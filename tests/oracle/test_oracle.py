"""The budget is exact, the victim out of reach, and an answer does not depend on the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_extract import defenses, encoders
from ssl_extract.errors import UserError
from ssl_extract.oracle import MAX_BUDGET, make_oracle
from ssl_extract.runtime import parallel

WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
ENCODE = jax.tree_util.Partial(lambda weights, inputs: inputs @ weights, WEIGHTS)
NOISE = defenses.make('gaussian_noise(stddev=1.0)')


def inputs(batch, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, 5)), jnp.float32)


def new(oracle, seed=0):
    return oracle.init(jax.random.key(seed), inputs(1))


query = jax.jit(lambda oracle, batch, state, where=None: oracle.query(batch, state, where))


def simulate(budget, asked):
    """What an account must get, one row after the other: the ledger written by hand."""
    granted, billed, refused = [], 0, 0
    for sent in asked:
        ok = sent and billed < budget
        billed, refused = billed + ok, refused + (sent and not ok)
        granted.append(ok)
    return granted, billed, refused


ORACLES = {budget: make_oracle(ENCODE, NOISE, budget=budget) for budget in (1, 7, 8, 23)}


@settings(max_examples=100, deadline=None)
@given(
    budget=st.sampled_from(list(ORACLES)),
    batches=st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=6),
)
def test_budget_is_exact_whatever_rows_are_sent(budget, batches):
    oracle = ORACLES[budget]
    state, granted = new(oracle), []
    for batch in batches:
        answer, state = query(oracle, inputs(8), state, np.array(batch))
        granted += answer.granted.tolist()
        zero = ~np.any(np.asarray(answer.representations), axis=1)
        np.testing.assert_array_equal(zero, ~np.asarray(answer.granted))
    expected, billed, refused = simulate(budget, sum(batches, []))
    assert granted == expected
    assert (int(state.num_queries), int(state.num_refused)) == (billed, refused)


@pytest.mark.parametrize('budget', [1, 16, 137])
def test_budget_is_exact_under_scan(budget):
    oracle = make_oracle(ENCODE, NOISE, budget=budget)
    batches = jnp.stack([inputs(16, seed) for seed in range(10)])

    def step(state, batch):
        answer, state = oracle.query(batch, state)
        return state, answer.granted

    state, granted = jax.jit(lambda s: jax.lax.scan(step, s, batches))(new(oracle))
    assert int(state.num_queries) == min(budget, 160) == int(granted.sum())
    assert int(state.num_refused) == 160 - min(budget, 160)


def test_accounts_are_vmapped_states():
    oracle = make_oracle(ENCODE, NOISE, budget=10)
    keys = jax.random.split(jax.random.key(0), 3)
    states = jax.vmap(lambda key: oracle.init(key, inputs(1)))(keys)
    batches = jnp.stack([inputs(6)] * 3)
    where = jnp.array([[True] * 6, [True] * 6, [False] * 5 + [True]])
    ask = jax.jit(jax.vmap(oracle.query))
    first, states = ask(batches, states, where)
    _, states = ask(batches, states, where)
    assert states.num_queries.tolist() == [10, 10, 2]
    assert states.num_refused.tolist() == [2, 2, 0]
    assert not np.allclose(first.representations[0], first.representations[1])  # noise of their own
    for i in range(3):  # an account in a stack gets what it would get alone
        alone, _ = oracle.query(batches[i], oracle.init(keys[i], inputs(1)), where[i])
        np.testing.assert_allclose(alone.representations, first.representations[i], rtol=1e-6)


@pytest.mark.devices
def test_budget_counts_over_all_devices():
    mesh = parallel.data_mesh()
    assert mesh.size == 4
    oracle = make_oracle(ENCODE, NOISE, budget=30)
    sharded = jax.device_put(inputs(16), parallel.batch_sharding(mesh))
    one, four = new(oracle), new(oracle)
    for _ in range(3):
        expected, one = query(oracle, inputs(16), one)
        answer, four = query(oracle, sharded, four)
        np.testing.assert_array_equal(answer.granted, expected.granted)
        np.testing.assert_allclose(
            answer.representations, expected.representations, rtol=1e-5, atol=1e-6
        )
    assert int(four.num_queries) == 30 and int(four.num_refused) == 18


def test_answers_do_not_depend_on_the_batches():
    oracle = make_oracle(ENCODE, NOISE, budget=20)
    whole, _ = oracle.query(inputs(24), new(oracle))
    state, rows = new(oracle), []
    for start, stop in [(0, 1), (1, 9), (9, 24)]:
        answer, state = oracle.query(inputs(24)[start:stop], state)
        rows.append(answer.representations)
    np.testing.assert_allclose(np.concatenate(rows), whole.representations, rtol=1e-5, atol=1e-6)


def test_restart_from_a_saved_account_goes_on_exactly():
    oracle = make_oracle(ENCODE, NOISE, budget=20)
    _, state = oracle.query(inputs(12), new(oracle))
    saved = [np.asarray(leaf) for leaf in (state.num_queries, state.num_refused)]
    again = new(oracle)._replace(
        num_queries=jnp.asarray(saved[0]), num_refused=jnp.asarray(saved[1])
    )
    a, b = oracle.query(inputs(12), state)[0], oracle.query(inputs(12), again)[0]
    np.testing.assert_array_equal(a.representations, b.representations)
    assert int(a.granted.sum()) == 8


@pytest.mark.parametrize('defense', ['', 'gaussian_noise', 'round | gaussian_noise(mean=1.0)'])
def test_no_gradient_reaches_the_victim_or_the_inputs(defense):
    def answered(weights, batch):
        encode = jax.tree_util.Partial(lambda w, x: x @ w, weights)
        oracle = make_oracle(encode, defenses.make(defense), budget=4)
        answer, _ = oracle.query(batch, oracle.init(jax.random.key(0), batch))
        return jnp.sum(answer.representations**2)

    for gradient in jax.grad(answered, argnums=(0, 1))(WEIGHTS, inputs(8)):
        np.testing.assert_array_equal(gradient, 0)


def test_a_closed_over_victim_gets_no_gradient_either():
    def answered(weights):
        oracle = make_oracle(lambda x: x @ weights, budget=4)
        return jnp.sum(oracle.query(inputs(4), new(oracle))[0].representations)

    np.testing.assert_array_equal(jax.grad(answered)(WEIGHTS), 0)


def test_asking_never_changes_the_victims_batch_statistics():
    network = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
    images = jnp.asarray(np.random.default_rng(0).random((6, 8, 8, 3)), jnp.float32)
    variables = network.init(jax.random.key(0), images)
    before = jax.tree.map(np.array, variables)
    oracle = make_oracle(jax.tree_util.Partial(network.apply, variables), budget=100)
    state = oracle.init(jax.random.key(0), images)
    first, state = query(oracle, images, state)
    second, state = query(oracle, images[::-1], state)
    assert jax.tree.leaves(before['batch_stats'])
    jax.tree.map(np.testing.assert_array_equal, before, variables)
    np.testing.assert_allclose(first.representations, second.representations[::-1], rtol=1e-5)


def test_an_oracle_is_compiled_once_and_holds_no_constants():
    oracle = make_oracle(ENCODE, NOISE, budget=50)
    traced = 0

    @jax.jit
    def step(oracle, batch, state):
        nonlocal traced
        traced += 1
        return oracle.query(batch, state)

    state = new(oracle)
    for _ in range(3):
        _, state = step(oracle, inputs(4), state)
    assert traced == 1
    text = step.lower(oracle, inputs(4), state).as_text()
    assert 'dense<"0x' not in text  # the victim's weights are an argument


def test_the_callers_key_survives_a_donated_account():
    oracle, key = make_oracle(ENCODE, NOISE, budget=5), jax.random.key(0)
    state = oracle.init(key, inputs(1))
    donate = jax.jit(lambda state: oracle.query(inputs(2), state)[1], donate_argnums=0)
    donate(donate(state))
    jax.random.normal(key)


@pytest.mark.parametrize('budget', [0, -1, 2.5, True, '9', MAX_BUDGET + 1, 10**12])
def test_a_wrong_budget_is_refused(budget):
    with pytest.raises(UserError, match='budget must be a whole number from 1 to'):
        make_oracle(ENCODE, budget=budget)
