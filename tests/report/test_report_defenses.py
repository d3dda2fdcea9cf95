"""Defenses in the report: attacker and users as pairs, the worst case, the frontier, by hand."""

import functools
import re

import numpy as np
from numpy.testing import assert_allclose
from scipy import stats
from test_report import (
    BASE,
    DEFENSE,
    Page,
    cells,
    make_bill,
    make_row,
    make_theft,
    markdown_cells,
    write,
)

from ssl_extract import report
from ssl_extract.report import defenses, estimates, labels, metrics, settings, tables
from ssl_extract.report.figures.pareto import figure_defenses
from ssl_extract.report.noticed import noticed_tables

SYBILS = '4 accounts, drop_outliers'
ADAPTIVE = {'adaptive': SYBILS, 'is_adaptive': True}
PLAIN, NOISY, ADAPTED = (0.80, 0.84, 0.82), (0.70, 0.71, 0.75), (0.78, 0.79, 0.80)
OURS, THEIRS = (0.90, 0.88, 0.89), (0.87, 0.86, 0.85)  # a user without and with the defense


def make_user(value, user='broad', **fields):
    same = {'metric': 'user_accuracy', 'user': user, 'defense': '', 'budget': 500}
    return make_row('legitimate', value, **{**same, **fields})


def make_noticed(value, make=make_theft, field='guard.num_flagged', **fields):
    same = {'task': None, 'metric': f'noticed.{field}', 'interval': None}
    same |= {'section': metrics.NOTICED, 'metric_title': field}
    return make(value, **{'defense': DEFENSE, **same, **fields})


def over_seeds(make, values, **fields):
    return [make(value, seed=seed, **fields) for seed, value in enumerate(values)]


def make_defended(defense=DEFENSE):
    return [
        *over_seeds(make_theft, PLAIN),
        *over_seeds(make_theft, NOISY, defense=defense),
        *over_seeds(make_theft, ADAPTED, defense=defense, **ADAPTIVE),
        *over_seeds(make_user, OURS),
        *over_seeds(make_user, THEIRS, defense=defense),
    ]


def changed(new, old):
    low, high = stats.ttest_rel(new, old).confidence_interval(0.95)
    delta = np.mean(new) - np.mean(old)
    return f'{100 * delta:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})'.replace('-', '−')


def line(table, defense):
    (found,) = [row for row in cells(table, '') if row['Defense'] == defense]
    return found


def test_a_defense_is_a_pair_of_the_worst_attacker_and_every_kind_of_user():
    rows = make_defended()
    rows += over_seeds(make_user, OURS, user='narrow(classes=3)')
    rows += over_seeds(make_user, OURS[::-1], user='narrow(classes=3)', defense=DEFENSE)
    table = defenses.overview(rows, 'digits')
    assert [row[0] for row in table.rows] == ['none', DEFENSE]
    assert line(table, 'none') == {
        'Defense': 'none',
        **{'Attackers': '1', 'Without it, %': '–'},
        **{'Not adaptive, %': '82.0', 'Adaptive, %': '–', 'Worst case, %': '82.0'},
        **{'Worst attack': 'direct, mse', 'User, broad, %': '89.0'},
        **{'User, narrow(classes=3), %': '89.0', 'Seeds': '3'},
    }
    row = line(table, DEFENSE)
    assert (row['Not adaptive, %'], row['Adaptive, %']) == ('72.0', '79.0')
    assert (row['Attackers'], row['Without it, %']) == ('1, 2', '82.0')
    assert row['Worst case, %'] == f'79.0; {changed(ADAPTED, PLAIN)}'
    assert row['Worst attack'] == f'direct, mse, {SYBILS}'
    assert row['User, broad, %'] == f'86.0; {changed(THEIRS, OURS)}'
    assert row['User, narrow(classes=3), %'].startswith('89.0; 0.0 (')
    assert 'chosen by its mean over seeds' in table.caption
    assert 'Fewer attackers' not in table.caption
    assert 'No adaptive attacker' not in table.caption
    assert 'No legitimate user' not in table.caption


