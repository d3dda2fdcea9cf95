"""The paper's probe against the optimum that its descent must approach."""

import numpy as np
import pytest
from scipy import optimize

from ssl_extract.errors import UserError
from ssl_extract.evaluation.probe import predict
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd

RNG = np.random.default_rng(0)
LABELS = np.arange(30) % 3
FEATURES = (np.eye(3, 4)[LABELS] + 0.8 * RNG.normal(size=(30, 4))).astype(np.float32)


def optimum(weight_decay):
    """[5, 3] weights and bias that minimize cross-entropy + decay/2 (|weights|^2 + |bias|^2)."""
    inputs = np.concatenate([FEATURES, np.ones((30, 1))], axis=1)

    def objective(flat):
        scores = inputs @ flat.reshape(5, 3)
        log_sum = np.log(np.exp(scores).sum(axis=1))
        loss = np.mean(log_sum - scores[np.arange(30), LABELS])
        return loss + weight_decay / 2 * np.sum(flat**2)

    return optimize.minimize(objective, np.zeros(15), tol=1e-10).x.reshape(5, 3)


@pytest.mark.parametrize(
    'optimizer, learning_rate, epochs, batch_size, tolerance',
    [('sgd', 1.0, 2000, 30, 1e-3), ('adam', 1e-2, 2000, 64, 1e-3), ('sgd', 0.02, 8000, 20, 0.03)],
    ids=['sgd', 'adam with one padded batch', 'ragged batches'],
)
def test_descends_to_the_optimum(optimizer, learning_rate, epochs, batch_size, tolerance):
    probe = fit_probe_sgd(
        FEATURES,
        LABELS,
        3,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=0.05,
        epochs=epochs,
        batch_size=batch_size,
    )
    found = np.concatenate([probe.weights, probe.bias[None]])
    np.testing.assert_allclose(found, optimum(0.05), atol=tolerance)
    classes = (FEATURES @ probe.weights + probe.bias).argmax(axis=1)
    np.testing.assert_array_equal(predict(probe, FEATURES), classes)


def test_starts_like_a_pytorch_layer_and_follows_the_seed():
    runs = [
        fit_probe_sgd(FEATURES, LABELS, 3, learning_rate=1e-12, epochs=1, seed=s).weights
        for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()
    assert 0.3 < np.abs(runs[0]).max() <= 0.5  # 1 / sqrt(4)


def test_a_probe_that_diverges_is_no_result():
    """A step multiplies the weights by 1 - 30 * 0.1 = -2, beside the gradient of the loss."""
    message = r'the linear probe has diverged, its weights are not finite: learning_rate=30: lower'
    with pytest.raises(UserError, match=message) as caught:
        given = dict(optimizer='sgd', learning_rate=30, weight_decay=0.1, batch_size=5)
        fit_probe_sgd(FEATURES, LABELS, 3, **given)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'optimizer': 'lion'}, "'adam' or 'sgd', got 'lion'"),
        ({'epochs': 0}, 'epochs, batch_size >= 1'),
        ({'learning_rate': -1.0}, 'learning_rate > 0'),
        ({'weight_decay': float('nan')}, 'weight_decay >= 0'),
        ({'features': FEATURES * np.inf}, 'NaN or infinity'),
        ({'labels': 0 * LABELS}, 'are all of class 0: use examples of two classes'),
    ],
)
def test_wrong_input_is_named(change, message):
    given = {'features': FEATURES, 'labels': LABELS, 'num_classes': 3} | change
    with pytest.raises(UserError, match=message):
        fit_probe_sgd(**given)
