"""Direct extraction, collected and online: exact budget, gradient into the student only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import answers, attacks, augment, defenses, encoders, losses, parallel, training
from ssl_extract.oracle import make_oracle

MESH = parallel.data_mesh()
SHAPE = (8, 8, 3)
VICTIM = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
WIDER = encoders.make('resnet18(stem="patch", width=6, stages=(1,))')
VARIABLES = VICTIM.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))
IMAGES = np.random.default_rng(0).integers(0, 256, (24, *SHAPE), dtype=np.uint8)
IDENTITY, FLIP = augment.make(''), augment.make('flip(p=1.0)')


def oracle(budget, defense=''):
    encode = jax.tree_util.Partial(VICTIM.apply, VARIABLES)
    return make_oracle(encode, defenses.make(defense), budget=budget)


def recipe(plan='online', encoder=VICTIM, asked=IDENTITY, seen=IDENTITY, loss='mse', dim=4):
    prepare = attacks.PLANS.make(plan, query_augmentation=asked, student_augmentation=seen)
    return attacks.ATTACKS.make(
        'direct', encoder=encoder, prepare=prepare, loss=losses.make(loss), answer_dim=dim
    )


def steal(folder, made, budget, steps, *, data=None, mesh=MESH, defense='', optimizer='adam'):
    asked = oracle(budget, defense)
    account = asked.init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
    return training.fit(
        made,
        data or {'images': IMAGES},
        num_steps=steps,
        batch_size=8,
        learning_rate=1e-2,
        optimizer=optimizer,
        folder=folder,
        mesh=mesh,
        oracle=asked,
        account=account,
        checkpoint_every=3,
        log_every=2,
    )


@pytest.mark.parametrize(('budget', 'refused'), [(24, 0), (37, 3), (1, 7)])
def test_online_spends_exactly_its_budget(tmp_path, budget, refused):
    fit = steal(tmp_path, recipe(), budget, -(-budget // 8))
    assert int(fit.state.oracle.num_queries) == budget
    assert answers.make_bill(fit.asked, fit.state.oracle.num_refused) == (
        budget,
        min(budget, 24),
        max(0, budget - 24),  # asking an image again is paid again
        refused,
    )


def test_online_asks_the_augmented_views_and_the_ledger_has_them(tmp_path):
    fit = steal(tmp_path, recipe(asked=FLIP), 24, 3)
    flipped = augment.to_float(jnp.asarray(IMAGES[:, :, ::-1]))
    expected = {bytes(p) for p in np.asarray(answers.fingerprint(flipped))}
    assert {bytes(p) for p in fit.asked} == expected


def test_online_equals_collected_when_both_see_the_same(tmp_path):
    """One epoch of unaugmented online queries is one epoch on stored answers."""
    stored = np.asarray(VICTIM.apply(VARIABLES, augment.to_float(jnp.asarray(IMAGES))))
    online = steal(tmp_path / 'online', recipe(), 24, 3)
    data = {'images': IMAGES, 'answers': stored}
    collected = steal(tmp_path / 'collected', recipe('once'), 24, 3, data=data)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
    jax.tree.map(close, online.state.params, collected.state.params)
    assert int(collected.state.oracle.num_queries) == 0  # stored answers are free


def test_refused_rows_teach_nothing():
    """With one granted row, the loss is that row's alone."""
    made = recipe()
    variables = made.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    account = oracle(1).init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
    batch, account, _ = made.prepare({'images': IMAGES[:8]}, jax.random.key(0), oracle(1), account)
    loss, _ = made.objective(*variables.values(), batch)
    student, _ = VICTIM.train(
        {kind: tree['encoder'] for kind, tree in variables.items()}, batch['images']
    )
    teacher = VICTIM.apply(VARIABLES, batch['images'])
    assert float(loss) == pytest.approx(float(jnp.mean((student[0] - teacher[0]) ** 2)), rel=1e-4)
    assert int(account.num_queries) == 1


def test_the_student_sees_its_own_view_of_what_was_asked():
    made = recipe('online', asked=FLIP, seen=FLIP)
    account = oracle(8).init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
    batch, _, _ = made.prepare({'images': IMAGES[:8]}, jax.random.key(0), oracle(8), account)
    plain = augment.to_float(jnp.asarray(IMAGES[:8]))
    np.testing.assert_allclose(batch['images'], plain, atol=1e-6)  # twice mirrored
    np.testing.assert_allclose(
        batch['answers'], VICTIM.apply(VARIABLES, plain[:, :, ::-1]), rtol=1e-4, atol=1e-5
    )


def test_no_gradient_reaches_the_victim():
    made = recipe()
    student = made.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))

    def attacked(variables):
        asked = make_oracle(jax.tree_util.Partial(VICTIM.apply, variables), budget=8)
        account = asked.init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
        batch, _, _ = made.prepare({'images': IMAGES[:8]}, jax.random.key(0), asked, account)
        return made.objective(*student.values(), batch)[0]

    for gradient in jax.tree.leaves(jax.grad(attacked)(VARIABLES)):
        np.testing.assert_array_equal(gradient, 0)


def test_a_surrogate_of_another_width_has_an_adapter_while_it_trains(tmp_path):
    fit = steal(tmp_path, recipe(encoder=WIDER), 24, 3)
    assert set(fit.state.params) == {'encoder', 'adapter'}
    assert set(recipe().init(jax.random.key(0), jnp.zeros((1, *SHAPE)))['params']) == {'encoder'}
    alone = {'params': fit.state.params['encoder'], 'batch_stats': fit.state.batch_stats['encoder']}
    assert WIDER.apply(alone, jnp.zeros((2, *SHAPE))).shape == (2, 6)


def test_extraction_approaches_the_victim(tmp_path):
    held_out = np.random.default_rng(9).random((64, *SHAPE), np.float32)
    wanted = VICTIM.apply(VARIABLES, held_out)

    def distance(state):
        encoder = {'params': state.params['encoder'], 'batch_stats': state.batch_stats['encoder']}
        return float(jnp.mean((VICTIM.apply(encoder, held_out) - wanted) ** 2))

    before = training.init_state(recipe(), 'adam', jax.random.key(0), SHAPE)
    images = np.random.default_rng(4).integers(0, 256, (240, *SHAPE), dtype=np.uint8)
    fit = steal(tmp_path, recipe(), 1600, 200, data={'images': images})
    assert distance(fit.state) < 0.3 * distance(before)


def test_one_device_steals_like_four(tmp_path):
    defense = 'gaussian_noise(stddev=0.1)'
    # SGD: Adam's first steps follow the sign of a gradient, whatever its last digits.
    kwargs = dict(defense=defense, optimizer='sgd')
    four = steal(tmp_path / '4', recipe(), 20, 3, **kwargs)
    one = steal(tmp_path / '1', recipe(), 20, 3, **kwargs, mesh=parallel.data_mesh(1))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
    jax.tree.map(close, four.state.params, one.state.params)
    np.testing.assert_array_equal(four.asked, one.asked)
