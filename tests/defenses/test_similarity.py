"""The similarity guard, against a row-by-row account of what it must flag."""

import batches
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_extract import defenses
from ssl_extract.defenses import refuse, similarity  # noqa: F401  (they register themselves)
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import parallel

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(48, 4)).astype(np.float32)
WHERE = RNG.random(48) < 0.8
WEIGHTS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def head(outputs):
    return outputs @ WEIGHTS


def by_hand(rows, where, metric, threshold, capacity):
    """Flags, one row after the other."""
    past, flags = [], np.zeros(len(rows), bool)
    for i in np.flatnonzero(where):
        row = rows[i].astype(np.float64)
        for other in past[-capacity:]:
            if metric == 'cosine':
                cosine = row @ other / np.linalg.norm(row) / np.linalg.norm(other)
                flags[i] |= cosine > threshold
            else:
                flags[i] |= np.linalg.norm(row - other) < threshold
        past.append(row)
    return flags


def run(spec, rows=ROWS, where=WHERE, batch=16):
    return batches.send(spec, rows, where, batch, head)


def spec_of(metric, threshold, capacity, **more):
    given = dict(metric=metric, threshold=threshold, capacity=capacity, then='refuse') | more
    return f'similarity_guard({", ".join(f"{k}={v!r}" for k, v in given.items())})'


@pytest.mark.parametrize(('metric', 'threshold'), [('cosine', 0.8), ('l2', 1.2)])
@pytest.mark.parametrize('capacity', [1, 7, 100])
@pytest.mark.parametrize('batch', [4, 16, 48])  # smaller and larger than the ring
def test_flags_are_those_of_the_rows_one_by_one(metric, threshold, capacity, batch):
    expected = by_hand(ROWS, WHERE, metric, threshold, capacity)
    _, granted, state = run(spec_of(metric, threshold, capacity), batch=batch)
    np.testing.assert_array_equal(granted, WHERE & ~expected)
    found = defenses.noticed(state)
    assert found['similarity_guard.num_flagged'] == expected.sum() > 0
    assert found['similarity_guard.num_seen'] == WHERE.sum()


@pytest.mark.parametrize(
    ('metric', 'offset', 'scale'),
    [
        *(('cosine', 1e3, 1.0), ('cosine', 1e4, 1.0), ('cosine', 0.0, 1e-20)),
        *(('cosine', 0.0, 1e19), ('l2', 1e3, 1.0), ('l2', 1e4, 1.0)),
        *(('l2', 0.0, 1e-14), ('l2', 0.0, 1e14)),  # a threshold is from 1e-15 to 1e15
    ],
)
def test_flags_of_answers_far_from_the_origin_and_of_any_scale(metric, offset, scale):
    rows = ((ROWS.astype(np.float64) + offset) * scale).astype(np.float32)
    threshold = 0.8 if metric == 'cosine' else 1.2 * scale
    if metric == 'cosine' and offset:
        threshold = 1 - 0.4 / offset**2 / 4  # half of a squared distance over the squared length
    expected = by_hand(rows, WHERE, metric, threshold, 7)
    _, granted, _ = run(spec_of(metric, threshold, 7), rows)
    assert 0 < expected.sum() < WHERE.sum()
    np.testing.assert_array_equal(granted, WHERE & ~expected)


def test_a_zero_answer_has_cosine_zero_with_every_answer():
    rows = np.array([[1, 0], [0, 0], [0, 0], [1, 0], [-1, 0]], np.float32)
    for batch in (1, 5):
        _, granted, _ = run(spec_of('cosine', 0.1, 8), rows, np.ones(5, bool), batch=batch)
        assert granted.tolist() == [True, True, True, False, True]
        _, granted, _ = run(spec_of('cosine', -0.1, 8), rows, np.ones(5, bool), batch=batch)
        assert granted.tolist() == [True, False, False, False, False]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 3, None]), min_size=12, max_size=12))
def test_exact_repeats_within_the_ring_are_flagged(asked):
    """Of four orthogonal answers, None not being sent: flagged if among the last three sent."""
    rows = np.eye(4, dtype=np.float32)[[a or 0 for a in asked]]
    where = np.array([a is not None for a in asked])
    expected, past = [], []
    for a in asked:
        expected.append(a is not None and a not in past[-3:])
        past += [] if a is None else [a]
    _, granted, _ = run(spec_of('cosine', 0.5, 3), rows, where, batch=6)
    assert granted.tolist() == expected


def test_projections_are_compared_by_the_head():
    expected = by_hand(head(ROWS), WHERE, 'cosine', 0.9, 10)
    _, granted, _ = run(spec_of('cosine', 0.9, 10, of='projection'))
    np.testing.assert_array_equal(granted, WHERE & ~expected)
    assert not np.array_equal(expected, by_hand(ROWS, WHERE, 'cosine', 0.9, 10))


