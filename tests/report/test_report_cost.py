"""What stealing costs in the report: the table and the break-even price against hand numbers."""

import math
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_report import BASE, DEFENSE, Page, cells, make_row, make_theft, write

from ssl_extract.report import costs
from ssl_extract.report.costs import Prices
from ssl_extract.report.figures import style
from ssl_extract.report.figures.break_even import MAX_THEFTS, figure_break_even, thefts

PRICE = Prices(per_1000_queries=2.0, per_hour=3.6)  # 0.001 dollars a second
VICTIM = make_row('victim', 0.9, seconds=10_000.0, flops=3e15)  # 10 dollars
CONFIG = {'config': {'cost': {'dollars_per_1000_queries': 2.0, 'dollars_per_hour': 3.6}}}


def make_paid_theft(value=0.81, **fields):
    """4,000 queries for 8 dollars and 2,000 seconds for 2."""
    same = {'budget': 4000, 'dollars': 8.0, 'seconds': 2000.0, 'flops': 5e14}
    return make_theft(value, **{**same, **fields})


def cost_of(rows):
    (row,) = cells(costs.spent(rows, PRICE), 'surrogate')
    return row


def test_table_gives_queries_operations_time_and_dollars():
    scratch = make_row('scratch', 0.7, budget=4000, seconds=500.0, flops=2e13, queries_billed=0)
    table = costs.spent([VICTIM, make_paid_theft(), scratch, make_row('random', 0.1)], PRICE)
    assert table.kinds == ['victim', 'surrogate', 'scratch']
    assert cells(table, 'surrogate') == [
        {
            'Encoder': 'surrogate',
            'Attack': 'direct, mse',
            'Budget': '4,000',
            'Billed': '4,000',
            'Unique': '4,000',
            'Repeated': '0',
            'Refused': '0',
            'Dollars for queries': '8.00',
            'Training, PFLOP': '0.500',
            'Training, s': '2,000',
            'Dollars for training': '2.00',
            'Dollars in all': '10.00',
        }
    ]
    (victim,), (alone,) = cells(table, 'victim'), cells(table, 'scratch')
    assert (victim['Billed'], victim['Training, PFLOP'], victim['Training, s']) == (
        *('–', '3.00', '10,000'),
    )
    assert (victim['Dollars for queries'], victim['Dollars in all']) == ('–', '10.00')
    assert (alone['Training, PFLOP'], alone['Dollars in all']) == ('0.0200', '0.500')
    assert '2.00 dollars for 1,000 queries, 3.60 dollars for an hour' in table.caption


def test_table_averages_seeds_once_however_many_values_were_measured():
    rows = [
        make_paid_theft(seed=seed, seconds=seconds, queries_repeated=seed, metric=metric, task=task)
        for seed, seconds in enumerate((1000.0, 2000.0, 6000.0))
        for metric in ('linear_probe', 'knn')
        for task in 'ab'
    ]
    row = cost_of(rows)
    assert (row['Training, s'], row['Dollars for training']) == ('3,000', '3.00')
    assert (row['Repeated'], row['Dollars in all']) == ('1', '11.00')


def test_a_time_measured_twice_for_one_seed_is_marked():
    table = costs.spent([make_paid_theft(), make_paid_theft(seconds=4000.0)], PRICE)
    (row,) = cells(table, 'surrogate')
    assert (row['Training, s'], row['Dollars in all']) == ('3,000*', '11.00*')
    assert row['Dollars for queries'] == '8.00'
    assert '* Measured more than once for one seed' in table.caption


def test_rows_of_before_are_priced_and_what_is_not_known_is_left_open():
    old = make_theft(0.8, budget=500, seconds=1800.0)
    row = cost_of([old])
    assert (row['Dollars for queries'], row['Dollars in all']) == ('1.00', '2.80')
    assert 'FLOP' not in ' '.join(row)
    given = make_row('victim', 0.9, seconds=0.0)  # a checkpoint: nothing was trained here
    table = costs.spent([given, old | {'seconds': math.nan, 'flops': math.inf}], PRICE)
    (row,) = cells(table, 'surrogate')
    assert row['Dollars for queries'] == '1.00'
    assert not re.search('nan|inf', str(table.rows))
    assert 'Dollars in all' not in table.header
    assert costs.spent([make_row('random', 0.5)], PRICE) is None


@pytest.mark.parametrize(
    ('victim', 'training', 'queries', 'expected'),
    [
        (10.0, 2.0, 4000, 2.0),
        (10.0, 0.0, 500, 20.0),
        (10.0, 9.0, 1_000_000, 0.001),
        (10.0, 10.0, 4000, None),
        (10.0, 12.0, 4000, None),
        (10.0, 2.0, 0, math.inf),
        (10.0, 12.0, 0, None),
    ],
)
def test_break_even_price(victim, training, queries, expected):
    found = costs.break_even(victim, training, queries)
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    'cost', [None, {}, {'dollars_per_hour': 1.0}, dict.fromkeys(CONFIG['config']['cost'], math.nan)]
)
def test_without_prices_there_is_no_section(tmp_path, cost):
    assert costs.prices({'config': {'cost': cost}}) is None
    md, _ = write(tmp_path, [VICTIM, make_paid_theft()], config={'config': {'seed': 1}})
    assert 'What it cost' not in md
    assert costs.prices(CONFIG) == PRICE


