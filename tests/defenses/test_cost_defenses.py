"""The bills of the rate limit and of the proof of work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import defenses
from ssl_extract.defenses.buckets import buckets_of
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import parallel

WORK = 'proof_of_work(seconds=0.5, benign=0.1, doubling=0.05, bits=4, tables=3)'
RATE = 'rate_limit(queries=4, seconds=10.0, total=30)'
RNG = np.random.default_rng(0)
OUTPUTS = jnp.asarray(np.abs(RNG.normal(size=(48, 6))), jnp.float32)
WHERE = jnp.asarray(RNG.random(48) < 0.8)
KEYS = jax.random.split(jax.random.key(7), 48)


def start(defense):
    return defense.init(jax.random.key(0), OUTPUTS, OUTPUTS)


def run(defense, state, rows=slice(None), where=WHERE):
    apply = jax.jit(defense.apply)
    return apply(OUTPUTS[rows], state, inputs=None, where=where[rows], keys=KEYS[rows])


def alike(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first, second)


SENT = [(1, 0), (4, 0), (5, 10), (8, 10), (9, 20), (48, 110)]


@pytest.mark.parametrize(('sent', 'seconds'), SENT)
def test_the_last_answer_comes_when_its_period_starts(sent, seconds):
    defense = defenses.make('rate_limit(queries=4, seconds=10.0)')
    outputs, where, state = run(defense, start(defense), where=jnp.arange(48) < sent)
    np.testing.assert_array_equal(outputs, OUTPUTS)
    assert int(where.sum()) == sent
    assert defenses.noticed(state) == {
        'rate_limit.num_answered': sent,
        'rate_limit.seconds': seconds,
    }


def test_the_total_refuses_exactly_the_queries_beyond_it():
    defense = defenses.make(RATE)
    _, where, state = run(defense, start(defense))
    expected = np.flatnonzero(WHERE)[:30]
    np.testing.assert_array_equal(np.flatnonzero(where), expected)
    assert len(expected) == 30 < int(WHERE.sum())
    assert int(state['0_rate_limit'].num_answered) == 30
    _, where, again = run(defense, state)
    assert not where.any()
    alike(again, state)


def test_an_oracle_withholds_what_the_total_refuses():
    oracle = make_oracle(lambda x: x, defenses.make(RATE), budget=40)
    answer, account = jax.jit(oracle.query)(OUTPUTS, oracle.init(jax.random.key(0), OUTPUTS))
    assert np.flatnonzero(answer.granted).tolist() == list(range(30))
    counts = (account.num_queries, account.num_withheld, account.num_refused)
    assert [int(count) for count in counts] == [30, 10, 18]


def test_the_work_doubles_with_the_coverage_at_each_query():
    buckets, where = np.asarray(buckets_of(OUTPUTS, 4, 3)), np.asarray(WHERE)
    seen, seconds = set(), 0.0
    for row in np.flatnonzero(where):
        seen |= {(table, bucket) for table, bucket in enumerate(buckets[row])}
        seconds += 0.5 * 2 ** (max(len(seen) / 48 - 0.1, 0) / 0.05)
    defense = defenses.make(WORK)
    outputs, kept, state = run(defense, start(defense))
    np.testing.assert_array_equal(outputs, OUTPUTS)
    np.testing.assert_array_equal(kept, WHERE)
    noticed = defenses.noticed(state)
    assert noticed['proof_of_work.coverage'] == pytest.approx(len(seen) / 48)
    assert noticed['proof_of_work.seconds'] == pytest.approx(seconds, rel=1e-5)


def test_who_asks_for_the_same_pays_the_base():
    defense = defenses.make('proof_of_work(seconds=2.0, benign=0.2)')
    same = jnp.broadcast_to(OUTPUTS[:1], OUTPUTS.shape)
    given = dict(inputs=None, where=jnp.ones(48, bool), keys=KEYS)
    _, _, state = jax.jit(defense.apply)(same, start(defense), **given)
    assert defenses.noticed(state)['proof_of_work.seconds'] == 96.0


@pytest.mark.parametrize('spec', [WORK, RATE])
@pytest.mark.parametrize('size', [1, 16])
def test_batches_do_not_matter(spec, size):
    defense = defenses.make(spec)
    _, whole, at_once = run(defense, start(defense))
    state, parts = start(defense), []
    for i in range(0, 48, size):
        _, where, state = run(defense, state, slice(i, i + size))
        parts.append(where)
    alike((jnp.concatenate(parts), state), (whole, at_once))


@pytest.mark.devices
@pytest.mark.parametrize('spec', [WORK, RATE])
def test_a_sharded_batch_and_stacked_accounts_give_the_same(spec):
    defense = defenses.make(spec)
    expected = run(defense, start(defense))
    sharded = jax.device_put((OUTPUTS, WHERE), parallel.batch_sharding(parallel.data_mesh()))
    apply = jax.jit(lambda o, w, s: defense.apply(o, s, inputs=None, where=w, keys=KEYS))
    alike(apply(*sharded, start(defense)), expected)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), start(defense), expected[2])
    stacked = jax.vmap(apply, in_axes=(None, None, 0))(OUTPUTS, WHERE, both)
    alike(jax.tree.map(lambda leaf: leaf[0], stacked), expected)
    alike(jax.tree.map(lambda leaf: leaf[1], stacked), run(defense, expected[2]))


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('rate_limit(queries=0)', 'queries must be a whole number'),
        ('rate_limit(seconds=0)', 'seconds must be a finite number above 0, got 0'),
        ('rate_limit(total=-1)', 'total must be a whole number'),
        ('proof_of_work(seconds=-1.0)', 'seconds must be a finite number above 0'),
        ('proof_of_work(benign=2)', 'benign must be a finite number above 0 and at most 1, got 2'),
        ('proof_of_work(doubling=0.001)', 'write at least 0.013'),
        ('proof_of_work(bits=21)', 'bits must be a whole number from 1 to 20'),
        ('bucket_coverage | proof_of_work', 'proof_of_work after bucket_coverage makes no sense'),
    ],
)
def test_wrong_specs_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message):
        defenses.make(spec)
