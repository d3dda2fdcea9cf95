"""The equal error rate against scikit-learn's ROC curve, and its interval by simulation."""

import numpy as np
import pytest
import scipy.interpolate
import scipy.optimize
import sklearn.metrics

from ssl_extract.errors import UserError
from ssl_extract.evaluation.verification import equal_error_rate


def clips(seed, speakers=8, each=6, spread=1.0, dim=5):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(speakers, dim))
    labels = np.repeat(np.arange(speakers), each)
    return centers[labels] + spread * rng.normal(size=(len(labels), dim)), labels


def theirs(features, labels):
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    first, second = np.triu_indices(len(labels), 1)
    same, scores = labels[first] == labels[second], (units @ units.T)[first, second]
    fpr, tpr, _ = sklearn.metrics.roc_curve(same, scores, drop_intermediate=False)
    curve = scipy.interpolate.interp1d(fpr, tpr)
    return scipy.optimize.brentq(lambda x: 1 - x - curve(x), 0, 1)


@pytest.mark.parametrize('spread', [0.3, 1.0, 3.0])
def test_the_rate_is_scikit_learns(spread):
    features, labels = clips(0, spread=spread)
    got = equal_error_rate(features, labels)
    assert got.value == pytest.approx(theirs(features, labels), abs=2e-3)
    assert got.ci_low <= got.value <= got.ci_high and got.n == 48


def test_perfect_and_useless_representations():
    features, labels = clips(1, spread=1e-3)
    assert equal_error_rate(features, labels)[:3] == (0.0, 0.0, 0.0)
    assert equal_error_rate(np.ones((48, 3)), labels).value == pytest.approx(0.5)  # all are tied


def test_neither_order_nor_scale_matters():
    features, labels = clips(2)
    order = np.random.default_rng(0).permutation(len(labels))
    value = equal_error_rate(features, labels).value
    assert equal_error_rate(7 * features[order], labels[order]).value == pytest.approx(value)


def test_the_interval_holds_the_rate_of_many_clips_about_as_often_as_it_says():
    """Of new clips of the same speakers, whose rate is known from 500 of them."""
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(5, 4))

    def draw(each):
        labels = np.repeat(np.arange(5), each)
        return centers[labels] + 1.5 * rng.normal(size=(len(labels), 4)), labels

    truth = theirs(*draw(100))
    found = [equal_error_rate(*draw(8)) for _ in range(60)]
    covered = sum(one.ci_low <= truth <= one.ci_high for one in found)
    assert 48 <= covered <= 60  # of 57 expected; the exact binomial has 48 or fewer in 1 of 10,000


@pytest.mark.parametrize(
    ('features', 'labels', 'message'),
    [
        (np.ones((3, 2)), [0, 0], 'write one for each'),
        (np.ones((3, 2)), [0, 0, 0], 'pairs of two classes'),
        (np.ones((3, 2)), [0, 1, 2], 'pairs of one class'),
        (np.full((3, 2), np.nan), [0, 0, 1], 'features'),
        (np.ones((4_001, 1)), np.zeros(4_001), '4001 inputs make too many pairs'),
    ],
)
def test_what_makes_no_trials_is_refused(features, labels, message):
    with pytest.raises(UserError, match=message):
        equal_error_rate(features, np.array(labels))
