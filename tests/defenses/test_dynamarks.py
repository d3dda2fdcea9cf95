"""The watermark in posteriors and labels, and the test that finds it, on scikit-learn's digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from ssl_extract import defenses
from ssl_extract.defenses import dynamarks
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle

DIGITS = load_digits()
ORDER = np.random.default_rng(0).permutation(1797)
IMAGES = (DIGITS.images[ORDER] / 16).astype(np.float32)[..., None]
FLAT, LABELS = IMAGES.reshape(1797, 64), DIGITS.target[ORDER]
VICTIMS, QUERIES, HELD_OUT = slice(0, 600), slice(600, 1200), slice(1200, 1797)
KEYS = (3, 4)


@functools.cache
def probe():
    return LogisticRegression(max_iter=300).fit(FLAT[VICTIMS], LABELS[VICTIMS])


def ask(spec, images=IMAGES[QUERIES], endpoint='posteriors'):
    """What an account gets from the victim, [B, 10], and its state."""
    weights, bias = jnp.asarray(probe().coef_.T), jnp.asarray(probe().intercept_)

    def encode(x):
        logits = x.reshape(len(x), -1) @ weights + bias[None]
        if endpoint == 'posteriors':
            return jax.nn.softmax(logits)
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), 10)

    oracle = make_oracle(encode, defenses.make(spec), budget=10_000)
    answer, state = jax.jit(oracle.query)(images, oracle.init(jax.random.key(0), images))
    return np.asarray(answer.representations), state


def steal(targets):
    """The posteriors, on the held-out images, of a softmax regression trained on `targets`."""
    weights, velocity = np.zeros((65, 10)), np.zeros((65, 10))
    inputs = np.pad(FLAT, [(0, 0), (0, 1)], constant_values=1)
    for _ in range(300):
        posteriors = scipy.special.softmax(inputs[QUERIES] @ weights, axis=1)
        velocity = 0.9 * velocity - 0.2 * inputs[QUERIES].T @ (posteriors - targets) / 600
        weights += velocity
    return scipy.special.softmax(inputs[HELD_OUT] @ weights, axis=1)


def verify(suspect, key, num_decoys=999):
    victim = probe().predict_proba(FLAT[HELD_OUT])
    return dynamarks.verify(suspect, victim, IMAGES[HELD_OUT], key=key, num_decoys=num_decoys)


def test_a_posterior_moves_by_the_written_formula():
    images = np.random.default_rng(1).uniform(size=(6, 8, 8, 3)).astype(np.float32)
    posteriors = np.full((6, 5), 0.1, np.float32)
    posteriors[:, 2] = 0.6
    marked = apply('dynamarks(key=9, strength=0.5)', posteriors, images)

    secret = dynamarks.draw_secret(jax.random.key(9), 5, 3)
    cells = np.asarray(jax.image.resize(images, (6, 4, 4, 3), 'linear'))
    steps = [np.diff(cells, axis=axis).reshape(6, -1) for axis in (1, 2)]
    steps = np.concatenate(steps, axis=1)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    signal = np.tanh(steps @ secret.direction)
    expected = scipy.special.softmax(
        np.log(posteriors) + 0.5 * signal[:, None] * np.asarray(secret.signs), axis=1
    )
    np.testing.assert_allclose(marked, expected, rtol=1e-4)
    assert np.abs(marked - posteriors).max() > 0.01


def apply(spec, outputs, images):
    defense = defenses.make(spec)
    keys = jax.random.split(jax.random.key(0), len(images))
    state = defense.init(keys[0], outputs, images)
    where = np.ones(len(images), bool)
    run = jax.jit(lambda y, x: defense.apply(y, state, inputs=x, where=where, keys=keys)[0])
    return np.asarray(run(outputs, images))


@pytest.mark.parametrize('strength', [1.0, 10.0])
def test_posteriors_stay_probabilities_with_the_same_first_class(strength):
    clean, _ = ask('')
    marked, _ = ask(f'dynamarks(strength={strength})')
    np.testing.assert_array_equal(marked.argmax(1), clean.argmax(1))
    np.testing.assert_allclose(marked.sum(1), 1, rtol=1e-5)
    assert (marked >= 0).all() and np.abs(marked - clean).max() > 0.05


def test_a_tie_is_not_turned_around():
    posteriors = np.tile(np.float32([0.5, 0.5]), (50, 1))
    marked = apply('dynamarks', posteriors, IMAGES[:50])
    np.testing.assert_array_equal(marked.argmax(1), 0)


@pytest.mark.parametrize('num_classes', [2, 5, 10])
def test_the_secret_pairs_half_of_the_classes_with_the_other_half(num_classes):
    secret = dynamarks.draw_secret(jax.random.key(1), num_classes, 3)
    signs, partner = np.asarray(secret.signs), np.asarray(secret.partner)
    assert sorted(signs) == sorted([1, -1] * (num_classes // 2) + [0] * (num_classes % 2))
    np.testing.assert_array_equal(signs[partner], -signs)
    np.testing.assert_array_equal(partner[partner], np.arange(num_classes))


def test_the_signal_of_an_image_has_the_stated_distribution():
    differences = dynamarks.differences_of(IMAGES[:1])
    keys = jax.random.split(jax.random.key(2), 2_000)
    draw = jax.jit(jax.vmap(lambda key: dynamarks.draw_secret(key, 10, 1).direction))
    signal = jax.vmap(dynamarks.signal_of, (None, 0))(differences, draw(keys))[:, 0]
    signal = np.asarray(jnp.arctanh(signal))
    assert scipy.stats.kstest(signal, 'norm').pvalue > 0.01


def test_labels_are_flipped_as_often_as_stated_and_alike_for_an_image():
    clean, _ = ask('', endpoint='labels')
    marked, state = ask('dynamarks(key=3, rate=0.8)', endpoint='labels')
    np.testing.assert_array_equal(np.unique(marked), [0, 1])
    np.testing.assert_array_equal(marked.sum(1), 1)
    secret = dynamarks.draw_secret(jax.random.key(3), 10, 1)
    signal = dynamarks.signal_of(dynamarks.differences_of(IMAGES[QUERIES]), secret.direction)
    chances = 0.8 * np.maximum(-np.asarray(signal) * np.asarray(secret.signs)[clean.argmax(1)], 0)
    flipped = marked.argmax(1) != clean.argmax(1)
    assert not flipped[chances == 0].any()
    spread = np.sqrt(np.sum(chances * (1 - chances)))
    assert abs(flipped.sum() - chances.sum()) < 3 * spread
    assert defenses.noticed(state.defense) == {'dynamarks.num_flipped': flipped.sum()}
    np.testing.assert_array_equal(
        marked[flipped].argmax(1), secret.partner[clean[flipped].argmax(1)]
    )

    again, _ = ask('dynamarks(key=3, rate=0.8)', IMAGES[QUERIES][::-1], 'labels')
    np.testing.assert_array_equal(again[::-1], marked)
    unmarked, _ = ask('dynamarks(key=3, rate=0)', endpoint='labels')
    np.testing.assert_array_equal(unmarked, clean)


@pytest.mark.parametrize('key', KEYS)
def test_a_surrogate_carries_the_mark_and_one_of_clean_answers_does_not(key):
    marked = verify(steal(ask(f'dynamarks(key={key})')[0]), key)
    clean = verify(steal(ask('')[0]), key)
    other = verify(steal(ask(f'dynamarks(key={key + 100})')[0]), key)
    assert marked.p_value <= 0.005 and marked.statistic > 0.5
    assert clean.p_value > 0.01 and abs(clean.statistic) < 0.5
    assert other.p_value > 0.01


@pytest.mark.parametrize('key', KEYS)
def test_a_surrogate_of_labels_carries_a_weaker_mark(key):
    marked = verify(steal(ask(f'dynamarks(key={key}, rate=0.8)', endpoint='labels')[0]), key)
    assert marked.p_value < 0.05


@pytest.mark.parametrize(
    'model', [LogisticRegression(max_iter=300), GaussianNB(), RandomForestClassifier(30)]
)
def test_an_innocent_model_is_as_likely_to_be_blamed_as_stated(model):
    suspect = model.fit(FLAT[QUERIES], LABELS[QUERIES]).predict_proba(FLAT[HELD_OUT])
    p_values = [verify(suspect, key, num_decoys=199).p_value for key in range(60)]
    assert scipy.stats.kstest(p_values, 'uniform').pvalue > 0.005


def test_the_statistic_is_the_partial_correlation():
    rng = np.random.default_rng(5)
    images = rng.uniform(size=(40, 6, 6, 3)).astype(np.float32)
    suspect, victim = (rng.dirichlet(np.ones(4), size=40) for _ in range(2))
    found = dynamarks.verify(suspect, victim, images, key=6, num_decoys=9)
    secret = dynamarks.draw_secret(jax.random.key(6), 4, 3)
    signal = dynamarks.signal_of(dynamarks.differences_of(images), secret.direction)
    tilt, own = (np.log(np.maximum(q, 1e-3)) @ np.asarray(secret.signs) for q in (suspect, victim))
    (_, ts, ot), (_, _, os_) = np.corrcoef([tilt, signal, own])[[0, 1]]
    expected = (ts - ot * os_) / np.sqrt((1 - ot**2) * (1 - os_**2))
    assert found.statistic == pytest.approx(expected, abs=1e-4)
    assert found.p_value * 10 == pytest.approx(round(found.p_value * 10))


@pytest.mark.devices
def test_batches_accounts_and_devices_are_answered_alike():
    images, labels = IMAGES[:16], np.eye(10, dtype=np.float32)[LABELS[:16]]
    posteriors = probe().predict_proba(FLAT[:16]).astype(np.float32)
    outputs = np.concatenate([labels[:8], posteriors[8:]])
    defense = defenses.make('dynamarks(rate=1.0)')
    state = defense.init(jax.random.key(0), outputs, images)
    keys, where = jax.random.split(jax.random.key(0), 16), np.arange(16) < 12

    @jax.jit
    def run(outputs, images, state):
        return defense.apply(outputs, state, inputs=images, where=where, keys=keys)

    together = np.asarray(run(outputs, images, state)[0])
    part = apply('dynamarks(rate=1.0)', outputs[6:11], images[6:11])
    np.testing.assert_allclose(part, together[6:11], rtol=1e-5)

    accounts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 5]), state)
    stacked, _, after = jax.jit(jax.vmap(run, in_axes=(None, None, 0)))(outputs, images, accounts)
    np.testing.assert_allclose(stacked, [together, together], rtol=1e-5)
    flipped = np.sum((together != outputs).any(1)[:8])
    np.testing.assert_array_equal(after['0_dynamarks'].num_flipped, [flipped, flipped + 5])

    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec('data'))
    sharded, _, after = run(*jax.device_put((outputs, images), spread), state)
    np.testing.assert_allclose(sharded, together, rtol=1e-5)
    assert int(after['0_dynamarks'].num_flipped) == flipped


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('dynamarks(key=-1)', 'key must be a whole number'),
        ('dynamarks(strength=-1.0)', 'strength must be a finite number of at least 0'),
        ('dynamarks(rate=1.5)', 'rate must be a finite number from 0 to 1'),
        ('gaussian_noise | dynamarks', 'it marks probabilities'),
        ('dynamarks | dynamarks', 'it marks probabilities'),
    ],
)
def test_wrong_specs_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message):
        defenses.make(spec)


def test_it_defends_classifiers_with_images_only():
    defenses.check_endpoint('dynamarks', 'labels')
    with pytest.raises(UserError, match='changes posteriors or labels'):
        defenses.check_endpoint('dynamarks', 'representation')
    with pytest.raises(UserError, match='images'):
        defenses.make('dynamarks').init(jax.random.key(0), jnp.zeros((2, 5)), jnp.zeros((2, 9)))


@pytest.mark.parametrize(
    ('suspect', 'message'),
    [
        (np.ones((597, 10)), 'suspect must be probabilities'),
        (np.full((597, 9), 1 / 9), r'suspect has the shape \(597, 9\)'),
        (np.full((5, 10), 0.1), 'each of the 597 images'),
    ],
)
def test_verify_checks_what_it_gets(suspect, message):
    with pytest.raises(UserError, match=message):
        verify(suspect, 0)
