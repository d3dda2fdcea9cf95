"""The report: numbers by hand and against scipy, both formats, partial and hostile input."""

import json
import math
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from etils import epath
from numpy.testing import assert_allclose
from scipy import stats

from ssl_extract import evaluation, report
from ssl_extract.errors import UserError
from ssl_extract.report import estimates, labels, metrics, page, tables
from ssl_extract.report.figures import style
from ssl_extract.report.figures.accuracy import figure_accuracy

DEFENSE = 'gaussian_noise(stddev=1.0) | round(decimals=2)'


def make_row(role, value, *, interval=0.03, **fields):
    row = {
        **dict.fromkeys(('attack', 'loss', 'defense', 'budget', 'plan', 'encoder')),
        **{'role': role, 'seed': 0, 'task': 'digits', 'metric': 'linear_probe', 'value': value},
        **{'ci_low': None, 'ci_high': None, 'n': 500, 'seconds': 1.0},
        **dict.fromkeys(f'queries_{k}' for k in ('billed', 'unique', 'repeated', 'refused')),
    }
    if interval is not None:
        row |= {'ci_low': value - interval, 'ci_high': value + interval}
    return row | fields


def make_theft(value, **fields):
    budget = fields.get('budget', 200)
    paid = {'queries_billed': budget, 'queries_unique': budget, 'queries_repeated': 0}
    same = {'attack': 'direct', 'loss': 'mse', 'defense': '', 'plan': 'once', 'budget': budget}
    return make_row('surrogate', value, **{**same, **paid, 'queries_refused': 0, **fields})


BASE = [make_row('victim', 0.9), make_row('random', 0.6), make_row('scratch', 0.7, budget=200)]


def make_full():
    rows = [*BASE]
    for seed in range(2):
        for budget in (100, 1000):
            for loss in ('mse', 'infonce'):
                for defense in ('', DEFENSE):
                    key = {'loss': loss, 'defense': defense, 'budget': budget, 'seed': seed}
                    value = 0.65 + 0.05 * math.log10(budget) + 0.01 * seed - 0.1 * bool(defense)
                    rows.append(make_theft(value, **key))
                    rows.append(make_theft(value - 0.02, metric='knn', **key))
                    rows.append(make_theft(0.8, metric='cka', **key))
    rng = np.random.default_rng(0)
    views = [
        {'title': name, 'points': rng.normal(size=(60, 2)), 'labels': np.arange(60) % 10}
        for name in ('victim', 'surrogate')
    ]
    curves = {
        f'surrogate mse: 100 queries, seed {seed}': [
            {'step': step, 'loss': 1.0 / (step + 1)} for step in range(5)
        ]
        for seed in range(2)
    }
    return {'rows': rows, 'views': views, 'curves': curves, 'bill': [make_bill('a', 'run')]}


def shown_as(metric):
    """The columns of a registered metric."""
    return {'metric': metric, **evaluation.presentation(metric)}


def build(rows):
    return page.build(rows, config={}, curves={}, views=[], bill=[], title='Report')


def make_bill(account, run, billed=100, **fields):
    same = {'unique': billed, 'repeated': 0, 'refused': 3, 'budget': 100, 'plan': 'once'}
    return {'account': account, 'run': run, 'billed': billed, **same, **fields}


def write(workdir, rows=(), *, config=None, curves=None, views=(), bill=(), title='Report'):
    report.write(
        epath.Path(workdir),
        list(rows),
        **{'config': config or {}, 'curves': curves or {}, 'views': list(views)},
        **{'bill': list(bill), 'title': title},
    )
    return (workdir / 'report.md').read_text(), (workdir / 'report.html').read_text()


def cells(table, kind):
    return [
        dict(zip(table.header, row, strict=True))
        for row, k in zip(table.rows, table.kinds, strict=True)
        if k == kind
    ]


