"""Verdicts: p-values among independent encoders, families, rates."""

import numpy as np
import pytest
import scipy.stats

from ssl_extract.errors import UserError
from ssl_extract.ownership import verdict
from ssl_extract.ownership.verdict import detected, judge, p_among, rank_among


def draws(count=2_000, independents=12):
    rng = np.random.default_rng(7)
    return [(rng.normal(), rng.normal(size=independents)) for _ in range(count)]


def test_under_the_null_p_values_are_uniform():
    uniform = scipy.stats.kstest([p_among(s, null) for s, null in draws()], 'uniform')
    assert uniform.pvalue > 0.05


def test_ranks_are_uniform_over_their_steps_under_the_null():
    ranks = [rank_among(s, null) for s, null in draws()]
    counts = np.unique(ranks, return_counts=True)[1]
    assert len(counts) == 13 and scipy.stats.chisquare(counts).pvalue > 0.05


def test_a_larger_statistic_has_a_smaller_p_value():
    null = np.random.default_rng(0).normal(size=20)
    values = [p_among(s, null) for s in (-3.0, 0.0, 3.0, 6.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95 and values[-1] < 0.001  # one-sided: below the null is no evidence


def test_the_p_value_is_that_of_one_draw_against_many():
    null = np.random.default_rng(1).normal(size=9)
    pooled = scipy.stats.ttest_ind([2.0], null, alternative='greater')  # one has no spread: pooled
    assert p_among(2.0, null) == pytest.approx(pooled.pvalue, rel=1e-9)


def test_a_family_is_corrected():
    verdicts = judge([1.0, 2.0, 3.0], [0.04, 0.03, 0.01])
    assert [v.corrected for v in verdicts] == pytest.approx([0.06, 0.06, 0.03])
    assert [v.stolen for v in verdicts] == [False, False, True]


def test_rates_at_a_false_positive_rate():
    independents = np.arange(100.0)
    assert detected([94.5, 93.5], independents, 0.05).value == 0.5  # above all but five
    assert detected([98.5, 97.5], independents, 0.01).value == 0.5
    assert detected([99.5, 98.5], independents, 0.0).value == 0.5


def test_exact_intervals():
    rate = verdict.rate(3, 24)
    low, high = scipy.stats.beta.ppf([0.025, 0.975], [3, 4], [22, 21])
    assert (rate.ci_low, rate.ci_high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ('null', 'said'),
    [([0.0] * 5, 'give 8 or more'), ([1.0] * 9, 'no spread'), ([np.nan] * 9, 'finite')],
)
def test_a_null_that_tells_nothing_is_refused(null, said):
    with pytest.raises(UserError, match=said):
        p_among(1.0, null)


def test_rates_need_both_kinds():
    with pytest.raises(UserError, match='both kinds'):
        detected([1.0], [], 0.05)
