"""The linear probe against scikit-learn and against the definition of its optimum."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_extract.errors import UserError
from ssl_extract.evaluation import probe as probe_lib
from ssl_extract.evaluation.probe import check_weights, fit_probe, logits, predict, stratified


def task(n=400, width=10, num_classes=4, signal=1.0, seed=0):
    """Features [n, width] of different scales, correlated, around class means; labels [n]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=n)
    labels[:num_classes] = np.arange(num_classes)
    centers = signal * np.random.default_rng(99).normal(size=(num_classes, width))
    mix = np.random.default_rng(98).normal(size=(width, width)) * np.logspace(0, -2, width)
    return ((centers[labels] + rng.normal(size=(n, width))) @ mix + 3).astype(np.float32), labels


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def reference(features, labels, l2):
    model = LogisticRegression(C=1 / (len(labels) * l2), solver='newton-cholesky', tol=1e-7)
    return model.fit(features, labels)


@pytest.mark.devices
def test_rows_are_shared_out_over_the_devices_and_the_optimum_is_the_same():
    """401 rows are no multiple of four: the three that are added must not count."""
    rows = probe_lib.spread(np.ones((401, 10), np.float32))
    assert {shard.data.shape for shard in rows.addressable_shards} == {(101, 10)}
    features, labels = task(n=401)
    probe = fit_probe(features, labels, 4)
    inputs = (features.astype(np.float64) - probe.mean) / probe.scale
    model = reference(inputs, labels, probe.l2)
    found, known = probe.weights - probe.weights.mean(1)[:, None], model.coef_.T
    np.testing.assert_allclose(found, known, atol=2e-3 * np.abs(known).max())
    assert np.mean(predict(probe, features) == model.predict(inputs)) > 0.99


@pytest.mark.parametrize('l2', [1.0, 1e-2, 1e-4])
def test_optimum_is_sklearns(l2):
    features, labels = task()
    probe = fit_probe(features, labels, 4, l2_grid=(l2,))
    inputs = (features.astype(np.float64) - features.mean(0, dtype=np.float64)) / features.std(
        0, dtype=np.float64
    )
    model = reference(inputs, labels, l2)
    tolerance = 2e-3 * np.abs(model.coef_).max()
    np.testing.assert_allclose(probe.weights, model.coef_.T, atol=tolerance)
    intercept = model.intercept_ - model.intercept_.mean()
    np.testing.assert_allclose(probe.bias - probe.bias.mean(), intercept, atol=tolerance)
    np.testing.assert_allclose(
        softmax(logits(probe, features)), model.predict_proba(inputs), atol=2e-3
    )
    assert probe.validation_accuracy is None and probe.gradient_norm < 1e-4


def test_gradient_vanishes_on_nearly_dependent_features():
    features, labels = task()
    features[:, 5:] = features[:, :5] + 1e-3 * features[:, 5:]
    l2 = 1e-4
    probe = fit_probe(features, labels, 4, l2_grid=(l2,))
    inputs = ((features - probe.mean) / probe.scale).astype(np.float64)
    error = softmax(inputs @ probe.weights + probe.bias) - np.eye(4)[labels]
    gradient = inputs.T @ error / len(labels) + l2 * probe.weights
    assert np.abs(gradient).max() < 2e-5
    assert np.abs(error.mean(axis=0)).max() < 2e-5


def test_l2_is_chosen_on_the_validation_part_alone():
    features, labels = task(signal=0.5, seed=3)
    grid = (1e-4, 1e-1, 10.0)
    probe = fit_probe(features, labels, 4, l2_grid=grid, seed=7)
    held_out = stratified(labels, 0.2, 7)
    inputs = (features - probe.mean) / probe.scale
    models = {l2: reference(inputs[~held_out], labels[~held_out], l2) for l2 in grid}
    scores = {l2: m.score(inputs[held_out], labels[held_out]) for l2, m in models.items()}
    assert len(set(scores.values())) > 1
    assert probe.validation_accuracy == pytest.approx(max(scores.values()))
    assert probe.l2 == max(l2 for l2 in grid if scores[l2] == max(scores.values()))
    final = reference(inputs, labels, probe.l2)  # refitted on everything
    np.testing.assert_allclose(
        softmax(logits(probe, features)), final.predict_proba(inputs), atol=2e-3
    )


def test_the_grid_shares_one_compilation(monkeypatch):
    traces, lbfgs = [], probe_lib.optax.lbfgs
    monkeypatch.setattr(probe_lib.optax, 'lbfgs', lambda: traces.append(1) or lbfgs())
    features, labels = task(n=97)
    fit_probe(features, labels, 4)
    fit_probe(features * 2, labels, 4, l2_grid=(0.3, 0.5), seed=1)
    assert len(traces) == 1