def test_stolen_table_of_one_seed_shows_the_rows_own_intervals_and_the_gap():
    table = tables.stolen([*BASE, make_theft(0.81)], 'digits')
    assert table.kinds == ['victim', 'surrogate', 'scratch', 'random']
    assert cells(table, 'surrogate') == [
        {
            'Encoder': 'surrogate',
            'Attack': 'direct, mse',
            'Budget': '200',
            'Accuracy, %': '81.0',
            '95 % interval': '78.0–84.0',
            'Seeds': '1',
            'Queries billed': '200',
            'Gap recovered, %': '70 (58–83)',  # (0.81 - 0.6) / (0.9 - 0.6)
        }
    ]
    assert cells(table, 'scratch')[0]['Gap recovered, %'].startswith('33 (')
    assert cells(table, 'victim')[0]['Gap recovered, %'] == '–'
    assert 'over the test inputs of one run' in table.caption
    assert 't-interval' not in table.caption


def test_seeds_are_averaged_with_the_t_interval_of_the_mean():
    values = [0.80, 0.83, 0.81]
    rows = [*BASE, *(make_theft(v, seed=seed) for seed, v in enumerate(values))]
    (found,) = [e for e in estimates.aggregate(rows, 'digits', 'linear_probe') if e.attack]
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert_allclose(found.value, np.mean(values))
    assert_allclose(found.interval, expected, rtol=1e-12)
    (row,) = cells(tables.stolen(rows, 'digits'), 'surrogate')
    assert (row['Accuracy, %'], row['Seeds']) == ('81.3', '3')
    assert row['95 % interval'] == f'{100 * expected[0]:.1f}–{100 * expected[1]:.1f}'
    assert 't-interval of that mean over seeds' in tables.stolen(rows, 'digits').caption


def test_interval_of_two_seeds_is_cut_to_what_a_proportion_can_be():
    rows = [make_theft(0.90, seed=0), make_theft(0.99, seed=1)]  # 0.945 +- 12.7 * 0.045
    assert tables.stolen(rows, 'digits').rows[0][4] == '37.3–100.0'


def test_one_victim_shared_by_several_seeds_is_one_measurement():
    rows = [make_row('victim', 0.9, seed=seed, loss=loss) for seed in (0, 1) for loss in 'ab']
    (victim,) = estimates.aggregate(rows, 'digits', 'linear_probe')
    assert (victim.seeds, victim.interval) == (1, (0.87, 0.93))
    rows.append(make_row('victim', 0.7, seed=2))  # another victim: now the spread counts
    (victim,) = estimates.aggregate(rows, 'digits', 'linear_probe')
    assert victim.seeds == 3
    assert_allclose(victim.value, 2.5 / 3)


def test_rows_that_nothing_tells_apart_are_refused_by_name():
    rows = [make_theft(0.7, run='r1', stage='s1'), make_theft(0.8, run='r2', stage='s2')]
    with pytest.raises(UserError) as error:
        tables.stolen(rows, 'digits')
    assert '\n' not in str(error.value)
    for words in (
        'linear_probe on digits has several values for role surrogate, attack direct, loss mse',
        '0.7 (run r1, stage s1) and 0.8 (run r2, stage s2)',
    ):
        assert words in str(error.value)
    again = [rows[0], rows[0] | {'run': 'r2', 'stage': 's2', 'seconds': 9.0}]  # the same value
    assert cells(tables.stolen(again, 'digits'), 'surrogate')[0]['Seeds'] == '1'


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_values_that_are_not_finite_are_named_not_averaged(tmp_path, bad):
    mixed = [make_theft(0.8), make_theft(bad, seed=1)]
    (row,) = cells(tables.stolen(mixed, 'digits'), 'surrogate')
    assert (row['Accuracy, %'], row['Seeds']) == ('80.0', '1 (1 not finite)')
    md, html = write(tmp_path, [*BASE, make_theft(bad)])
    assert 'not finite' in md and 'not finite' in html
    assert not re.search(r'\b(nan|inf)\b', md, re.IGNORECASE)
    assert not re.search(r'>(nan|inf)', html, re.IGNORECASE)


