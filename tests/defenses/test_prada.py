"""The PRADA-style test: its statistic against SciPy, its rule against a row-by-row account."""

import batches
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ssl_extract import defenses
from ssl_extract.defenses import prada, refuse  # noqa: F401  (they register themselves)
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import parallel

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(96, 5)).astype(np.float32)
ROWS[51::2] = ROWS[50::2] + 0.01 * ROWS[51::2]  # repeats: distances of two sizes
WHERE = RNG.random(96) < 0.9


def trimmed(values):
    values = np.asarray(values, np.float64)
    return values[np.abs(values - values.mean()) <= 3 * values.std()]


def by_hand(rows, where, window, capacity, metric):
    """W at each row, NaN where it is not tested, one row after the other with SciPy."""
    past, distances, found = [], [], np.full(len(rows), np.nan)
    for i in np.flatnonzero(where):
        row = rows[i].astype(np.float64)
        if past:
            others = np.array(past[-capacity:])
            if metric == 'l2':
                distances.append(np.linalg.norm(others - row, axis=1).min())
            else:
                lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(row)
                distances.append(1 - (others @ row / lengths).max())
        past.append(row)
        if len(distances) >= window:
            found[i] = scipy.stats.shapiro(trimmed(distances[-window:])).statistic
    return found


def run(spec, rows=ROWS, where=WHERE, batch=16):
    _, granted, state = batches.send(spec, rows, where, batch)
    return granted, state['0_prada']


@pytest.mark.parametrize('n', [20, 50, 128, 1000, 5000])
@pytest.mark.parametrize('draw', ['normal', 'exponential', 'uniform'])
def test_coefficients_give_the_statistic_of_scipy(n, draw):
    values = np.sort(getattr(np.random.default_rng(n), draw)(size=n))
    weights = prada.coefficients(n)
    assert np.sum(weights**2) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(weights, -weights[::-1], atol=1e-12)
    w = (weights @ values) ** 2 / np.sum((values - values.mean()) ** 2)
    assert w == pytest.approx(scipy.stats.shapiro(values).statistic, abs=1e-6)


def test_statistic_is_that_of_scipy_without_the_values_beyond_three_deviations():
    rng = np.random.default_rng(1)
    values = rng.normal(7, 2, size=(8, 60))
    values[1, :3] = 40.0
    values[2] = rng.exponential(size=60)
    values[3] = rng.standard_t(2, size=60)
    values[4, :6] = 1e4  # the most that can lie beyond is 6 of 60
    kept = [trimmed(row) for row in values]
    assert len({len(row) for row in kept}) > 2
    found = jax.jit(prada.trimmed_shapiro(60))(jnp.asarray(values, jnp.float32))
    expected = [scipy.stats.shapiro(row).statistic for row in kept]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_equal_distances_are_not_normal():
    values = jnp.stack([jnp.zeros(30), jnp.full(30, 0.1), jnp.full(30, 3e3)])
    np.testing.assert_allclose(prada.trimmed_shapiro(30)(values), 0, atol=1e-6)


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(('batch', 'capacity'), [(8, 10), (32, 10), (32, 60), (96, 60)])
def test_the_flag_rises_at_the_row_where_it_must(metric, batch, capacity):
    expected = by_hand(ROWS, WHERE, 20, capacity, metric)
    delta = round(float(np.nanmin(expected[:50])) - 0.01, 6)
    raised = np.maximum.accumulate(np.nan_to_num(expected, nan=1.0) < delta)
    assert 50 < np.argmax(raised) < 90
    spec = f'prada(delta={delta}, window=20, capacity={capacity}, metric={metric!r}, then="refuse")'
    granted, state = run(spec, batch=batch)
    np.testing.assert_array_equal(granted, WHERE & ~raised)
    assert bool(state.flagged)
    assert float(state.statistic) == pytest.approx(np.nanmin(expected), abs=1e-3)


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(('offset', 'scale'), [(1e3, 1.0), (0.0, 1e-20), (0.0, 1e19)])
def test_the_statistic_of_answers_far_from_the_origin_and_of_any_scale(metric, offset, scale):
    rows = ((ROWS.astype(np.float64) + offset) * scale).astype(np.float32)
    expected = by_hand(rows / np.float64(scale), WHERE, 20, 10, metric)
    _, state = run(f'prada(delta=0.5, window=20, capacity=10, metric={metric!r})', rows, batch=32)
    assert float(state.statistic) == pytest.approx(np.nanmin(expected), abs=5e-3)


def test_before_the_window_is_full_nothing_is_tested():
    granted, state = run(
        'prada(delta=0.999, window=64, then="refuse")', ROWS[:64], np.ones(64, bool)
    )
    assert granted.all() and not state.flagged and float(state.statistic) == 1
    again, state = run('prada(delta=0.999, window=64, then="refuse")', ROWS[:80], np.ones(80, bool))
    assert again[:64].all() and not again[64:].any() and bool(state.flagged)


def test_normal_distances_pass_and_repeats_do_not():
    """In many dimensions nearest distances of natural queries are nearly normal."""
    rng = np.random.default_rng(3)
    natural = rng.normal(size=(320, 64)).astype(np.float32)
    repeated = natural.copy()
    repeated[1::2] = natural[::2] + 1e-3 * rng.normal(size=(160, 64))
    everything = np.ones(320, bool)
    _, benign = run('prada', natural, everything, batch=64)
    _, attacker = run('prada', repeated, everything, batch=64)
    assert not benign.flagged and float(benign.statistic) > 0.9
    assert bool(attacker.flagged) and float(attacker.statistic) < 0.8


@pytest.mark.devices
def test_accounts_are_stacked_and_the_batch_is_sharded():
    spec = 'prada(delta=0.8, window=20, capacity=30)'
    oracle = make_oracle(lambda inputs: inputs, defenses.make(spec), budget=1000)
    sent = jnp.stack([ROWS[:48], ROWS[48:]])
    state = jax.vmap(oracle.init, in_axes=(0, None))(
        jax.random.split(jax.random.key(0), 2), sent[0]
    )
    mesh = parallel.data_mesh()
    sharded = jax.device_put(sent, jax.NamedSharding(mesh, jax.P(None, 'data')))
    _, state = jax.jit(jax.vmap(oracle.query))(sharded, parallel.replicate(state, mesh))
    for i in range(2):
        expected = by_hand(ROWS[48 * i :][:48], np.ones(48, bool), 20, 30, 'l2')
        found = defenses.noticed(jax.tree.map(lambda x, i=i: x[i], state.defense))
        assert found['prada.statistic'] == pytest.approx(np.nanmin(expected), abs=1e-3)
        assert found['prada.flagged'] == (np.nanmin(expected) < 0.8)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('prada(delta=1.0)', 'delta must be a finite number above 0 and below 1, got 1.0'),
        ('prada(delta="low")', 'delta must be a finite number'),
        ('prada(window=10)', 'window must be a whole number from 20 to 5000'),
        ('prada(capacity=0.5)', 'capacity must be a whole number from 1'),
        ('prada(metric="l1")', "write 'cosine' or 'l2'"),
        ('gaussian_noise | prada', 'prada after gaussian_noise makes no sense'),
        ('prada(then="nothing")', "unknown defense 'nothing'"),
    ],
)
def test_wrong_arguments_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message):
        defenses.make(spec)
