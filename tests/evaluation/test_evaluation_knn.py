"""Nearest neighbors against scikit-learn and NumPy; few-shot ridge against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from ssl_extract import evaluation
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals, knn

RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(5, 8))


def task(n, noise=1.0):
    labels = np.arange(n) % 5
    return (CENTERS[labels] + noise * RNG.normal(size=(n, 8))).astype(np.float32), labels


TRAIN, TRAIN_LABELS = task(150)
TEST, TEST_LABELS = task(61)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize('k', [1, 7, 150])
def test_infinite_temperature_is_sklearns_uniform_vote(k):
    model = KNeighborsClassifier(k, metric='cosine').fit(TRAIN, TRAIN_LABELS)
    found = knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5, k=k, temperature=math.inf)
    np.testing.assert_array_equal(found, model.predict(TEST))


@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_weighted_vote(temperature):
    found = knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5, k=40, temperature=temperature)
    expected = []
    for cosines in unit(TEST) @ unit(TRAIN).T:
        near = np.argsort(-cosines)[:40]
        weights = np.exp(cosines[near] / temperature)
        expected.append(np.bincount(TRAIN_LABELS[near], weights, minlength=5).argmax())
    np.testing.assert_array_equal(found, expected)
    uniform = knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5, k=40, temperature=math.inf)
    assert (found != uniform).any()


def test_vanishing_temperature_is_the_nearest_neighbor():
    found = knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5, k=40, temperature=1e-8)
    nearest = TRAIN_LABELS[(unit(TEST) @ unit(TRAIN).T).argmax(axis=1)]
    np.testing.assert_array_equal(found, nearest)


def test_default_k_fits_small_sets():
    found = knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5)
    np.testing.assert_array_equal(found, knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5, k=150))


@pytest.mark.parametrize('exclude_self', [False, True])
def test_blocks_do_not_matter(monkeypatch, exclude_self):
    whole = knn.neighbors(TRAIN, TRAIN, 5, exclude_self=exclude_self)
    monkeypatch.setattr(knn, '_BLOCK', 150 * 40)
    blocks = knn.neighbors(TRAIN, TRAIN, 5, exclude_self=exclude_self)
    np.testing.assert_array_equal(blocks[1], whole[1])
    np.testing.assert_allclose(blocks[0], whole[0], rtol=1e-5)


def test_no_row_is_its_own_neighbor_but_a_copy_is():
    bank = np.concatenate([TRAIN[:20], TRAIN[:20]])
    cosines, index = knn.neighbors(bank, bank, 39, exclude_self=True)
    for row, found in enumerate(index):
        np.testing.assert_array_equal(np.sort(found), np.delete(np.arange(40), row))
    np.testing.assert_array_equal(index[:, 0], (np.arange(40) + 20) % 40)
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_rows_of_zeros_have_cosine_zero():
    cosines, _ = knn.neighbors(np.zeros((3, 8), np.float32), TRAIN, 4)
    np.testing.assert_array_equal(cosines, 0)


def test_fewshot_with_all_examples_is_ridge_regression():
    found = knn.fewshot(
        TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, 5, shots=30, draws=3, ridge=0.4, seed=0
    )
    inputs = (TRAIN - TRAIN.mean(0)) / TRAIN.std(0)
    penalty = 0.4 * np.mean(np.sum(inputs**2, axis=1))
    model = Ridge(alpha=penalty).fit(inputs, np.eye(5)[TRAIN_LABELS])
    classes = model.predict((TEST - TRAIN.mean(0)) / TRAIN.std(0)).argmax(axis=1)
    expected = np.mean(classes == TEST_LABELS)
    np.testing.assert_allclose(found[:3], expected, atol=1e-6)
    assert found.n == 3


def test_fewshot_over_draws():
    args = (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, 5)
    one, many = knn.fewshot(*args, shots=1, draws=8), knn.fewshot(*args, shots=20, draws=8)
    assert 0 <= one.ci_low < one.value < one.ci_high < many.value
    assert one == knn.fewshot(*args, shots=1, draws=8)
    assert one != knn.fewshot(*args, shots=1, draws=8, seed=1)
    probe = intervals.accuracy(knn.knn_predict(TRAIN, TRAIN_LABELS, TEST, 5, k=10), TEST_LABELS)
    assert many.value > probe.ci_low


def test_fewshot_on_collapsed_features_is_chance():
    flat = np.ones((150, 4), np.float32)
    found = knn.fewshot(flat, TRAIN_LABELS, flat[:50], np.arange(50) % 5, 5, shots=2)
    assert found.value == pytest.approx(0.2)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'k': 151}, 'k=151 neighbors cannot be taken from 150'),
        ({'k': 0}, 'k=0'),
        ({'temperature': 0.0}, 'temperature must be > 0'),
        ({'test_features': TEST[:, :5]}, 'width 8, got 5'),
        ({'train_labels': TRAIN_LABELS[:9]}, 'must be 150 integers'),
        ({'train_labels': 0 * TRAIN_LABELS}, 'are all of class 0: use examples of two classes'),
        ({'train_features': TRAIN * np.nan}, 'training features hold NaN'),
    ],
)
def test_wrong_input_to_knn_is_named(change, message):
    given = {
        'train_features': TRAIN,
        'train_labels': TRAIN_LABELS,
        'test_features': TEST,
        'num_classes': 5,
    }
    with pytest.raises(UserError, match=message):
        knn.knn_predict(**given | change)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'shots': 31}, 'shots=31 per class cannot be drawn: class 0 has 30'),
        ({'draws': 1}, 'draws >= 2'),
        ({'ridge': 0.0}, 'ridge > 0'),
    ],
)
def test_wrong_input_to_fewshot_is_named(change, message):
    with pytest.raises(UserError, match=message):
        knn.fewshot(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, 5, **change)


def test_fewshot_names_wrong_test_labels():
    with pytest.raises(UserError, match='test labels must be 61 integers'):
        knn.fewshot(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS[:60], 5)


def test_mixing_is_a_half_of_one_distribution_and_nothing_of_two_that_lie_apart():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3_000, 8))
    found = knn.mixing(rows[:1_400], rows[1_400:])
    assert found.ci_low < 0.5 < found.ci_high and found.n == 2_000
    axis = 9 * np.eye(8)[0]
    assert knn.mixing(rows + axis, rows[:50] - axis).value == 0
    two = np.concatenate([rows[:30], rows[40:70]])  # by another implementation
    nearest = NearestNeighbors(n_neighbors=2, metric='cosine').fit(two).kneighbors(two)[1][:, 1]
    expected = np.mean((nearest < 30) != (np.arange(60) < 30))
    assert knn.mixing(rows[:30], rows[40:70]).value == pytest.approx(expected)
    with pytest.raises(UserError, match='two or more rows'):
        knn.mixing(rows[:1], rows)


def test_entanglement_is_of_test_inputs_with_one_label():
    rows = np.random.default_rng(1).normal(size=(90, 4)).astype(np.float32)
    labels = np.arange(90) % 3
    given = evaluation.Features('any', rows, rows[:40], labels, labels[:40], 3, labels[:40])
    assert evaluation.METRICS['entanglement'](given) is None
    one = given._replace(test_labels=np.full(40, 2))
    expected = knn.mixing(rows[:40], rows[labels == 2])
    assert evaluation.METRICS['entanglement'](one) == expected and expected.n == 60