def test_difference_of_single_runs_is_newcombes_interval():
    def wilson(correct, n):
        interval = stats.binomtest(correct, n).proportion_ci(0.95, method='wilson')
        return {'ci_low': interval.low, 'ci_high': interval.high}

    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10 gives 0.0524 to 0.3339.
    new = make_theft(56 / 70, defense=DEFENSE, **wilson(56, 70))
    old = make_theft(48 / 80, **wilson(48, 80))
    a, b = estimates.aggregate([new, old], 'digits', 'linear_probe')[::-1]
    delta, interval, way = estimates.difference(a, b)
    assert_allclose([delta, *interval], [0.2, 0.0524, 0.3339], atol=5e-5)
    assert way == 'independent'
    (row,) = cells(tables.defended([new, old], 'digits'), 'surrogate')
    assert [row[c] for c in ('Without, %', 'With, %', 'Change')] == ['60.0', '80.0', '+20.0']
    assert row['95 % interval'] == '+5.2 to +33.4'


def test_difference_of_several_seeds_is_paired():
    plain, noisy = [0.80, 0.84, 0.82], [0.71, 0.74, 0.76]
    rows = [make_theft(v, seed=s) for s, v in enumerate(plain)]
    rows += [make_theft(v, seed=s, defense=DEFENSE) for s, v in enumerate(noisy)]
    (row,) = cells(tables.defended(rows, 'digits'), 'surrogate')
    low, high = stats.ttest_rel(noisy, plain).confidence_interval(0.95)
    assert row['Change'] == '−8.3'
    assert row['95 % interval'] == f'{100 * low:.1f} to {100 * high:+.1f}'.replace('-', '−')


def test_legitimate_user_is_compared_with_the_victim_and_lone_defenses_with_nothing():
    legitimate = make_row('legitimate', 0.88, defense=DEFENSE, budget=200)
    table = tables.defended([*BASE, legitimate], 'digits')
    assert cells(table, 'legitimate')[0]['Change'] == '−2.0'
    other_budget = [make_theft(0.8, budget=100), make_theft(0.7, defense=DEFENSE)]
    assert tables.defended(other_budget, 'digits') is None


def test_measures_stand_side_by_side_for_each_encoder():
    rows = [make_theft(0.912, **shown_as('cka'), interval=0.01)]
    rows += [make_theft(0.85, **shown_as('agreement'))]
    rows += [make_row('random', 0.3, metric='cka', interval=None)]
    table = tables.measures(rows, 'digits', ['cka', 'agreement'])
    assert table.header[-2:] == ['Linear CKA ↑', 'Agreement with victim, % ↑']
    assert table.rows[0][-2:] == ['0.912 (0.902–0.922)', '85.0 (82.0–88.0)']
    assert table.rows[1][-2:] == ['0.300', '–']


def test_what_varies_between_surrogates_has_a_column_and_tells_them_apart():
    asked = {'strategy': 'random', 'data': 'digits', 'endpoint': 'representation', 'views': ''}
    rows = [*BASE, make_theft(0.81, **asked), make_theft(0.78, **asked | {'views': 'simclr'})]
    assert tables.stolen(rows, 'digits').header[1:4] == ['Attack', 'Views', 'Budget']
    rows += [make_theft(0.7, **asked | {'strategy': 'kcenter(rounds=4)'})]
    rows += [make_theft(0.6, **asked | {'data': 'fashion_mnist', 'endpoint': 'labels'})]
    table = tables.stolen(rows, 'digits')
    assert table.header[1:6] == ['Attack', 'Chosen by', 'Asked with', 'Answers', 'Views']
    assert table.kinds.count('surrogate') == 4
    first = cells(table, 'surrogate')[0]
    assert (first['Chosen by'], first['Answers'], first['Seeds']) == (
        'kcenter(rounds=4)',
        'representation',
        '1',
    )
    assert cells(table, 'victim')[0]['Asked with'] == '–'
    same = tables.stolen([*BASE, make_theft(0.81, **asked)], 'digits')
    assert same == tables.stolen([*BASE, make_theft(0.81)], 'digits')  # rows of before


