"""Sets that declare classes without examples, as emnist/letters does, against scikit-learn."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_extract import data, evaluation
from ssl_extract.errors import UserError
from ssl_extract.evaluation import fit_probe, fit_probe_sgd, knn, predict
from ssl_extract.evaluation.assess import assess
from ssl_extract.evaluation.probe import logits

RNG = np.random.default_rng(0)
NUMBERS = np.array([1, 4, 5, 9])  # of the four classes that occur, of twelve
DENSE = np.arange(160) % 4
CENTERS = RNG.normal(size=(4, 6))
FEATURES = (CENTERS[DENSE] + RNG.normal(size=(160, 6))).astype(np.float32)
TRAIN, TEST = FEATURES[:100], FEATURES[100:]
LABELS = NUMBERS[DENSE]


@pytest.mark.parametrize('grid', [(0.01,), (0.001, 0.01, 1.0)])
def test_the_probe_is_that_of_the_classes_that_occur(grid):
    probe = fit_probe(TRAIN, LABELS[:100], 12, l2_grid=grid)
    inputs = (TRAIN - TRAIN.mean(0)) / TRAIN.std(0)
    model = LogisticRegression(C=1 / (100 * probe.l2), tol=1e-7, solver='newton-cholesky')
    model.fit(inputs, LABELS[:100])
    np.testing.assert_allclose(probe.weights[:, NUMBERS], model.coef_.T, atol=5e-3)
    np.testing.assert_array_equal(
        predict(probe, TEST), model.predict((TEST - TRAIN.mean(0)) / TRAIN.std(0))
    )
    probabilities = np.asarray(jax.nn.softmax(logits(probe, TEST)))
    absent = np.setdiff1d(np.arange(12), NUMBERS)
    assert (probabilities[:, absent] == 0).all() and np.isfinite(probe.bias).all()
    np.testing.assert_allclose(
        probabilities[:, NUMBERS],
        model.predict_proba((TEST - TRAIN.mean(0)) / TRAIN.std(0)),
        atol=2e-3,
    )


def test_all_classifiers_give_what_they_give_to_dense_classes():
    dense, declared = (DENSE[:100], 4), (LABELS[:100], 12)
    for fit in (fit_probe, lambda *args: fit_probe_sgd(*args, learning_rate=1e-2, epochs=20)):
        first, second = (fit(TRAIN, *given) for given in (dense, declared))
        np.testing.assert_array_equal(NUMBERS[predict(first, TEST)], predict(second, TEST))
    first, second = (
        knn.knn_predict(TRAIN, labels, TEST, classes, k=9) for labels, classes in (dense, declared)
    )
    np.testing.assert_array_equal(NUMBERS[first], second)
    few = knn.fewshot(TRAIN, LABELS[:100], TEST, LABELS[100:], 12, shots=5)
    assert few == knn.fewshot(TRAIN, DENSE[:100], TEST, DENSE[100:], 4, shots=5)
    with pytest.raises(UserError, match='cannot be drawn: class 1 has 25 training examples'):
        knn.fewshot(TRAIN, LABELS[:100], TEST, LABELS[100:], 12, shots=26)


def test_every_metric_of_a_task():
    sets = [
        data.Dataset(inputs, labels, 12, name)
        for name, inputs, labels in (('a', TRAIN, LABELS[:100]), ('b', TEST, LABELS[100:]))
    ]
    task = evaluation.Task('letters', *sets)
    evaluation.check_task(task)
    victim = assess(lambda x: x, [task], neighbors=5)
    rows = assess(lambda x: 2 * x + 1, [task], victim=victim.arrays, neighbors=5).measured
    values = {row['metric']: row['value'] for row in rows}
    assert len(values) == 9 and values['agreement'] > 0.95 and values['linear_probe'] > 0.6


def test_one_class_alone_is_refused():
    for fit in (fit_probe, fit_probe_sgd, lambda x, y, k: knn.knn_predict(x, y, x, k)):
        with pytest.raises(UserError, match='training labels are all of class 4: use examples of'):
            fit(TRAIN, np.full(100, 4), 12)
