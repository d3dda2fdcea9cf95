"""What a user does about a defense: repaired answers, averages, and a choice without the tests."""

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from ssl_extract import users
from ssl_extract.errors import UserError
from ssl_extract.recovery import Received
from ssl_extract.users import Adapted, Labeled

RECOVERIES = ('', 'drop_outliers', 'shrink')


def received(answers, answered=None):
    answers = np.asarray(answers, np.float32)
    answers = answers[:, None] if answers.ndim == 2 else answers
    answered = np.ones(answers.shape[:2], bool) if answered is None else np.array(answered, bool)
    return Received(None, answers * answered[..., None], answered)


def logistic(features, labels):
    """A probe as the pipeline's: standardized features, one fixed penalty."""
    if len(set(labels)) < 2:
        return None
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    model = LogisticRegression(C=1 / (len(labels) * 1e-2), max_iter=200)
    model.fit((features - mean) / scale, labels)
    return lambda rows: model.predict((rows - mean) / scale)


def best_of(given, labeled, recoveries=RECOVERIES):
    tried = [users.adapt(given, recover) for recover in recoveries]
    return tried[users.choose(tried, labeled, logistic, 0)]


@functools.cache
def pixels():
    """Digits as answers, 600 labeled ones first, and their classes."""
    order = np.random.default_rng(0).permutation(1797)
    images, labels = load_digits(return_X_y=True)
    return images[order].astype(np.float32), labels[order]


def accuracy(adapted, labels, count=600):
    kept = adapted.kept[:count]
    classify = logistic(adapted.features[:count][kept], labels[:count][kept])
    return np.mean(classify(adapted.features[count:]) == labels[count:])


def test_replaced_answers_spoil_a_probe_only_if_the_user_keeps_them():
    """2.7 % of the answers become N(1000, 20^2), as a guard against similar queries does."""
    clean, labels = pixels()
    rng = np.random.default_rng(1)
    answers = clean.copy()
    replaced = rng.random(len(answers)) < 0.027
    answers[replaced] = rng.normal(1000, 20, (replaced.sum(), 64))
    labeled = Labeled(labels[:600], np.arange(600))
    plain, best = users.adapt(received(answers)), best_of(received(answers), labeled)
    undefended = accuracy(users.adapt(received(clean)), labels)
    assert accuracy(plain, labels) < undefended - 0.1
    assert best.name == 'drop_outliers'
    assert not best.kept[replaced].any() and best.kept[~replaced].mean() > 0.99
    # what is dropped among the tests stays wrong
    assert accuracy(best, labels) > undefended - replaced[600:].mean() - 0.015


def test_the_mean_of_m_answers_has_an_mth_of_the_variance():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 4, 16))
    once, mean = (users.adapt(received(noise[:, :m])) for m in (1, 4))
    assert abs(mean.features.var() / once.features.var() - 1 / 4) < 0.02
    assert (once.name, mean.name) == ('', 'mean of 4')


def test_the_mean_is_over_the_answers_that_came_and_were_kept():
    answers = np.array([[[1.0], [3.0]], [[2.0], [2.0]], [[2.0], [700.0]], [[900.0], [800.0]]])
    answered = np.array([[1, 1], [1, 0], [1, 1], [1, 1]])
    found = users.adapt(received(answers, answered), 'drop_outliers')
    assert_allclose(found.features[:, 0], [2, 2, 2, 850])
    assert_array_equal(found.kept, [True, True, True, False])
    assert found.granted.all() and found.name == 'mean of 2, drop_outliers'


def test_of_no_answers_nothing_is_made():
    found = users.adapt(received(np.zeros((3, 2)), np.zeros((3, 1))), 'drop_outliers')
    assert not found.granted.any() and not found.kept.any() and not found.features.any()


def test_the_choice_is_by_validation_inputs_alone_and_keeps_the_views_of_one_together():
    """The features are the number of the input, so that a classifier shows what it was given."""
    inputs = np.repeat(np.arange(20), 3)
    features = np.concatenate([inputs, np.full(40, 99)]).astype(np.float32)[:, None]
    seen = []

    def fit(features, labels):
        learned = set(features[:, 0])

        def classify(rows):
            seen.append((learned, set(rows[:, 0])))
            return np.zeros(len(rows), int)

        return classify

    every = np.ones(100, bool)
    tried = [Adapted(name, features, every, every) for name in ('', 'other')]
    assert users.choose(tried, Labeled(np.zeros(60, int), inputs), fit, 3) == 0
    assert len(seen) == 2 * 5
    for learned, held_out in seen:
        assert len(held_out) == 4 and learned | held_out == set(range(20))
        assert not learned & held_out
    assert sorted(number for _, held_out in seen for number in held_out) == sorted(2 * [*range(20)])


def test_of_many_inputs_a_fifth_is_enough():
    labels, every = np.arange(1000) % 2, np.ones(1000, bool)
    sizes = []

    def fit(features, labels):
        sizes.append(len(features))
        return lambda rows: np.zeros(len(rows), int)

    tried = [Adapted(name, np.zeros((1000, 1)), every, every) for name in ('', 'other')]
    users.choose(tried, Labeled(labels, np.arange(1000)), fit, 0)
    assert sizes == [800, 800]


def test_an_answer_that_did_not_come_is_wrong_and_no_classifier_is_the_worst():
    labels, inputs = np.arange(40) % 2, np.arange(40)
    features = np.where(labels, 1.0, -1.0).astype(np.float32)[:, None]
    every = np.ones(40, bool)
    half = np.arange(40) < 20
    tried = [
        Adapted('half', features, half, half),
        Adapted('of one class', features, every, labels == 1),
        Adapted('all', features, every, every),
    ]
    choose = functools.partial(users.choose, labeled=Labeled(labels, inputs), fit=logistic, seed=0)
    assert choose(tried) == 2
    assert choose(tried[:2]) == 0
    assert choose(tried[:1]) == 0


def test_a_recovery_with_an_encoder_is_none_of_a_users():
    for recover in RECOVERIES:
        users.check(recover)
    with pytest.raises(UserError, match="'denoise' learns from an encoder of the attacker's own"):
        users.check('denoise')
    with pytest.raises(UserError, match="did you mean 'shrink'"):
        users.check('shrinc')