def test_labels_say_what_belongs_to_an_attack_only_where_it_has_it_both_ways():
    rows = [make_theft(0.8, endpoint='representation', plan='once', data='digits')]
    rows += [make_theft(0.7, attack='rda', plan='views(5)', data='digits', defense=DEFENSE)]
    rows += [
        make_theft(0.6, attack='classifier', endpoint=endpoint, data='cifar10')
        for endpoint in ('labels', 'posteriors')
    ]
    found = estimates.aggregate(rows, 'digits', 'linear_probe')
    assert labels.labels(found) == [
        'classifier, mse, labels, queries from cifar10, no defense',
        'classifier, mse, posteriors, queries from cifar10, no defense',
        'direct, mse, queries from digits, no defense',
        f'rda, mse, queries from digits, {DEFENSE}',
    ]
    assert labels.label(found[2], found[2:3], always=()) == ''
    chosen = [make_theft(0.8, strategy=s) for s in ('kcenter(rounds=4)', 'random')]
    assert labels.labels(estimates.aggregate(chosen, 'digits', 'linear_probe')) == [
        'mse, chosen by kcenter(rounds=4)',
        'mse',
    ]
    assert labels.labels(found[2:3], always=()) == ['surrogate']


@pytest.mark.parametrize('field', ['strategy', 'data', 'endpoint', 'views', 'plan', 'encoder'])
def test_a_defense_is_compared_with_the_same_attack_without_it(field):
    defended = make_theft(0.7, defense=DEFENSE, **{field: 'a'})
    others = [make_theft(0.9, **{field: 'b'}), make_theft(0.95)]
    assert tables.defended([defended, *others], 'digits') is None
    table = tables.defended([defended, *others, make_theft(0.8, **{field: 'a'})], 'digits')
    assert [row['Change'] for row in cells(table, 'surrogate')] == ['−10.0']


def test_what_must_be_beaten_has_as_many_of_the_same_images():
    rows = [make_theft(0.8, data='a'), make_theft(0.9, data='b')]
    rows += [make_row('scratch', 0.5, budget=200, data='a')]
    rows += [make_row('scratch', 0.6, budget=200, data='b'), make_row('scratch', 0.7, budget=100)]
    found = estimates.aggregate(rows, 'digits', 'linear_probe')
    values = {e.data: estimates.scratch_for(e, found).value for e in found if e.attack}
    assert values == {'a': 0.5, 'b': 0.6}
    (words,) = report.summarize(rows)
    assert '(direct, mse, queries from b) reaches 90.0 %' in words
    assert 'on as many inputs without a victim 60.0 %' in words
    found = estimates.aggregate([*rows[:1], *BASE], 'digits', 'linear_probe')  # does not say
    assert estimates.scratch_for(found[1], found).value == 0.7


def test_stolen_classifier_is_a_share_after_the_probes(tmp_path):
    rows = [*BASE, make_theft(0.8)]
    names = ('knn', 'fewshot', 'classifier')
    rows += [make_theft(0.512, **shown_as(metric), interval=None) for metric in names]
    md, _ = write(tmp_path, [*rows, make_theft(0.512, metric='other')])
    line = '| kNN, % ↑ | Few-shot probe, % ↑ | Stolen classifier as it is, % ↑ |'
    assert line in md
    assert '| 51.2 | 51.2 | 51.2 |' in md


MINE = {'metric': 'direct', 'metric_title': 'Mine', 'unit': 'share', 'section': 'My own <section>'}


def test_a_metric_is_shown_as_its_rows_say_whatever_its_name(tmp_path):
    rows = [*BASE, make_theft(0.8), make_theft(0.98, **MINE, better='smaller')]
    rows += [make_theft(0.95, metric='fewshot_of_mine')]  # says nothing, so a number in OTHER
    rows += [make_theft(0.5, metric='plain', section=metrics.STOLEN)]
    report_ = build(rows)
    assert [section.title for section in report_.sections] == [
        *(metrics.STOLEN, MINE['section'], metrics.OTHER),
    ]
    stolen, mine, other = (section.items[-1] for section in report_.sections)
    assert (stolen.header[-1], stolen.rows[0][-1]) == ('Plain', '0.500 (0.470–0.530)')
    assert (mine.header[-1], mine.rows[0][-1]) == ('Mine, % ↓', '98.0 (95.0–100.0)')  # cut at 100
    assert other.header[-1] == 'Fewshot of mine'
    assert other.rows[0][-1] == '0.950 (0.920–0.980)'
    md, html = write(tmp_path, rows)
    assert '&lt;section&gt;' in md and 'My own <section>' not in html


