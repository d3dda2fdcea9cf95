"""The plans that average several answers to an image: by hand, noise averaged out, the bill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ssl_extract import attacks, defenses
from ssl_extract.attacks import plans
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle, store
from ssl_extract.runtime import parallel

KEY = jax.random.key(0)


def batch(answered, seed=0):
    rng = np.random.default_rng(seed)
    answered = np.array(answered, bool)
    return {
        'inputs': rng.random((len(answered), 2, 2, 3), np.float32),
        'answers': rng.normal(size=(*answered.shape, 5)).astype(np.float32),
        'answered': answered,
    }


def test_a_step_works_with_the_mean_of_the_answers_that_came():
    given = batch([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0]])
    given['answers'][1, 1] = np.nan  # must not matter
    asked = jax.jit(lambda b: attacks.PLANS.make('repeat(m=3)').ask(b, KEY, None, (), 2))(given)
    got = given['answers']
    want = [got[0].mean(axis=0), (got[1, 0] + got[1, 2]) / 2, np.zeros(5), got[3, 1]]
    for view in range(2):
        np.testing.assert_allclose(asked.answers[view], want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(asked.where[view], [True, True, False, True])
        np.testing.assert_allclose(asked.queries[view], given['inputs'])
    assert asked.account == () and asked.ledger is None


@pytest.mark.parametrize('m', [1, 4])
def test_it_stores_m_answers_to_the_image_itself(m):
    plan = attacks.PLANS.make(f'repeat(m={m})')
    assert plan.stored == m and plan.view is None


def test_of_one_it_is_once():
    given = batch([[1], [0], [1]])
    given['answers'] *= given['answered'][..., None]
    found, want = (
        attacks.PLANS.make(p).ask(given, KEY, None, (), 2) for p in ('repeat(1)', 'once')
    )
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_asked_of_an_oracle_it_is_billed_m_times_and_averages_noise_away(tmp_path):
    m, number, width = 4, 32, 48
    images = np.random.default_rng(1).integers(0, 256, (number, 4, 4, 3), dtype=np.uint8)
    plan = attacks.PLANS.make(f'repeat(m={m})')
    encode = jax.tree_util.Partial(lambda x: x.reshape(len(x), -1))
    got = store.collect(
        epath.Path(tmp_path),
        make_oracle(encode, defenses.make('gaussian_noise(stddev=1.0)'), budget=m * number),
        KEY,
        store.Queries(
            images,
            np.repeat(np.arange(number), m),
            np.tile(np.arange(m, dtype=np.uint32), number),
            plan.view,
        ),
        budget=m * number,
        batch_size=16,
        mesh=parallel.data_mesh(1),
        description='ask',
    )
    bill = got.bill
    assert (bill.billed, bill.unique, bill.repeated) == (m * number, number, (m - 1) * number)
    given = {
        'inputs': images / np.float32(255),
        'answers': jnp.asarray(got.representations).reshape(number, m, width),
        'answered': np.ones((number, m), bool),
    }
    asked = plan.ask(given, KEY, None, (), 1)
    noise = np.asarray(asked.answers[0]) - images.reshape(number, -1) / 255
    values = number * width  # each of variance 1 / m
    assert abs(noise.var() * m - 1) < 4 * np.sqrt(2 / values)
    assert abs(noise.mean()) < 4 / np.sqrt(m * values)


@pytest.mark.parametrize('m', [0, -1, 2.0, True, '4'])
def test_wrong_numbers(m):
    with pytest.raises(UserError, match='query plan.*m=.*whole number from 1 to 10000'):
        attacks.PLANS.make(f'repeat(m={m!r})')


def collected(plan, defense, m, folder, number=24):
    """Asks copies of gray images of a victim that sees the mean: (answers [N, m, 48], clean)."""
    images = np.random.default_rng(1).integers(0, 256, (number, 16, 16, 3), dtype=np.uint8)
    weights = jnp.linspace(-1, 1, 48)
    encode = jax.tree_util.Partial(lambda x: x.mean(axis=(1, 2, 3))[:, None] * weights[None])
    seeds = plans.view_seeds(plan, number, 5)
    got = store.collect(
        epath.Path(folder),
        make_oracle(encode, defenses.make(defense), budget=m * number),
        KEY,
        store.Queries(images, *plans.sent_views(seeds, m * number), plan.view),
        batch_size=16,
        mesh=parallel.data_mesh(1),
    )
    assert (got.bill.billed, got.bill.refused) == (m * number, 0)
    clean = np.asarray(encode(images / np.float32(255)))
    return plans.stored_arrays(seeds, got.representations, got.granted), images, clean


def test_near_duplicates_average_keyed_noise_by_the_root_of_their_number(tmp_path):
    m, keyed = 16, 'gaussian_noise(stddev=1.0, keyed_by="image")'
    deviations = {}
    for name in ('repeat', 'near_duplicates'):
        plan = attacks.PLANS.make(f'{name}(m={m})')
        arrays, images, clean = collected(plan, keyed, m, tmp_path / name)
        batch = arrays | {'inputs': images / np.float32(255)}
        asked = plan.ask(batch, KEY, None, (), 1)
        np.testing.assert_array_equal(asked.queries[0], batch['inputs'])
        deviations[name] = (np.asarray(asked.answers[0]) - clean).std()
    values = 24 * 48
    assert abs(deviations['repeat'] - 1) < 4 / np.sqrt(2 * values)  # the same answer m times
    assert abs(deviations['near_duplicates'] * np.sqrt(m) - 1) < 5 / np.sqrt(2 * values)


def test_a_near_duplicate_has_one_value_changed_by_a_step_of_eight_bits():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    images[:10], images[10:20] = 0, 255
    plan = attacks.PLANS.make('near_duplicates(m=3)')
    seeds = plans.view_seeds(plan, 50, 7)
    assert len(np.unique(seeds)) == 150
    for k in range(3):
        sent = np.asarray(plan.view(images / np.float32(255), seeds[:, k])) * 255
        np.testing.assert_allclose(sent, sent.round(), atol=1e-3)
        change = sent.round().astype(int) - images
        assert (np.abs(change).reshape(50, -1).sum(axis=1) == 1).all()
        assert sent.min() > -0.5 and sent.max() < 255.5
