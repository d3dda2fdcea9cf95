"""Intervals against scipy's."""

import numpy as np
import pytest
from scipy import stats

from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals


@pytest.mark.parametrize('correct, n', [(0, 1), (1, 1), (0, 50), (50, 50), (3, 17), (9012, 10000)])
def test_wilson_is_scipys(correct, n):
    expected = stats.binomtest(correct, n).proportion_ci(0.95, method='wilson')
    low, high = intervals.wilson(correct, n)
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=1e-12)


@pytest.mark.parametrize('correct, n', [(-1, 10), (11, 10), (0, 0)])
def test_wilson_refuses_impossible_counts(correct, n):
    with pytest.raises(UserError, match=f'got {correct} of {n}'):
        intervals.wilson(correct, n)


def test_bootstrap_is_scipys():
    values = np.random.default_rng(0).exponential(size=300)
    rng = np.random.default_rng(1)
    expected = stats.bootstrap((values,), np.mean, method='percentile', rng=rng).confidence_interval
    low, high = intervals.bootstrap(values)
    width = expected.high - expected.low
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=0.06 * width)


def test_bootstrap_is_a_function_of_values_and_seed():
    values = np.random.default_rng(0).normal(size=100)
    assert intervals.bootstrap(values, seed=3) == intervals.bootstrap(values, seed=3)
    assert intervals.bootstrap(values, seed=3) != intervals.bootstrap(values, seed=4)


def test_bootstrap_in_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(size=70)
    whole = intervals.resample_means(values)
    monkeypatch.setattr(intervals, '_CHUNK', 700)
    np.testing.assert_array_equal(intervals.resample_means(values), whole)


def test_columns_are_resampled_together():
    values = np.random.default_rng(0).normal(size=50)
    means = intervals.resample_means(np.stack([values, 2 * values + 1], axis=1))
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0] + 1)
    assert means[:, 0].std() > 0


def test_one_example_has_no_width():
    assert intervals.bootstrap(np.array([2.5])) == (2.5, 2.5)


@pytest.mark.parametrize('values', [[], [1.0, np.nan], [np.inf]])
def test_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(UserError, match='an interval needs'):
        intervals.bootstrap(np.array(values))


def test_student_is_scipys():
    draws = np.array([0.41, 0.44, 0.39, 0.47, 0.42])
    expected = stats.ttest_1samp(draws, 0).confidence_interval(0.95)
    np.testing.assert_allclose(intervals.student(draws), (expected.low, expected.high))
    with pytest.raises(UserError, match='at least 2 draws'):
        intervals.student(draws[:1])


def test_mean_and_accuracy():
    values = np.array([1.0, 2.0, 6.0])
    mean = intervals.mean(values)
    assert (mean.value, mean.n) == (3.0, 3)
    assert (mean.ci_low, mean.ci_high) == intervals.bootstrap(values)
    accuracy = intervals.accuracy(np.array([1, 1, 0, 2]), np.array([1, 0, 0, 2]))
    assert accuracy == (0.75, *intervals.wilson(3, 4), 4)


def test_accuracy_refuses_different_lengths():
    with pytest.raises(UserError, match=r'predictions \(3,\) and labels \(4,\)'):
        intervals.accuracy(np.zeros(3), np.zeros(4))