def test_rows_that_do_not_agree_on_a_unit_are_no_shares():
    old = make_theft(0.5, metric='direct', seed=1)  # as of before there was the column
    (one,) = tables.measures([old, make_theft(0.5, **MINE)], 'digits', ['direct']).rows
    assert one[-1].startswith('50.0')
    other = make_theft(3.7, **MINE | {'unit': ''}, seed=2)
    (one,) = tables.measures([make_theft(0.5, **MINE), other], 'digits', ['direct']).rows
    assert one[-1].startswith('2.100')


def test_bill_counts_an_account_once():
    bill = [make_bill('a', 'r1'), make_bill('a', 'r2'), make_bill('b', 'r3', 1500, repeated=7)]
    table = tables.bill(bill)
    assert table.rows == [
        ['a', 'r1, r2', 'once', '100', '100', '100', '0', '3'],
        ['b', 'r3', 'once', '100', '1,500', '1,500', '7', '3'],
        ['All accounts', '', '', '200', '1,600', '1,600', '7', '6'],
    ]


def test_summary_says_it_in_words():
    rows = [*BASE, make_theft(0.81), make_theft(0.7, defense=DEFENSE), make_theft(0.75, loss='b')]
    first, paid = report.summarize(rows, [make_bill('a', 'r', 1200)])
    assert first.startswith(
        'With 200 paid queries the best of 3 surrogates (direct, mse) reaches 81.0 % (78.0–84.0) on'
        ' digits; the victim has 90.0 % (87.0–93.0), an untrained encoder 60.0 % (57.0–63.0), one '
        'pretrained on as many inputs without a victim 70.0 % (67.0–73.0). The attacker recovered '
        '70 %'
    )
    assert f'Under {DEFENSE} the best surrogate (direct, mse) reaches 70.0 %, −11.0 points' in first
    assert paid == 'In all, 1,200 queries were billed to one account.'
    (partial,) = report.summarize([make_row('victim', 0.9)])
    assert partial == (
        'The victim has 90.0 % (87.0–93.0) on digits. '
        'No surrogate has been evaluated on digits yet.'
    )


class Page(HTMLParser):
    """Collects the text of cells, all tags met, and every address that a browser would follow."""

    def __init__(self, html):
        super().__init__()
        self.addresses, self.tags, self.cells, self.open = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        followed = ('src', 'href', 'srcset', 'action', 'data', 'poster')
        self.addresses += [value for key, value in attrs if key in followed]
        if tag in ('td', 'th'):
            self.open = ''

    def handle_data(self, data):
        if self.open is not None:
            self.open += data

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.cells.append(self.open)
            self.open = None


def markdown_cells(md):
    rows = [line for line in md.splitlines() if line.startswith('|') and '---' not in line]
    found = [c for row in rows for c in re.split(r'(?<!\\)\|', row)[1:-1]]
    return [unescape(re.sub(r'\\(.)', r'\1', c.strip())) for c in found]


def test_both_formats_show_the_same_cells_and_the_page_needs_nothing_else(tmp_path):
    full = make_full()
    md, html = write(tmp_path, **full, config={'command': 'python launch.py', 'seed': 3})
    page = Page(html)
    assert len(page.cells) > 200
    assert markdown_cells(md) == page.cells
    assert DEFENSE in page.cells
    inside = [a for a in page.addresses if a.startswith('data:image/png;base64,iVBORw0KGgo')]
    assert len(inside) == 3  # accuracy, representations, curves
    links = {a for a in page.addresses if not a.startswith(('data:', '#'))}
    assert links and all((tmp_path / link).is_file() for link in links)
    assert 'http://' not in html and 'https://' not in html
    assert '@import' not in html and 'url(' not in html and page.tags.count('script') == 1
    links = re.findall(r'!\[.*?\]\((.*?)\)', md)
    assert len(links) == 3
    for link in links:
        assert (tmp_path / link).read_bytes().startswith(b'\x89PNG')
    (config,) = re.findall(r'```json\n(.*?)\n```', md, re.DOTALL)
    assert json.loads(config) == {'command': 'python launch.py', 'seed': 3}
    assert '```sh\npython launch.py\n```' in md