def test_the_same_attackers_are_compared_at_one_budget_and_endpoint():
    rows = [make_theft(0.9, budget=1000), make_theft(0.8), make_theft(0.85, attack='other')]
    rows += [make_theft(0.95, endpoint='labels'), make_theft(0.7, defense=DEFENSE)]
    rows += [make_theft(0.75, budget=1000, defense=DEFENSE, plan='repeat(4)', is_adaptive=True)]
    table = defenses.overview(rows, 'digits')
    changes = {r['Budget']: r['Worst case, %'] for r in cells(table, '') if r['Defense'] != 'none'}
    assert {budget: text.split(' (')[0] for budget, text in changes.items()} == {
        '200': '70.0; −10.0',  # not against the other attack, which was not run behind it
        '1,000': '75.0; −15.0',  # it adapts, and is compared with the same attack as it is
    }
    better = 'Some attack without a defense is better than all that were run behind'
    assert f'{better}: {DEFENSE}.' in table.caption


def test_the_best_of_ten_is_no_reference_for_the_best_of_three():
    """Ten attackers without the defense, three of them behind it, and one that adapts."""
    rows = [make_theft(0.80 + i / 100, loss=f'loss{i}') for i in range(10)]
    rows += [make_theft(0.78 + i / 100, loss=f'loss{i}', defense=DEFENSE) for i in range(3)]
    rows += [make_theft(0.81, loss='loss1', defense=DEFENSE, attack='direct(adapter=True)')]
    rows[-1]['is_adaptive'] = True
    table = defenses.overview(rows, 'digits')
    row = line(table, DEFENSE)
    assert (row['Attackers'], row['Without it, %']) == ('3, 4', '82.0')
    assert row['Worst case, %'].startswith('81.0; −1.0 (')  # against 89.0 it were −8.0
    assert (row['Not adaptive, %'], row['Adaptive, %']) == ('80.0', '81.0')
    assert line(table, 'none')['Attackers'] == '10'
    assert 'make the defense look weaker than it is' in table.caption
    sybils = [make_theft(0.8, **{'attack.overlap': 0})]  # a field that only one that adapts sets
    sybils += [make_theft(0.7, defense=DEFENSE, **ADAPTIVE, **{'attack.overlap': 480})]
    assert line(defenses.overview(sybils, 'digits'), DEFENSE)['Attackers'] == '1, 1'
    chosen = [make_theft(v, strategy=s) for s, v in (('kcenter', 0.9), ('random', 0.8))]
    chosen += [make_theft(0.7, strategy='stay_close', defense=DEFENSE, is_adaptive=True)]
    table = defenses.overview(chosen, 'digits')  # it stands for both
    assert line(table, DEFENSE)['Attackers'] == '2, 1'
    assert f'look stronger than it is: {DEFENSE}.' in table.caption


def test_nothing_is_compared_with_another_attack():
    rows = [make_theft(0.9), make_theft(0.7, loss='infonce', defense=DEFENSE), make_user(0.9)]
    rows += [make_user(0.8, defense=DEFENSE)]
    table = defenses.overview(rows, 'digits')
    row = line(table, DEFENSE)
    assert (row['Attackers'], row['Without it, %'], row['Worst case, %']) == ('0, 1', '–', '70.0')
    assert f'so that nothing is compared, for: {DEFENSE}.' in table.caption
    assert figure_defenses(rows, 'digits') is None


def test_what_was_not_run_is_said():
    rows = [*over_seeds(make_theft, PLAIN), *over_seeds(make_theft, NOISY, defense='a')]
    rows += [make_user(0.9), make_user(0.8, defense='b')]
    table = defenses.overview(rows, 'digits')
    assert line(table, 'a')['Adaptive, %'] == line(table, 'a')['User, broad, %'] == '–'
    assert line(table, 'b')['Worst case, %'] == line(table, 'b')['Worst attack'] == '–'
    assert line(table, 'b')['User, broad, %'].startswith('80.0; −10.0 (')
    for words in (
        'No adaptive attacker was run for: a, b.',
        'No surrogate was evaluated for: b.',
        'No legitimate user was evaluated for: a.',
    ):
        assert words in table.caption
    assert figure_defenses(rows, 'digits') is None
    assert defenses.overview([*BASE, make_theft(0.8), make_user(0.9)], 'digits') is None