@pytest.mark.parametrize('batch', [8, 24])
def test_only_flagged_answers_are_replaced(batch):
    then = 'replace(mean=1000.0, stddev=20.0)'
    outputs, granted, _ = run(spec_of('l2', 1.2, 7, then=then), batch=batch)
    flagged = by_hand(ROWS, WHERE, 'l2', 1.2, 7)
    np.testing.assert_array_equal(granted, WHERE)
    np.testing.assert_array_equal(outputs[WHERE & ~flagged], ROWS[WHERE & ~flagged])
    values = outputs[flagged].ravel()
    assert abs(values.mean() - 1000) < 4 * 20 / np.sqrt(values.size)
    assert len(np.unique(values)) == values.size


def test_counting_alone_changes_nothing():
    outputs, granted, state = run(spec_of('cosine', 0.8, 7, then=''))
    np.testing.assert_array_equal(outputs, ROWS)
    np.testing.assert_array_equal(granted, WHERE)
    assert int(state['0_similarity_guard'].num_flagged) > 0


def test_a_close_repeat_of_a_long_vector_is_measured_without_cancellation():
    """By squares, whose rounding is about 100 here, 5 could not be told from 15."""
    rows = np.full((3, 4), 1e4, np.float32)
    rows[1, 0] += 5
    rows[2, 0] += 20
    _, granted, _ = run(spec_of('l2', 10.0, 2), rows, np.ones(3, bool), batch=3)
    assert granted.tolist() == [True, False, True]


def test_an_answer_that_is_not_a_number_does_not_blind_the_guard():
    rows = np.ones((4, 4), np.float32)
    rows[1] = np.nan
    for batch in (1, 4):
        _, granted, _ = run(spec_of('cosine', 0.9, 8), rows, np.ones(4, bool), batch=batch)
        assert granted.tolist() == [True, True, False, False]


@pytest.mark.devices
def test_accounts_are_stacked_and_the_batch_is_sharded():
    """Two accounts, the second sent shifted rows, on four devices: as each alone on one."""
    spec = spec_of('cosine', 0.8, 7)
    oracle = make_oracle(lambda inputs: inputs, defenses.make(spec), budget=1000)
    sent = jnp.stack([ROWS[:16], ROWS[16:32]])
    init = jax.vmap(oracle.init, in_axes=(0, None))
    state = init(jax.random.split(jax.random.key(0), 2), sent[0])
    mesh = parallel.data_mesh()
    sharded = jax.device_put(sent, jax.NamedSharding(mesh, jax.P(None, 'data')))
    answer, state = jax.jit(jax.vmap(oracle.query))(sharded, parallel.replicate(state, mesh))
    for i in range(2):
        flagged = by_hand(ROWS[16 * i : 16 * i + 16], np.ones(16, bool), 'cosine', 0.8, 7)
        np.testing.assert_array_equal(answer.granted[i], ~flagged)
        assert state.num_withheld[i] == flagged.sum()


def test_a_ring_is_written_in_place():
    """Beside the state itself, a step needs far less memory than another copy of it."""
    defense = defenses.make(spec_of('l2', 1.0, 4096, then=''))
    outputs = jax.ShapeDtypeStruct((16, 128), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 16)

    def step(state, outputs):
        where = jnp.ones(16, bool)
        return defense.apply(outputs, state, inputs=outputs, where=where, keys=keys)

    state = jax.eval_shape(lambda: defense.init(keys[0], outputs, outputs))
    memory = jax.jit(step, donate_argnums=0).lower(state, outputs).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4096 * 128 * 4 / 2


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('similarity_guard(threshold=1.5)', "threshold=1.5: for metric='cosine' write one between"),
        ('similarity_guard(threshold=0.0, metric="l2")', "for metric='l2' write one above 0"),
        ('similarity_guard(threshold=True)', 'threshold must be a finite number'),
        ('similarity_guard(metric="l1")', "metric='l1': write 'cosine' or 'l2'"),
        ('similarity_guard(of="head")', "of='head': write 'answer' or 'projection'"),
        ('similarity_guard(of="projection")', "write of='answer'"),
        ('similarity_guard(capacity=0)', 'capacity must be a whole number from 1'),
        ('similarity_guard(capacity=True)', 'capacity must be a whole number from 1'),
        ('similarity_guard(then="replac")', "did you mean 'replace'"),
        (
            'gaussian_noise | similarity_guard',
            'similarity_guard after gaussian_noise makes no sense',
        ),
        (
            'bucket_coverage | similarity_guard',
            'similarity_guard after bucket_coverage makes no sense',
        ),
    ],
)
def test_wrong_arguments_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message):
        defenses.make(spec)


def test_what_changes_the_width_cannot_act_on_some_rows():
    from ssl_extract.defenses import pad_shuffle  # noqa: F401

    defense = defenses.make('similarity_guard(then="pad_shuffle(pad=3)")')
    with pytest.raises(UserError, match='keeps the width'):
        defense.init(jax.random.key(0), ROWS, ROWS)
