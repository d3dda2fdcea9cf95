"""Losses as shares of headroom: the floors by name, both sides alike, and the words for them."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_report import DEFENSE, build, cells, make_row, make_theft
from test_report_defenses import SYBILS, make_user

from ssl_extract import report
from ssl_extract.report import estimates, headroom, metrics, settings
from ssl_extract.report.figures.pareto import figure_defenses

NARROW = 'narrow(classes=3)'


def make_rows(interval=0.001, defense=DEFENSE, lost=(0.058, 0.016)):
    """The attacker loses 5.8 of 20 points over an untrained encoder, the user 1.6 of 5.5."""
    attacker, user = lost
    rows = [make_row('victim', 0.53), make_row('random', 0.386, interval=interval)]
    rows += [make_row('scratch', 0.446, budget=200, interval=interval)]
    rows += [make_theft(0.586, interval=interval)]
    rows += [make_theft(0.586 - attacker, interval=interval, defense=defense)]
    rows += [make_user(0.415, interval=interval)]
    rows += [make_user(0.415 - user, interval=interval, defense=defense)]
    rows += [make_user(0.36, interval=interval, metric='user_untrained')]
    rows += [make_user(0.1, interval=interval, metric='user_chance')]
    return rows + [make_user(0.8, interval=0.01, metric='answer_change', defense=defense)]


def lines(rows):
    return {row['Loss of']: row for row in cells(headroom.headroom(rows, 'digits'), '')}


def leading(row):
    return {name: text.split(' (')[0] for name, text in row.items()}


def test_losses_of_unlike_headroom_may_be_alike():
    found = lines(make_rows())
    attacker, user = found['attacker'], found['user, broad']
    assert leading(attacker) == {
        **{'Defense': DEFENSE, 'Answers moved, SD': '0.8', 'Loss of': 'attacker'},
        **{'Points': '+5.8', 'Over untrained, %': '29', 'Over chance, %': '–'},
        'Over from scratch, %': '41',  # 5.8 / (58.6 - 44.6)
    }
    assert leading(user) == {
        **{'Defense': DEFENSE, 'Answers moved, SD': '0.8', 'Loss of': 'user, broad'},
        **{'Points': '+1.6', 'Over untrained, %': '29', 'Over from scratch, %': '–'},
        'Over chance, %': '5',  # 1.6 / (41.5 - 10)
    }
    assert re.fullmatch(r'29 \(\d\d–\d\d\)', attacker['Over untrained, %'])
    assert attacker['Points'] == '+5.8 (+5.7 to +5.9)'


def test_the_share_and_its_interval_are_those_of_the_seeds():
    rows = make_rows()
    plain, behind, floor = (0.80, 0.84, 0.82), (0.70, 0.71, 0.75), (0.60, 0.63, 0.60)
    rows = [row for row in rows if row['role'] == 'legitimate']
    for seed, values in enumerate(zip(plain, behind, floor, strict=True)):
        rows += [make_theft(values[0], seed=seed), make_row('random', values[2], seed=seed)]
        rows += [make_theft(values[1], seed=seed, defense=DEFENSE)]
    every, among = settings.settings(rows, 'digits'), headroom.floors(rows, 'digits')
    loss = headroom.of_attacker(every[1], every[1].worst, among)
    share = loss.shares['untrained']
    assert_allclose(share.value, np.mean(np.subtract(plain, behind)) / (0.82 - 0.61))
    assert_allclose(loss.change.delta, -0.1)
    assert loss.shares['from scratch'] is None  # there is none


def test_nothing_is_shown_over_a_floor_that_is_as_good():
    rows = make_rows(interval=0.045)
    found = lines(rows)
    assert found['user, broad']['Over untrained, %'] == '–'  # 5.5 +- 6.4
    assert found['user, broad']['Over chance, %'] != '–'
    assert 'not clearly positive' in headroom.headroom(rows, 'digits').caption


@pytest.mark.parametrize('lacking', ['user_chance', 'user_untrained', 'answer_change'])
def test_a_column_of_what_was_not_measured_is_left_out(lacking):
    rows = [row for row in make_rows() if row['metric'] != lacking]
    column = {'user_chance': 'Over chance, %', 'answer_change': 'Answers moved, SD'}.get(lacking)
    found = lines(rows)['user, broad']
    assert column not in found
    assert ('29' in found['Over untrained, %']) == (lacking != 'user_untrained')


def test_the_best_of_the_same_attackers_is_on_both_sides():
    rows = make_rows() + [make_theft(0.9, loss='only undefended', interval=0.001)]
    assert leading(lines(rows)['attacker'])['Points'] == '+5.8'
    adapted = {'adaptive': SYBILS, 'is_adaptive': True}
    rows += [make_theft(0.57, defense=DEFENSE, interval=0.001, **adapted)]
    assert leading(lines(rows)['attacker'])['Points'] == '+1.6'


def test_the_figure_in_shares_has_the_same_floor_on_both_axes_and_no_line_of_equal_points():
    rows = make_rows() + make_rows(defense='round(decimals=1)', lost=(0.02, 0.03))
    for shares in (False, True):
        figure, _ = figure_defenses(rows, 'digits', shares=shares)
        (axes,) = figure.axes
        points = [
            c.get_offsets()[0]
            for c in axes.collections
            if len(c.get_paths()) == 1 and c.get_offsets().size and c.get_zorder() == 4
        ]
        expected = [[1.6, 5.8], [3, 2], [0, 0]]
        if shares:
            expected = [[100 * 1.6 / 5.5, 29], [100 * 3 / 5.5, 10], [0, 0]]
        assert_allclose(points, expected)
        assert all(line.get_linestyle() != ':' for line in axes.lines)
    assert '% of headroom over untrained' in axes.get_xlabel()
    without = [row for row in rows if row['metric'] != 'user_untrained']
    assert figure_defenses(without, 'digits', shares=True) is None


def test_the_report_has_both_units_side_by_side():
    rows = make_rows() + make_rows(defense='round(decimals=1)', lost=(0.02, 0.03))
    section = next(s for s in build(rows).sections if s.title == metrics.CHANGED)
    names = [getattr(item, 'title', None) or item.name for item in section.items]
    assert names[:4] == [
        *('On digits', 'On digits, losses as shares of headroom'),
        *('defenses_1_digits', 'headroom_1_digits'),
    ]
    captions = ' '.join(item.caption for item in section.items)
    assert 'dotted' not in captions and 'lose alike' not in captions
    (words,) = report.summarize(make_rows())
    assert '−5.8 points (−5.9 to −5.7) against the best of the same attacks without a' in words
    assert re.search(
        r'a loss of 29 % \(\d\d–\d\d\) of its headroom over untrained\. No attack', words
    )
    assert len(re.findall('of its headroom over untrained', words)) == 2


def test_every_kind_of_user_has_floors_of_its_own():
    rows = make_rows()
    rows += [make_user(0.9, NARROW), make_user(0.8, NARROW, defense=DEFENSE)]
    rows += [make_user(0.4, NARROW, metric='user_chance')]
    found = lines(rows)
    assert leading(found[f'user, {NARROW}'])['Over chance, %'] == '20'
    assert found[f'user, {NARROW}']['Over untrained, %'] == '–'
    assert leading(found['user, broad'])['Over chance, %'] == '5'
    (user,) = [
        user
        for s in settings.settings(rows, 'digits')
        for user in s.users.values()
        if user.change and user.kind == NARROW
    ]
    assert isinstance(user.without, estimates.Estimate) and user.without.value == 0.9
