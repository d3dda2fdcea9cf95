"""Suspects of known truth: rates of tests, groups that survive, the report on them."""

import csv

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from ssl_extract.errors import UserError
from ssl_extract.ownership import known_truth, page, verdict
from ssl_extract.ownership.known_truth import Truth
from ssl_extract.ownership.scoring import Score

RNG = np.random.default_rng(8)
NULL = RNG.normal(size=40)
FOUND = RNG.normal(loc=[0.0] * 10 + [4.0] * 10, size=20)
TRUTHS = {f's{n}': Truth(True, 'mse', 500 if n < 10 else 4_000) for n in range(20)}
TRUTHS['other'] = Truth(False, 'the same data')


def row(name, statistic, role='suspect', test='gap', p=None):
    p = verdict.p_among(statistic, NULL) if p is None else p
    return Score(name, role, test, statistic, 100, p, p, 'none', 'independents')


ROWS = [
    *(row(f's{n}', value) for n, value in enumerate(FOUND)),
    row('other', 3.5),
    *(
        row(f'i{n}', value, 'independent', p=verdict.p_among(value, np.delete(NULL, n)))
        for n, value in enumerate(NULL)
    ),
]


def test_rates_are_those_of_other_libraries():
    (rates,) = known_truth.rates(ROWS, TRUTHS)
    p_values = [r.p_value for r in ROWS[21:]]
    assert rates.uniform == scipy.stats.kstest(p_values, 'uniform').pvalue > 0.05
    wrong = sum(p < 0.05 for p in p_values)
    low, high = scipy.stats.binomtest(wrong, 40).proportion_ci(method='exact')
    assert rates.accused == (wrong / 40, low, high, 40) and low < 0.05 < high
    labels = [1] * 20 + [0] * 40
    area = metrics.roc_auc_score(labels, [*FOUND, *NULL])
    assert rates.curve.auc.value == pytest.approx(area)
    fpr, tpr, _ = metrics.roc_curve(labels, [*FOUND, *NULL], drop_intermediate=False)
    for allowed, measured in zip(known_truth.ALLOWED, rates.at, strict=True):
        assert measured.value == tpr[fpr <= allowed].max() and measured.n == 20
    assert rates.found.value == np.mean([r.p_value < 0.05 for r in ROWS[:20]])


def test_a_suspect_that_is_refused_is_not_found():
    gone = [r._replace(statistic=None, p_value=None) for r in ROWS[10:14]]
    (rates,), (all_rates,) = (
        known_truth.rates(rows, TRUTHS) for rows in ([*ROWS[:10], *gone, *ROWS[14:]], ROWS)
    )
    assert rates.found.n == rates.at[0].n == 20
    lost = sum(r.p_value < 0.05 for r in ROWS[10:14])
    assert round(20 * rates.found.value) == round(20 * all_rates.found.value) - lost
    assert rates.at[1].value < all_rates.at[1].value
    lowest = [*FOUND[:10], *[-99.0] * 4, *FOUND[14:]]
    area = metrics.roc_auc_score([1] * 20 + [0] * 40, [*lowest, *NULL])
    assert rates.curve.auc.value == pytest.approx(area)


def test_an_independent_that_was_not_judged_is_no_acquittal():
    silent = [r._replace(p_value=None) for r in ROWS[21:31]]
    (rates,) = known_truth.rates([*silent, *ROWS[31:]])
    assert rates.accused.n == 30


def test_without_truths_only_independents_are_counted():
    (rates,) = known_truth.rates(ROWS)
    assert rates.accused == known_truth.rates(ROWS, TRUTHS)[0].accused
    assert rates.found is None and rates.at == () and rates.curve is None


def test_suspects_that_were_made_alike_are_one_row():
    few, many, other = known_truth.groups(ROWS, TRUTHS)
    assert [g.truth for g in (few, many, other)] == list(dict.fromkeys(TRUTHS.values()))
    assert many.found.value > few.found.value and many.found.n == 10 and many.refused == 0
    assert many.p_value == np.median([r.p_value for r in ROWS[10:20]])
    assert other.found.value == 1.0 and not other.truth.stolen
    refused = [r._replace(statistic=None, p_value=None) for r in ROWS[:10]]
    few, *_ = known_truth.groups([*refused, *ROWS[10:]], TRUTHS)
    assert few.found is None and few.p_value is None and few.refused == 10


def test_truths_are_read_as_they_were_written(tmp_path):
    path = tmp_path / 'truth.csv'
    path.write_text(known_truth.as_csv(TRUTHS))
    assert known_truth.read(path) == TRUTHS


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('encoder,truth,how\na,stolen,mse', 'line 2: write the columns encoder,truth,how,queries'),
        ('encoder,truth,how,queries\na,stolen', 'line 2: write the columns'),
        ('encoder,truth,how,queries\na,stolen,mse,1,2', 'line 2: write the columns'),
        ('encoder,truth,how,queries\na,copied,mse,1', "truth is 'copied': write 'stolen' or"),
        ('encoder,truth,how,queries\na,stolen,mse,1.5', "queries is '1.5': write a whole number"),
        ('encoder,truth,how,queries\na,stolen,x,\na,stolen,x,', 'line 3: a was there before'),
    ],
)
def test_a_wrong_table_is_refused(text, said, tmp_path):
    path = tmp_path / 'truth.csv'
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        known_truth.read(path)
    with pytest.raises(UserError, match='is not there: write a CSV'):
        known_truth.read(tmp_path / 'none.csv')
    with pytest.raises(UserError, match='suspect b is not in the table of truths'):
        known_truth.check({'a': TRUTHS['s0']}, ['b'])


def test_the_report_shows_what_survives(tmp_path):
    second = [r._replace(test='other(a=1)', statistic=None, p_value=None) for r in ROWS[:3]]
    page.write(tmp_path, [*ROWS, *second], TRUTHS, title='Tests')
    words = (tmp_path / 'report.md').read_text()
    count = sum(r.p_value < 0.05 for r in ROWS[10:20])
    assert f'| mse, 4,000 queries | {count}/10, p ' in words and '| independent: the same' in words
    with (tmp_path / 'tables/what_survives.csv').open() as file:
        table = list(csv.DictReader(file))
    assert table[0]['other(a=1)'] == 'refused' and table[1]['other(a=1)'] == '–'
    for name in ('survival', 'roc'):
        assert (tmp_path / f'figures/{name}.png').stat().st_size > 5_000
        assert f'figures/{name}.png' in words
    html = (tmp_path / 'report.html').read_text()
    assert html.count('<img') == 2 and 'False accusations' in html


def test_the_report_on_unknown_suspects_shows_the_verdicts(tmp_path):
    page.write(tmp_path, ROWS)
    words = (tmp_path / 'report.md').read_text()
    assert '## Verdicts' in words and '## What survives' not in words
    assert '| s12 | gap |' in words and '| i3 | gap |' not in words
    always = [r._replace(p_value=0.01) for r in ROWS]
    page.write(tmp_path, always)
    assert (
        'accuse more than 5 % of independent encoders: gap' in (tmp_path / 'report.md').read_text()
    )