def test_the_same_input_gives_the_same_bytes_and_leaves_no_other_file(tmp_path):
    first, second = (
        (write(tmp_path, **make_full()), [path.read_bytes() for path in tmp_path.rglob('*.*')])
        for _ in range(2)
    )
    assert first == second
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.is_file())
    figures = ('accuracy_1_digits', 'curves', 'representations')
    built = report.build(**make_full(), config={}, title='Report')
    tables = sorted(name for name, _ in report.export.named_tables(built))
    assert 'what_was_stolen_on_digits' in tables and len(tables) > 3
    assert written == [
        *(f'figures/{name}.{kind}' for name in figures for kind in ('pdf', 'png')),
        *('report.html', 'report.md'),
        *(f'tables/{name}.{kind}' for name in tables for kind in ('csv', 'tex')),
    ]


def test_a_failed_write_leaves_the_old_report_and_no_part(tmp_path, monkeypatch):
    old, _ = write(tmp_path, BASE)

    def fail(self, target):
        raise OSError('disk full')

    monkeypatch.setattr(type(epath.Path(tmp_path)), 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write(tmp_path, [*BASE, make_theft(0.81)])
    assert (tmp_path / 'report.md').read_text() == old
    assert not list(tmp_path.rglob('.*'))


def test_hostile_text_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>|`*[a](b) $x_{$ & &lt;\n# no'
    rows = [*BASE, make_theft(0.8, loss=evil, task='digits')]
    views = [{'title': evil, 'points': np.eye(2), 'labels': [0, 1]}]
    config = {'name': evil, 'fence': '```', 'command': evil}
    bill = [make_bill(evil, evil)]
    md, html = write(tmp_path, rows, title=evil, config=config, views=views, bill=bill)
    page = Page(html)
    assert page.tags.count('script') == 1  # the page's own
    assert page.cells.count(evil) == 2  # account and run, as written
    outside = re.sub(r'(?ms)^(`{3,})\w*\n.*?^\1$', '', md)
    assert '<script' not in outside and '\n# no' not in outside
    assert markdown_cells(md) == [' '.join(cell.split()) for cell in page.cells]


@pytest.mark.parametrize(
    'rows',
    [
        [],
        [make_row('victim', 0.9)],
        [make_theft(0.8)],
        [make_theft(0.8, interval=None)],
        [make_theft(0.8, metric='cka', task=None)],
        [make_theft(math.nan)],
        [make_row('scratch', 0.7, budget=b, interval=None) for b in (10, 20)],
        [make_theft(0.8, budget=0, queries_billed=0), make_theft(0.9, budget=1000)],
    ],
)
def test_partial_runs_render_without_empty_sections(tmp_path, rows):
    md, html = write(tmp_path, rows)
    sections = re.split(r'^## ', md, flags=re.MULTILINE)[1:]
    assert len(sections) == bool(rows)
    assert all('| ' in section for section in sections)
    assert html.count('<h2 ') == len(sections) + bool(rows)  # and the glossary
    assert 'None' not in md and 'nan' not in md
    if not rows:
        assert 'There are no results yet.' in md


def test_accuracy_figure_shows_means_intervals_and_levels():
    rows = [*BASE, make_row('scratch', 0.72, budget=1000)]
    rows += [make_theft(v, budget=b) for b, v in ((200, 0.75), (1000, 0.85))]
    (axes,) = figure_accuracy(rows, 'digits').axes
    assert axes.get_xscale() == 'log'
    attacker, scratch = axes.containers
    assert_allclose(attacker.lines[0].get_data(), [[200, 1000], [75, 85]])
    assert_allclose(scratch.lines[0].get_data(), [[200, 1000], [70, 72]])
    (bars,) = attacker.lines[2]
    assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[72, 78], [82, 88]])
    levels = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert levels == {'victim': pytest.approx(90), 'untrained': pytest.approx(60)}
    others = [make_row('scratch', 0.5, budget=b, data='other') for b in (200, 1000)]
    (axes,) = figure_accuracy([*rows, *others], 'digits').axes
    assert [c.get_label() for c in axes.containers] == [
        'mse',
        'from scratch, own inputs',
        'from scratch, own inputs, queries from\nother',
    ]
    narrow = [r for r in rows if r['budget'] != 1000] + [make_theft(0.85, budget=600)]
    assert figure_accuracy(narrow, 'digits').axes[0].get_xscale() == 'linear'


