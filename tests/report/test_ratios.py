"""Shares of a gap and their intervals, against scipy's tests, a closed form and a simulation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from test_report import BASE, cells, make_row, make_theft

from ssl_extract import report
from ssl_extract.report import estimates, ratios, tables

STOLEN, TRAINED, UNTRAINED = (0.80, 0.83, 0.81), (0.90, 0.92, 0.86), (0.60, 0.65, 0.61)


def over_seeds(role, values, **fields):
    make = make_theft if role == 'surrogate' else lambda v, **f: make_row(role, v, **f)
    return [make(value, seed=seed, **fields) for seed, value in enumerate(values)]


def gap(rows):
    measured = estimates.aggregate(rows, 'digits', 'linear_probe')
    (surrogate,) = [e for e in measured if e.role == 'surrogate']
    return ratios.gap_recovered(surrogate, measured)


def test_the_ends_are_where_a_paired_t_test_has_a_p_value_of_5_percent():
    rows = over_seeds('surrogate', STOLEN) + over_seeds('victim', TRAINED)
    found = gap(rows + over_seeds('random', UNTRAINED))
    s, v, r = map(np.array, (STOLEN, TRAINED, UNTRAINED))
    assert_allclose(found.value, np.mean(s - r) / np.mean(v - r))
    for end in found.interval:
        assert_allclose(stats.ttest_rel(s - r, end * (v - r)).pvalue, 0.05, rtol=1e-6)
    assert found.interval[0] < found.value < found.interval[1]


def test_of_single_runs_it_is_fiellers_quadratic():
    s, v, r = 0.81, 0.9, 0.6
    found = gap([make_row('victim', v), make_row('random', r, interval=0.02), make_theft(s)])
    a, b, c = 0.03**2, 0.03**2, 0.02**2  # the squared half-widths, of s, v and r
    # (n - x d)^2 = a + c - 2 x c + x^2 (b + c), for c belongs to n and to d
    n, d = s - r, v - r
    roots = np.roots([d**2 - (b + c), -2 * (n * d - c), n**2 - (a + c)])
    assert_allclose(sorted(found.interval), sorted(roots), rtol=1e-9)


def test_a_victim_that_all_seeds_share_has_an_error_of_its_own():
    rows = over_seeds('surrogate', STOLEN) + over_seeds('random', UNTRAINED)
    wide = gap([*rows, *over_seeds('victim', (0.9,) * 3, interval=0.05)])
    narrow = gap([*rows, *over_seeds('victim', (0.9,) * 3, interval=1e-9)])
    s, r = map(np.array, (STOLEN, UNTRAINED))
    for end in narrow.interval:  # a known victim: the paired test again
        assert_allclose(stats.ttest_rel(s - r, end * (0.9 - r)).pvalue, 0.05, rtol=1e-4)
    assert wide.value == narrow.value
    assert wide.interval[0] < narrow.interval[0] and wide.interval[1] > narrow.interval[1]


@pytest.mark.parametrize('num_seeds', [1, 2, 4])
def test_it_covers_the_truth_in_95_of_100_experiments(num_seeds):
    """A victim that all seeds share, measured on 2,000 images, and seeds that move both others.

    The truth is (0.8 - 0.6) / (0.85 - 0.6).
    """
    rng, images, trials = np.random.default_rng(0), 2000, 400
    truth = {'surrogate': 0.8, 'victim': 0.85, 'random': 0.6}
    covered = 0
    for _ in range(trials):
        rows, common = [], rng.normal(0, 0.004, size=num_seeds)
        for role, value in truth.items():
            exact = rng.binomial(images, value) / images
            values = value + common + rng.normal(0, 0.004, size=num_seeds)
            values = values if num_seeds > 1 and role != 'victim' else np.full(num_seeds, exact)
            half = 1.96 * np.sqrt(exact * (1 - exact) / images)
            rows += over_seeds(role, values, interval=half)
        found = gap(rows)
        covered += found is None or found.interval[0] <= 0.8 <= found.interval[1]
    assert 0.93 <= covered / trials <= 0.99


def test_there_is_no_share_of_a_gap_that_may_be_none():
    rows = [make_row('victim', 0.64), make_theft(0.65)]
    assert gap([*rows, make_row('random', 0.6)]) is None  # 0.04 +- 0.042
    assert gap([*rows, make_row('random', 0.59)]) is not None  # 0.05 +- 0.042
    assert gap([*rows, make_row('random', 0.7)]) is None
    assert gap([*rows, make_row('random', 0.3, interval=None)]) is None  # nobody knows
    assert gap(rows) is None
    unclear = [*rows, make_row('random', 0.6)]
    assert 'Gap recovered, %' not in tables.stolen(unclear, 'digits').header
    assert 'The attacker recovered' not in report.summarize(unclear)[0]


def test_table_and_summary_show_the_interval():
    rows = [*BASE, make_theft(0.81)]
    low, high = (f'{100 * end:.0f}' for end in gap(rows).interval)
    (row,) = cells(tables.stolen(rows, 'digits'), 'surrogate')
    assert row['Gap recovered, %'] == f'70 ({low}–{high})'
    assert f'The attacker recovered 70 % ({low}–{high}) of what' in report.summarize(rows)[0]