def test_an_attacker_is_adaptive_where_its_row_says_so_whatever_its_names():
    rows = [make_theft(0.8), make_theft(0.7, defense=DEFENSE, plan='repeat(times=4)')]
    rows += [make_theft(0.6, defense=DEFENSE, attack='mine', is_adaptive=True)]
    row = line(defenses.overview(rows, 'digits'), DEFENSE)
    assert (row['Not adaptive, %'], row['Adaptive, %']) == ('70.0', '60.0')
    assert row['Worst attack'] == 'direct, mse, repeat(times=4)'
    rows[2]['value'] = 0.75
    row = line(defenses.overview(rows, 'digits'), DEFENSE)
    assert row['Worst attack'] == 'mine, mse, once'


def test_every_attack_has_its_line_and_an_adaptive_one_its_plain_self_to_compare_with():
    rows = [*make_defended(), make_theft(0.6, defense=DEFENSE, plan='repeat(4)')]
    plain, adapted, lone = cells(tables.defended(rows, 'digits'), 'surrogate')
    assert (plain['Against it'], adapted['Against it']) == ('–', SYBILS)
    assert (plain['Without, %'], plain['With, %'], plain['Change']) == ('82.0', '72.0', '−10.0')
    assert (adapted['Without, %'], adapted['With, %']) == ('82.0', '79.0')
    low, high = stats.t.interval(0.95, 2, 0.79, stats.sem(ADAPTED))
    assert adapted['With: interval'] == f'{100 * low:.1f}–{100 * high:.1f}'
    assert (lone['Plan'], lone['With, %'], lone['Change']) == ('repeat(4)', '60.0', '–')


def test_users_have_a_table_of_their_own():
    rows = [*make_defended(), *over_seeds(make_user, OURS, user='augmenting(views=2)')]
    clean = {'metric': 'user_accuracy_clean', 'defense': DEFENSE}
    rows += over_seeds(make_user, (0.88, 0.89, 0.90), **clean)
    plain = {'metric': 'user_accuracy_plain', 'defense': DEFENSE}
    rows += over_seeds(make_user, (0.50, 0.51, 0.52), **plain)
    for row in rows:  # an account's queries differ by seed, as do the images of three classes
        row |= {'budget': 500 + row['seed'], 'queries_billed': 1000 + 500 * row['seed']}
        row['adaptation'] = ('', 'asked twice', 'asked twice')[row['seed']]
    found = cells(defenses.users(rows, 'digits'), 'legitimate')
    assert [row['Encoder'] for row in found] == [
        'legitimate user (augmenting(views=2))',
        *['legitimate user (broad)'] * 2,
    ]
    row = found[2]
    assert (row['Defense'], row['Accuracy, %'], row['Change']) == (DEFENSE, '86.0', '−3.0')
    assert (row['On undefended answers, %'], row['Seeds']) == ('89.0', '3')
    assert row['Answers as they come, %'] == '51.0'
    assert (row['Adapted by'], row['Billed']) == ('asked twice (2), nothing (1)', '1,000–2,000')
    assert 'Budget' not in row
    assert f'{row["Change"]} ({row["Change: interval"]})' == changed(THEIRS, OURS)


def test_a_user_of_equal_accuracy_on_two_seeds_is_still_two_runs():
    rows = over_seeds(make_user, (0.9, 0.9)) + over_seeds(make_user, (0.8, 0.9), defense=DEFENSE)
    new, old = (
        next(e for e in estimates.aggregate(rows, 'digits', 'user_accuracy') if e.defense == d)
        for d in (DEFENSE, '')
    )
    assert old.seeds == 2
    delta, _, way = estimates.difference(new, old)
    assert_allclose(delta, -0.05)
    assert way == 'paired'


def test_noticed_has_one_line_per_account_with_the_range_over_seeds():
    rows = over_seeds(make_noticed, (100.0, 300.0)) + over_seeds(
        make_noticed, (100.0, 300.0), loss='infonce'
    )
    rows += over_seeds(make_noticed, (0.25, 0.5), field='guard.coverage')
    rows += over_seeds(make_noticed, (0.25, 0.5), field='guard.coverage', loss='infonce')
    rows += [make_noticed(7.0, make=make_user, seed=seed) for seed in (0, 1)]
    rows += [make_noticed(5.0, defense='proof_of_work', field='proof_of_work.seconds')]
    noise, work = noticed_tables(rows)
    assert (noise.title, work.title) == ('gaussian_noise | round', 'proof_of_work')
    assert [row[-2:] for row in noise.rows] == [
        ['7', '–'],
        ['200 (100–300)', '0.375 (0.25–0.5)'],
    ]
    assert noise.header[-2:] == ['num_flagged', 'coverage']
    assert cells(noise, 'surrogate')[0]['Attack'] == 'direct, infonce, mse'
    assert cells(noise, 'legitimate')[0]['Encoder'] == 'legitimate user (broad)'
    assert work.rows[0][-1] == '5'


