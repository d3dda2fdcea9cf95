"""Fusion of scores and of p-values."""

import numpy as np
import pytest
import scipy.stats

from ssl_extract.errors import UserError
from ssl_extract.ownership.fusion import fisher, fused
from ssl_extract.ownership.verdict import rank_among


def draws(correlation, count=500, encoders=12, tests=3):
    """Scores of encoders that are drawn alike, of tests that are correlated, not normal."""
    rng = np.random.default_rng(6)
    common = rng.normal(size=(count, encoders, 1))
    own = rng.normal(size=(count, encoders, tests))
    return np.exp(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)


@pytest.mark.parametrize('rule', ['mean', 'max'])
def test_ranks_of_fused_scores_are_uniform_under_the_null(rule):
    p_values = [rank_among(*fused(row[0], row[1:], rule)) for row in draws(0.5)]
    counts = np.unique(p_values, return_counts=True)[1]
    assert len(counts) == 12 and scipy.stats.chisquare(counts).pvalue > 0.05
    smooth = np.array(p_values) - np.random.default_rng(0).uniform(size=len(p_values)) / 12
    assert scipy.stats.kstest(smooth, 'uniform').pvalue > 0.05


def test_a_z_score_is_against_all_others():
    null = np.random.default_rng(1).normal(size=(5, 2))
    statistic, others = fused([1.0, 2.0], null)
    expected = scipy.stats.zmap([[1.0, 2.0]], null, ddof=1).mean()
    assert statistic == pytest.approx(expected)
    rest = np.vstack([null[1:], [1.0, 2.0]])
    assert others[0] == pytest.approx(scipy.stats.zmap(null[:1], rest, ddof=1).mean())


def test_scales_do_not_matter_and_signs_do():
    null = np.random.default_rng(2).normal(size=(9, 3))
    assert fused([3, 3, 3], null)[0] == pytest.approx(fused([3, 3e9, 3], null * [1, 1e9, 1])[0])
    assert fused([3, 3, 3], null)[0] > 2 and fused([-3, -3, -3], null)[0] < -2
    one = [0.0, 0.0, 9.0]  # one test of three finds the copy
    assert fused(one, null, 'max')[0] > fused(one, null, 'mean')[0] > 2


def test_fisher_is_the_chi_square_of_logarithms_and_uniform_for_independent_tests():
    p_values = np.random.default_rng(3).uniform(size=(500, 3))
    assert fisher(p_values[0]) == pytest.approx(
        scipy.stats.chi2.sf(-2 * np.log(p_values[0]).sum(), 6)
    )
    assert scipy.stats.kstest([fisher(row) for row in p_values], 'uniform').pvalue > 0.05
    assert fisher([0.0, 0.5]) == 0 and fisher([1.0, 1.0]) == 1


@pytest.mark.parametrize(
    ('call', 'said'),
    [
        (lambda: fused([1.0], np.eye(3)[:, :1], 'median'), "rule='median': write one of mean, max"),
        (lambda: fused([1.0], np.eye(3)), 'do not fit'),
        (lambda: fused([np.nan], np.eye(3)[:, :1]), 'must be finite'),
        (lambda: fused([1.0], np.ones((9, 1))), 'test 0 are 1.0 of all other encoders'),
        (lambda: fisher([]), 'from 0 to 1'),
        (lambda: fisher([0.5, np.nan]), 'from 0 to 1'),
    ],
)
def test_scores_that_tell_nothing_are_refused(call, said):
    with pytest.raises(UserError, match=said):
        call()