def test_shift_and_scale_of_features_do_not_matter():
    features, labels = task()
    probe = fit_probe(features, labels, 4)
    moved = (features * np.logspace(-3, 3, 10) + 5).astype(np.float32)
    other = fit_probe(moved, labels, 4)
    assert other.l2 == probe.l2
    agree = np.mean(predict(other, moved) == predict(probe, features))
    assert agree > 0.98


def test_same_input_same_bits():
    features, labels = task()
    first, second = (fit_probe(features, labels, 4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.l2 == second.l2


def test_collapsed_features_give_the_largest_class():
    labels = np.repeat([0, 1, 2, 3], [80, 200, 80, 40])
    features = np.full((400, 10), 0.1, np.float32)
    probe = fit_probe(features, labels, 4)
    np.testing.assert_array_equal(predict(probe, features), 1)
    shares = softmax(logits(probe, features))[0]
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.2, 0.1], atol=1e-3)


def test_separable_with_more_features_than_examples():
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    features = rng.normal(size=(20, 50)).astype(np.float32)
    probe = fit_probe(features, labels, 2)
    assert np.isfinite(probe.weights).all() and probe.gradient_norm < 1e-4
    np.testing.assert_array_equal(predict(probe, features), labels)


def test_stratified_takes_its_share_of_each_class():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 2 + [3] * 100)
    held_out = stratified(labels, 0.2, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[held_out]), [10, 2, 1, 20])
    np.testing.assert_array_equal(stratified(labels, 0.2, seed=0), held_out)
    assert (stratified(labels, 0.2, seed=1) != held_out).any()
    np.testing.assert_array_equal(np.bincount(labels[stratified(labels, 0.99, 0)])[2], 1)
    with pytest.raises(UserError, match='class 4 has a single training example'):
        stratified(np.append(labels, 4), 0.2, seed=0)


def test_stopping_early_is_said(monkeypatch):
    solve = probe_lib._solve
    monkeypatch.setattr(probe_lib, '_solve', lambda *args: (solve(*args)[0], np.float32(0.02), 1))
    features, labels = task()
    with pytest.warns(UserWarning, match='l2=0.0001 stopped after 300 .* norm of 2.0e-02'):
        fit_probe(features, labels, 4, l2_grid=(1e-4,))


@pytest.mark.parametrize(
    'change, message',
    [
        ({'features': np.full((400, 10), np.nan)}, 'NaN or infinity in 400 of 400 rows'),
        ({'labels': None}, 'a set with labels'),
        ({'labels': np.zeros(399, int)}, 'must be 400 integers'),
        ({'labels': np.zeros(400, int)}, 'are all of class 0: use examples of two classes'),
        ({'num_classes': 3}, r'\[0, 3\), got 0 to 3'),
        ({'l2_grid': ()}, 'l2_grid must hold numbers > 0'),
        ({'l2_grid': (0.1, 0.0)}, 'l2_grid must hold numbers > 0'),
        ({'validation_fraction': 1.0}, 'validation_fraction'),
    ],
)
def test_wrong_input_is_named(change, message):
    features, labels = task()
    given = {'features': features, 'labels': labels, 'num_classes': 4} | change
    with pytest.raises(UserError, match=message):
        fit_probe(**given)


def test_logits_that_overflow_are_no_prediction():
    features, labels = task()
    probe = fit_probe(features, labels, 4, l2_grid=(1.0,))
    with pytest.raises(UserError, match='its weights are not finite: l2=0: raise it'):
        check_weights(np.full_like(probe.weights, np.nan), probe.bias, 'l2=0: raise it')
    with pytest.raises(UserError, match='the logits of the linear probe are not finite'):
        predict(probe._replace(weights=np.float32(1e38) * probe.weights), 1e3 * features)


def test_predict_refuses_another_width():
    features, labels = task()
    probe = fit_probe(features, labels, 4, l2_grid=(1.0,))
    with pytest.raises(UserError, match='width 10, got 9'):
        predict(probe, features[:, :9])


def test_features_that_only_rounding_moves_are_said_to_be_constant():
    """Digits of 1/16 on top of a million: float32 holds them, and rounding would look alike."""
    points = (np.random.default_rng(0).integers(0, 17, (60, 8)) / 16).astype(np.float32)
    labels = np.arange(60) % 2
    with pytest.warns(UserWarning, match='taken as constant'):
        fit_probe(points + np.float32(1e6), labels, 2, l2_grid=(1e-2,))
    fit_probe(np.ones((60, 8), np.float32), labels, 2, l2_grid=(1e-2,))  # they are constant
    fit_probe(np.sign(points - 0.49), labels, 2, l2_grid=(1e-2,))  # as large as they vary
