"""B4B's buckets, its coverage at every query, and the noise that follows it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ssl_extract import defenses
from ssl_extract.defenses.buckets import buckets_of, fill
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import parallel

SMALL = 'bucket_coverage(bits=4, tables=3, alpha=2.0, beta=0.5, lambda_=0.01)'
RNG = np.random.default_rng(0)
OUTPUTS = jnp.asarray(np.abs(RNG.normal(size=(48, 6))), jnp.float32)
WHERE = jnp.asarray(RNG.random(48) < 0.8)
KEYS = jax.random.split(jax.random.key(7), 48)


def start(defense, outputs=OUTPUTS):
    return defense.init(jax.random.key(0), outputs, jnp.zeros((len(outputs), 1)))


def run(defense, state, rows=slice(None), where=WHERE):
    apply = jax.jit(defense.apply)
    return apply(OUTPUTS[rows], state, inputs=None, where=where[rows], keys=KEYS[rows])


def alike(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), first, second)


@pytest.mark.parametrize('center', [False, True])
def test_a_plane_separates_two_vectors_with_the_probability_of_their_angle(center):
    x, y = np.abs(RNG.normal(size=(2, 50)))
    buckets = np.asarray(buckets_of(jnp.array([x, y]), 20, 64, center))
    apart = ((buckets[0] ^ buckets[1])[:, None] >> np.arange(20)) & 1
    if center:
        x, y = x - x.mean(), y - y.mean()
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert apart.mean() == pytest.approx(angle / np.pi, abs=4 * (0.25 / apart.size) ** 0.5)


def test_length_does_not_matter_and_with_center_neither_does_a_common_offset():
    buckets = buckets_of(OUTPUTS, 12, 5)
    np.testing.assert_array_equal(buckets_of(8 * OUTPUTS, 12, 5), buckets)
    near = np.mean(np.asarray(buckets_of(OUTPUTS + 3, 12, 5)) == buckets)
    far = np.mean(np.asarray(buckets_of(OUTPUTS + 3, 12, 5, False)) == buckets)
    assert near > 0.99 and far < 0.2  # rounding may move a vector that lies on a plane


def test_centered_positive_answers_fill_as_many_buckets_as_centered_data():
    positive = np.abs(RNG.normal(size=(500, 64))) + 1

    def filled(x, center):
        x = jnp.asarray(x, jnp.float32)
        buckets = np.asarray(buckets_of(x, 8, 20, center))
        return np.mean([len(set(table)) for table in buckets.T])

    best = filled(positive - positive.mean(axis=0), False)
    assert filled(positive, False) < 0.5 * best
    assert filled(positive, True) > 0.9 * best
    narrow = positive[0] + 0.1 * RNG.normal(size=(500, 64))
    assert filled(narrow, True) < 0.3 * best


@pytest.mark.parametrize('size', [1, 16, 48])
def test_coverage_is_the_share_of_distinct_buckets_after_every_row(size):
    buckets, where = RNG.integers(0, 16, (48, 3)), np.asarray(WHERE)
    seen, expected = [set(), set(), set()], []
    for row, counts in zip(buckets, where, strict=True):
        if counts:
            for table, bucket in enumerate(row):
                seen[table].add(bucket)
        expected.append(sum(len(table) for table in seen) / 48)
    filled, found = jnp.zeros((3, 16), bool), []
    for i in range(0, 48, size):
        part = slice(i, i + size)
        coverage, filled = jax.jit(fill)(filled, jnp.asarray(buckets[part]), WHERE[part])
        found.extend(coverage)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [set(np.flatnonzero(table)) for table in filled] == seen


def test_noise_has_the_stddev_of_the_coverage_at_that_query():
    defense = defenses.DEFENSES['bucket_coverage'](1, 1, alpha=4.0, beta=1.0, lambda_=0.01)
    x = RNG.normal(size=5_000)
    outputs = jnp.asarray([x, x, -x, x], jnp.float32)
    noisy, where, state = jax.jit(defense.apply)(
        outputs,
        start(defense, outputs),
        inputs=None,
        where=jnp.array([True, True, True, False]),
        keys=KEYS[:4],
    )
    half = 0.01 * (math.sqrt(4.0 / 0.01) - 1)  # 0.19 with one of the two buckets, 3.99 with both
    for row, stddev in ((0, half), (1, half), (2, 4.0 - 0.01)):
        noise = np.asarray(noisy[row] - outputs[row]) / stddev
        assert scipy.stats.kstest(noise, 'norm').pvalue > 0.01
    assert (float(state.coverage), float(state.stddev)) == (1.0, pytest.approx(3.99))
    assert where.tolist() == [True, True, True, False]


def test_stddev_at_beta_is_alpha_by_b4bs_function():
    defense = defenses.DEFENSES['bucket_coverage'](bits=3, tables=1, beta=0.75)
    state = start(defense)._replace(filled=jnp.arange(8)[None] < 6)
    _, _, state = run(defense, state, where=jnp.zeros(48, bool))
    assert float(state.coverage) == 0.75
    assert float(state.stddev) == pytest.approx(1.0 - 1e-6, rel=1e-4)


def test_rows_that_do_not_count_change_no_state():
    defense = defenses.make(SMALL)
    _, _, before = run(defense, start(defense))
    _, _, after = run(defense, before, where=jnp.zeros(48, bool))
    alike(after, before)
    assert float(before['0_bucket_coverage'].coverage) > 0


@pytest.mark.parametrize('size', [1, 16])
def test_batches_do_not_matter(size):
    defense = defenses.make(SMALL)
    whole, _, at_once = run(defense, start(defense))
    state, parts = start(defense), []
    for i in range(0, 48, size):
        outputs, _, state = run(defense, state, slice(i, i + size))
        parts.append(outputs)
    alike((jnp.concatenate(parts), state), (whole, at_once))
    assert not np.allclose(whole, OUTPUTS)


@pytest.mark.devices
def test_a_sharded_batch_and_stacked_accounts_give_the_same():
    defense = defenses.make(SMALL)
    expected = run(defense, start(defense))
    mesh = parallel.data_mesh()
    sharded = jax.device_put((OUTPUTS, WHERE, KEYS), parallel.batch_sharding(mesh))
    apply = jax.jit(lambda o, w, k, s: defense.apply(o, s, inputs=None, where=w, keys=k))
    alike(apply(*sharded, start(defense)), expected)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), start(defense), expected[2])
    stacked = jax.vmap(apply, in_axes=(None, None, None, 0))(OUTPUTS, WHERE, KEYS, both)
    alike(jax.tree.map(lambda leaf: leaf[0], stacked), expected)
    alike(jax.tree.map(lambda leaf: leaf[1], stacked), run(defense, expected[2]))


def test_an_oracle_reports_coverage_and_counts_only_what_its_budget_pays():
    oracle = make_oracle(lambda x: x, defenses.make(SMALL), budget=5)
    _, account = jax.jit(oracle.query)(OUTPUTS, oracle.init(jax.random.key(0), OUTPUTS))
    sets = [len(set(table)) for table in np.asarray(buckets_of(OUTPUTS[:5], 4, 3)).T]
    noticed = defenses.noticed(account.defense)
    assert noticed['bucket_coverage.coverage'] == pytest.approx(sum(sets) / 48)
    assert set(noticed) == {'bucket_coverage.coverage', 'bucket_coverage.stddev'}


@pytest.mark.parametrize('before', ['gaussian_noise', 'bucket_coverage', 'affine', 'binarize'])
def test_it_must_see_the_representations_themselves(before):
    with pytest.raises(UserError, match=f'bucket_coverage after {before} makes no sense'):
        defenses.make(f'{before} | bucket_coverage')
    if before in defenses.DEFENSES and before != 'bucket_coverage':
        defenses.make(f'bucket_coverage | {before}')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('bits=0', 'bits must be a whole number from 1 to 20, got 0'),
        ('bits=True', 'bits must be a whole number'),
        ('tables=2.0', 'tables must be a whole number'),
        ('alpha=0.0', 'alpha must be a finite number above 0, got 0.0'),
        ('beta=1.5', 'beta must be a finite number above 0 and at most 1, got 1.5'),
        ('beta=0.01', 'write a larger beta or lambda_'),
        ('lambda_=1.0', 'lambda_ must be less than alpha=1.0'),
        ('alpha="1"', 'alpha must be a finite number'),
        ('center=1', 'center must be True or False'),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments, message):
    with pytest.raises(UserError, match=message):
        defenses.make(f'bucket_coverage({arguments})')