def test_frontier_has_what_no_other_beats():
    points = [(0, 0), (2, 3), (1, 5), (4, 9), (4, 8), (6, 9), (-1, -2)]
    beaten = [any(x <= a and y >= b and (x, y) != (a, b) for x, y in points) for a, b in points]
    assert sorted(settings.frontier(points)) == [i for i, b in enumerate(beaten) if not b]
    assert settings.frontier([(1, 1), (1, 1)]) == [0]


def test_strengths_are_in_the_order_of_their_numbers_and_share_a_family():
    specs = ['a(x=10)', 'a(x=9.5)', 'a(x=1e-2)', 'a', 'a(x=-1)']
    assert sorted(specs, key=settings.natural) == [specs[i] for i in (3, 4, 2, 1, 0)]
    assert {settings.family(spec) for spec in specs} == {'a'}
    nested = 'guard(t=0.1, then="noise(stddev=(1, 2)) | round") | top_k(k=3)'
    assert settings.family(nested) == 'guard | top_k'


def test_figure_shows_what_user_and_attacker_lost():
    rows = make_defended('noise(stddev=1.0)')
    rows += over_seeds(make_theft, [v - 0.2 for v in PLAIN], defense='noise(stddev=10.0)')
    for kind, loss in (('broad', 0.05), ('narrow(classes=3)', 0.08)):
        values = [v - loss for v in OURS]
        rows += over_seeds(make_user, values, user=kind, defense='noise(stddev=10.0)')
    rows += over_seeds(make_user, OURS, user='narrow(classes=3)')
    figure, note = figure_defenses(rows, 'digits')
    (axes,) = figure.axes
    assert note == ''
    (joined,) = [x for x in axes.lines if len(x.get_xdata()) == 2 and x.get_zorder() == 2][-1:]
    hollow, filled, nothing = (
        c.get_offsets()
        for c in axes.collections
        if len(c.get_paths()) == 1 and c.get_offsets().size and c.get_zorder() >= 3
    )
    assert_allclose(filled, [[3, 3], [8, 20]])  # narrow loses more than broad
    assert_allclose(hollow, [[3, 10]])
    assert_allclose(joined.get_data(), [[3, 3], [3, 10]])
    assert_allclose(nothing, [[0, 0]])
    assert [text.get_text() for text in axes.texts] == ['stddev=1.0', 'stddev=10.0']
    (frontier,) = [x for x in axes.lines if x.get_label() == 'frontier']
    assert_allclose(frontier.get_xydata(), [[0, 0], [3, 3], [8, 20]])


def test_labels_of_the_figure_do_not_cover_one_another():
    rng = np.random.default_rng(0)
    rows = [make_theft(0.9), make_user(0.9)]
    for i in range(25):
        lost, taken = rng.uniform(0, 0.2, size=2)
        rows += [make_theft(0.9 - taken, defense=f'defense{i}')]
        rows += [make_user(0.9 - lost, defense=f'defense{i}')]
    (axes,) = figure_defenses(rows, 'digits')[0].axes
    axes.figure.draw_without_rendering()
    boxes = [text.get_tightbbox() for text in axes.texts if not text.arrow_patch.get_visible()]
    assert len(axes.texts) == 25
    assert len(boxes) > 15
    overlaps = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert overlaps <= 2