def test_accuracy_figure_of_one_budget_lists_every_encoder():
    (axes,) = figure_accuracy([*BASE, make_theft(0.7), make_theft(0.8, loss='b')], 'digits').axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ['victim', 'b', 'mse', 'from scratch', 'untrained']
    assert [c.lines[0].get_xdata()[0] for c in axes.containers] == pytest.approx(
        [90, 80, 70, 70, 60]
    )


def test_accuracy_figure_of_many_attacks_has_a_panel_for_each_budget():
    rows = [make_row('victim', 0.9), make_row('random', 0.3)]
    rows += [make_row('scratch', 0.4, budget=b) for b in (200, 1000, 5000)]
    for i in range(9):
        name = 'direct' if i == 4 else f'attack{i}'
        rows += [make_theft(0.5 + 0.02 * i + b / 1e5, attack=name, budget=b) for b in (200, 1000)]
    rows = [r for r in rows if (r['attack'], r['budget']) != ('attack7', 1000)]
    small, large = figure_accuracy(rows, 'digits').axes
    assert [axes.get_title() for axes in (small, large)] == [
        '200 paid queries',
        '1,000 paid queries',
    ]
    ranked = [f'attack{i}, mse' if i != 4 else 'direct, mse' for i in (8, 6, 5, 4, 3, 2, 1, 0, 7)]
    names = [text.get_text() for text in small.get_yticklabels()]
    rest = ['from scratch', 'from scratch, 5,000 inputs', 'untrained']
    assert names == ['victim', *ranked, *rest]
    assert len(small.containers) == len(names)
    assert len(large.containers) == len(names) - 1  # attack7 was not measured
    points = [c.lines[0].get_xdata()[0] for c in large.containers]
    assert_allclose(points[:4], [90, 67, 63, 61])
    colors = {container.lines[0].get_color() for container in large.containers[1:9]}
    assert len(colors) == 1  # no attack stands out by its name


def test_accuracy_figure_says_how_many_attacks_it_leaves_out():
    rows = [make_theft(0.5 + i / 1000, attack=f'attack{i}') for i in range(50)]
    figure = figure_accuracy([*BASE, *rows, make_theft(0.4, defense=DEFENSE)], 'digits')
    (axes,) = figure.axes
    assert len(axes.containers) == 43
    assert figure.get_supxlabel() == (
        'linear-probe accuracy, %\n(the best 40 of 51 surrogates; hollow: behind a defense)'
    )


def test_curves_average_seeds_and_say_what_is_left_out():
    curves = {
        f'mse: {q} queries, seed {s}': [{'step': t, 'loss': 2.0 * s + t} for t in range(3)]
        for q in range(8)
        for s in (0, 1)
    }
    curves['victim'] = [{'step': 0, 'loss': 1.0}, {'step': 1, 'loss': math.nan}, {'step': 2}]
    curves['victim'] += [{'step': 3, 'loss': 0.5}]
    figure, note = style.figure_curves(curves)
    mse, victim = figure.axes
    assert (mse.get_title(), victim.get_title()) == ('mse', 'victim')
    assert len(mse.lines) == style.MAX_LINES
    assert_allclose(mse.lines[0].get_ydata(), [1, 2, 3])  # the mean of seeds 0 and 1
    assert note == 'Curves not drawn: 2. Losses not finite, not drawn: 1.'
    assert style.figure_curves({'a': []}) is None


def test_views_color_classes_alike_and_say_what_is_left_out():
    points = np.arange(8.0).reshape(4, 2)
    broken = np.where(points == 3, np.nan, points)  # row 1
    views = [
        {'title': 'victim', 'points': points, 'labels': [0, 1, 2, 3]},
        {'title': 'attacker', 'points': broken[::-1], 'labels': [3, 2, 1, 0]},
    ]
    figure, note = style.figure_views(views)
    victim, attacker = (axes.collections[0].get_facecolors() for axes in figure.axes)
    assert_allclose(attacker, victim[[3, 2, 0]])
    assert len(np.unique(victim, axis=0)) == 4
    assert note == 'attacker: 1 of 4 points not finite.'
