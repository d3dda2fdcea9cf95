"""The plan that asks each image several times: means by hand, noise averaged out, the bill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ssl_extract import attacks, defenses
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