def test_figure_draws_a_line_for_each_attack_and_marks_where_it_meets_the_victim():
    rows = [
        VICTIM,
        make_paid_theft(0.81),
        make_paid_theft(0.6, budget=1000),  # not its largest budget
        make_paid_theft(0.88, defense=DEFENSE),
        make_paid_theft(0.45, loss='slow', seconds=11_000.0),
        make_paid_theft(0.9, attack='silent', budget=0, dollars=0.0),
    ]
    figure, note = figure_break_even(rows, 'digits', PRICE)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale(), note) == ('log', 'log', '')
    first, second, victim, price = axes.lines
    x = np.asarray(first.get_xdata())
    assert_allclose(first.get_ydata(), 4 * x + 2)
    assert_allclose(second.get_ydata(), 4 * x + 11)
    assert_allclose(victim.get_ydata(), 10)
    assert_allclose(price.get_xdata(), 2)
    assert x[0] < 0.5 and x[-1] == pytest.approx(20)
    (dot,) = axes.collections
    assert_allclose(dot.get_offsets(), [[2, 10]])
    (legend,) = figure.legends
    assert [text.get_text().replace('\\', '') for text in legend.get_texts()] == [
        'direct, mse: 4,000 queries, 90 % of the victim, even at $2.00',
        'direct, slow: 4,000 queries, 50 % of the victim, never cheaper',
    ]
    assert style.png(figure)


def test_figure_shows_the_most_accurate_attacks_and_says_so():
    rows = [VICTIM, *(make_paid_theft(0.5 + i / 100, attack=f'a{i}') for i in range(12))]
    figure, note = figure_break_even(rows, 'digits', PRICE)
    assert len(figure.axes[0].lines) == MAX_THEFTS + 2
    assert note == 'The 10 most accurate of 12 attacks are shown.'
    assert [theft.cost.estimate.attack for theft in thefts(rows, 'digits', PRICE)][:2] == [
        *('a11', 'a10'),
    ]


def test_figure_takes_the_victim_of_the_same_architecture():
    rows = [make_row('victim', 0.9, encoder='a', seconds=10_000.0)]
    rows += [make_row('victim', 0.8, encoder='b', seconds=4000.0)]
    rows += [make_paid_theft(0.4, encoder='b'), make_paid_theft(0.9, encoder='c')]
    (theft,) = thefts(rows, 'digits', PRICE)
    assert (theft.victim_dollars, theft.share, theft.price) == pytest.approx((4.0, 0.5, 0.5))


@pytest.mark.parametrize(
    ('rows', 'price'),
    [
        ([], PRICE),
        ([VICTIM], PRICE),
        ([make_paid_theft()], PRICE),
        ([make_row('victim', 0.9, seconds=0.0), make_paid_theft()], PRICE),
        ([VICTIM, make_paid_theft(seconds=None)], PRICE),
        ([VICTIM, make_paid_theft(budget=0, dollars=0.0)], PRICE),
        ([VICTIM, make_paid_theft()], Prices(2.0, 0.0)),
    ],
)
def test_nothing_is_drawn_where_nothing_can_be_compared(rows, price):
    assert figure_break_even(rows, 'digits', price) is None


def test_figure_needs_neither_a_price_nor_an_accuracy():
    rows = [VICTIM, make_paid_theft(metric='cka')]
    figure, _ = figure_break_even(rows, None, Prices(0.0, 3.6))
    assert len(figure.axes[0].lines) == 2  # the attack and the victim
    (text,) = figure.legends[0].get_texts()
    assert text.get_text().replace('\\', '') == 'direct, mse: 4,000 queries, even at $2.00'


def test_report_has_one_section_on_cost_in_both_formats(tmp_path):
    rows = [VICTIM, *BASE[1:], make_paid_theft(), make_paid_theft(0.5, budget=0, dollars=0.0)]
    rows += [row | {'task': 'other'} for row in rows]
    md, html = write(tmp_path, rows, config=CONFIG)
    titles = re.findall(r'^## (.*)', md, flags=re.MULTILINE)
    assert titles == ['What was stolen', 'What it cost', 'Configuration']
    assert md.count('break_even.png') == 1
    assert (tmp_path / 'figures' / 'break_even.png').read_bytes().startswith(b'\x89PNG')
    assert 'The victim’s data, labeled or not, and trial runs are not counted.' in md
    assert 'the linear-probe accuracy on digits in per cent' in md
    page = Page(html)
    outside = [a for a in page.addresses if not a.startswith(('data:image/png;base64,', 'data:,'))]
    assert all(a.startswith(('#', 'tables/', 'figures/')) for a in outside)
    assert 'http://' not in html and 'https://' not in html
    assert 'Dollars in all' in page.cells
    assert not re.search(r'\b(nan|inf|None)\b', md)
