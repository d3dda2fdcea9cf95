"""Prediction poisoning against a linear shadow, whose Jacobian is written down by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_extract import defenses
from ssl_extract.defenses import poisoning
from ssl_extract.encoders.conv import conv
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(8, 2, 2, 3)).astype(np.float32)
FLAT = IMAGES.reshape(8, 12)
SCALE = np.array([0.5, 1.0, 2.0, 4.0], np.float32)
WEIGHTS = RNG.normal(size=(12, 4)).astype(np.float32)
ANSWERS = RNG.normal(size=(8, 4)).astype(np.float32)
WHERE = np.ones(8, bool)


def linear(variables, images):
    outputs = images.reshape(len(images), -1) @ variables['params']['weights']
    return outputs * variables['scale'][None]


SHADOW = poisoning.Shadow(linear, {'params': {'weights': WEIGHTS}, 'scale': SCALE})
GRADIENTS = 2 * np.einsum('bi,bd->bid', FLAT, SCALE * (FLAT @ WEIGHTS * SCALE - ANSWERS))


def poison(radius, shadow=SHADOW, images=IMAGES, answers=ANSWERS):
    defense = defenses.make(f'prediction_poisoning(radius={radius})', shadow=shadow)
    keys = jax.random.split(jax.random.key(0), len(images))
    state = defense.init(keys[0], answers, images)
    run = jax.jit(lambda y, x: defense.apply(y, state, inputs=x, where=WHERE, keys=keys)[0])
    return np.asarray(run(answers, images))


def products(answers):
    """<a, b> for every row: of its gradient with the true answer and that with `answers`."""
    poisoned = 2 * np.einsum('bi,bd->bid', FLAT, SCALE * (FLAT @ WEIGHTS * SCALE - answers))
    return np.einsum('bid,bid->b', GRADIENTS, poisoned)


def test_it_moves_along_the_jacobian_times_the_gradient():
    pushed = SCALE**2 * (FLAT @ WEIGHTS * SCALE - ANSWERS)  # J J^T = |x|^2 diag(scale^2)
    unit = pushed / np.linalg.norm(pushed, axis=1, keepdims=True)
    expected = ANSWERS + 0.3 * np.linalg.norm(ANSWERS, axis=1, keepdims=True) * unit
    np.testing.assert_allclose(poison(0.3), expected, rtol=1e-4, atol=1e-5)


def test_the_radius_is_the_distance_and_zero_is_the_identity():
    moved = np.linalg.norm(poison(0.7) - ANSWERS, axis=1)
    np.testing.assert_allclose(moved, 0.7 * np.linalg.norm(ANSWERS, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(poison(0.0), ANSWERS)


@pytest.mark.parametrize('scale', [1e-20, 1e17])
def test_the_radius_is_the_distance_at_every_scale(scale):
    moved = np.float64(poison(0.7, answers=np.float32(scale) * ANSWERS)) / scale - ANSWERS
    lengths = 0.7 * np.linalg.norm(ANSWERS, axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), lengths, rtol=1e-4)


def test_more_radius_turns_the_gradient_further():
    falling = np.stack([products(poison(r)) for r in (0.0, 0.1, 0.5, 2.0, 20.0)])
    assert (np.diff(falling, axis=0) < 0).all()
    np.testing.assert_allclose(falling[0], np.sum(GRADIENTS**2, axis=(1, 2)), rtol=1e-4)
    assert (falling[-1] < 0).all()


def test_no_answer_of_the_ball_turns_it_further():
    least = products(poison(0.5))
    radius = 0.5 * np.linalg.norm(ANSWERS, axis=1, keepdims=True)
    for _ in range(2_000):
        step = RNG.normal(size=ANSWERS.shape)
        step *= radius * RNG.uniform() ** 0.25 / np.linalg.norm(step, axis=1, keepdims=True)
        assert (products(ANSWERS + step) > least).all()


def test_an_answer_that_no_gradient_can_move_stays():
    images = np.where(np.arange(8)[:, None, None, None] < 4, 0, IMAGES)  # no input, no gradient
    moved = (poison(1.0, images=images) != ANSWERS).any(axis=1)
    np.testing.assert_array_equal(moved, np.arange(8) >= 4)


def test_a_convolutional_attacker_gets_what_its_dense_jacobian_gives():
    images = RNG.uniform(size=(2, 4, 4, 3)).astype(np.float32)
    params = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
    answers = ANSWERS[:2]

    @jax.jit
    def encode(variables, images):
        return jnp.mean(jax.nn.relu(conv(images, variables['params'])), axis=(1, 2))

    jacobian = jax.jit(jax.jacrev(lambda p: encode({'params': p}, images)))(params)
    jacobian = np.reshape(jacobian, (2, 4, -1))
    pushed = np.einsum(
        'bdp,bep,be->bd', jacobian, jacobian, encode({'params': params}, images) - answers
    )
    unit = pushed / np.linalg.norm(pushed, axis=1, keepdims=True)
    expected = answers + np.linalg.norm(answers, axis=1, keepdims=True) * unit
    shadow = poisoning.Shadow(encode, {'params': params})
    np.testing.assert_allclose(poison(1.0, shadow, images, answers), expected, atol=1e-4)


def test_queries_that_take_turns_are_answered_alike(monkeypatch):
    together = poison(0.5)
    monkeypatch.setattr(poisoning, 'GRADIENT_BYTES', 3 * WEIGHTS.nbytes)
    np.testing.assert_allclose(poison(0.5), together, rtol=1e-6)


def test_it_hurts_a_attacker_more_than_noise_of_the_same_size():
    truth = RNG.normal(size=(12, 4)).astype(np.float32)
    images = RNG.uniform(-0.5, 0.5, size=(200, 2, 2, 3)).astype(np.float32)
    flat = images.reshape(200, 12)
    clean = flat @ truth
    untrained = {'params': {'weights': np.zeros_like(truth)}, 'scale': SCALE}
    poisoned = poison(0.8, poisoning.Shadow(linear, untrained), images, clean)
    noise = RNG.normal(size=clean.shape)
    noise *= np.linalg.norm(poisoned - clean, axis=1, keepdims=True) / np.linalg.norm(
        noise, axis=1, keepdims=True
    )

    def error_after_training(answers):
        weights = np.zeros((12, 4))
        for _ in range(200):
            weights -= 0.5 * flat.T @ (flat @ weights - answers) / len(flat)
        return np.mean((flat @ weights - clean) ** 2)

    assert error_after_training(poisoned) > 5 * error_after_training(clean + noise)


@pytest.mark.devices
def test_it_works_over_accounts_and_over_devices():
    oracle = make_oracle(
        lambda x: x.reshape(len(x), -1)[:, :4],
        defenses.make('prediction_poisoning(radius=0.5)', shadow=SHADOW),
        budget=100,
    )
    state = oracle.init(jax.random.key(0), IMAGES)
    accounts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    stacked, _ = jax.jit(jax.vmap(oracle.query))(np.stack([IMAGES, IMAGES[::-1]]), accounts)
    one, _ = jax.jit(oracle.query)(IMAGES, state)
    np.testing.assert_allclose(stacked.representations[0], one.representations, atol=1e-6)
    np.testing.assert_allclose(stacked.representations[1, ::-1], one.representations, atol=1e-6)

    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(IMAGES, NamedSharding(mesh, PartitionSpec('data')))
    spread, _ = jax.jit(oracle.query)(sharded, state)
    np.testing.assert_allclose(spread.representations, one.representations, atol=1e-6)


def test_without_a_attacker_it_can_be_built_but_not_used():
    defense = defenses.make('prediction_poisoning')
    with pytest.raises(UserError, match='has no shadow: write'):
        defense.init(jax.random.key(0), ANSWERS, IMAGES)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('prediction_poisoning(radius=-1)', 'radius must be a finite number of at least 0'),
        ('prediction_poisoning(radius=True)', 'radius must be a finite number of at least 0'),
        ('prediction_poisoning(shadow="mine")', 'shadow must be a defenses.poisoning.Shadow'),
    ],
)
def test_wrong_arguments_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message):
        defenses.make(spec)


def test_a_attacker_of_another_width_is_refused():
    defense = defenses.make('prediction_poisoning', shadow=SHADOW)
    with pytest.raises(UserError, match='answers with 4 numbers and the victim with 5'):
        defense.init(jax.random.key(0), jnp.zeros((8, 5)), IMAGES)


def test_it_defends_representations_only():
    defenses.check_endpoint('prediction_poisoning', 'representation')
    with pytest.raises(UserError, match='asks for posteriors'):
        defenses.check_endpoint('prediction_poisoning', 'posteriors')