def test_summary_names_the_strongest_by_its_worst_case_and_what_its_users_lost():
    lone = over_seeds(make_theft, [v - 0.2 for v in PLAIN], defense='lone')
    (words,) = report.summarize([*make_defended(), *lone])
    assert f'Under {DEFENSE}, the only defense that an attacker adapted to, the' in words
    weaker = over_seeds(make_theft, [v - 0.1 for v in PLAIN], defense='weaker')
    (words,) = report.summarize([*over_seeds(make_theft, PLAIN), *lone, *weaker])
    assert 'Under lone, the strongest of 2 defenses, the best surrogate (direct, mse)' in words
    assert 'No attacker that adapts was tried against it.' in words
    assert 'What it takes from a legitimate user was not measured.' in words
    (words,) = report.summarize(make_defended())
    assert f'the best surrogate (direct, mse, {SYBILS}) reaches 79.0 %, −3.0 points (' in words
    assert words.endswith(f'(broad) changes by {changed(THEIRS, OURS).replace(" (", " points (")}.')
    assert 'No attacker that adapts' not in words


def test_summary_compares_stealing_with_training_alone_by_few_labels():
    rows, few, trained = make_defended(), {'metric': 'fewshot'}, (0.70, 0.72, 0.71)
    alone = functools.partial(make_row, 'scratch', budget=200)
    rows += over_seeds(make_theft, PLAIN, **few) + over_seeds(alone, trained, **few)
    rows += over_seeds(make_theft, NOISY, defense=DEFENSE, **few)
    (words,) = report.summarize(rows)
    assert 'With few labels the best surrogate has 82.0 % (' in words
    ahead = changed(PLAIN, trained).replace(' (', ' points (')
    assert f'{ahead} against the one pretrained without a victim, 71.0 % (' in words
    behind = changed(NOISY, PLAIN).replace(' (', ' points (')
    assert f'Under {DEFENSE} the best (direct, mse) then has 72.0 %, {behind}.' in words


def test_summary_says_where_no_defense_is_shown_to_work():
    rows = over_seeds(make_theft, (0.80, 0.84)) + over_seeds(
        make_theft, (0.81, 0.80), defense=DEFENSE
    )
    (words,) = report.summarize(rows)
    assert 'No defense is shown to hold the attacker back.' in words
    assert re.search(r'−1\.5 points \(.*, which includes 0\)', words)
    working = over_seeds(make_theft, (0.80, 0.84)) + over_seeds(
        make_theft, (0.60, 0.645), defense=DEFENSE
    )
    assert 'No defense is shown' not in report.summarize(working)[0]


def test_labels_tell_an_adaptive_attacker_and_name_users():
    rows = [make_theft(0.8), make_theft(0.7, adaptive=SYBILS)]
    rows += [make_user(0.9, metric='linear_probe'), make_user(0.9, 'odd', metric='linear_probe')]
    found = estimates.aggregate(rows, 'digits', 'linear_probe')
    attackers = [e for e in found if e.role == 'surrogate']
    assert labels.labels(attackers) == ['mse', f'mse, {SYBILS}']
    users = [e for e in found if e.role == 'legitimate']
    assert labels.labels(users, always=()) == ['legitimate user (broad)', 'legitimate user (odd)']


def test_both_formats_show_pairs_and_nothing_twice(tmp_path):
    rows = [*BASE, *make_defended(), *over_seeds(make_noticed, (1.0, 2.0, 3.0))]
    rows += [make_noticed(4.0, make=make_user), make_user(0.9, metric='user_accuracy_clean')]
    config = {'config': {'cost': {'dollars_per_1000_queries': 1.0, 'dollars_per_hour': 1.0}}}
    md, html = write(tmp_path, rows, bill=[make_bill('a', 'r')], config=config)
    sections = re.findall(r'^## (.*)$', md, re.MULTILINE)
    assert sections == [
        *('What was stolen', 'What a defense changed', 'What a defense noticed'),
        *('What it cost', 'The query bill', 'Configuration'),
    ]
    page = Page(html)
    assert markdown_cells(md) == page.cells
    assert 'num_flagged' in page.cells and 'Against it' in page.cells
    assert not (tmp_path / 'figures' / 'defenses_1_digits.png').exists()  # a figure of one point
    more = [*over_seeds(make_theft, NOISY, defense='round'), *over_seeds(make_user, OURS)]
    more += over_seeds(make_user, THEIRS, defense='round')
    write(tmp_path, [*rows, *more])
    assert (tmp_path / 'figures' / 'defenses_1_digits.png').read_bytes().startswith(b'\x89PNG')
    assert 'nan' not in md and 'None' not in md
