"""The page's origin, files and words: runs and stages, defaults, CSV and LaTeX, the glossary."""

import csv
import io
import json
import pathlib
import re

import numpy as np
import pytest
from finished_runs import write_run
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexWalker
from test_report import BASE, make_full, make_row, make_theft, write

from ssl_extract import config, report
from ssl_extract.pipeline import provenance
from ssl_extract.report import as_html, export, glossary, page
from ssl_extract.report.figures import style
from ssl_extract.report.tables import Table

EMPTY = {'config': {}, 'curves': {}, 'views': [], 'bill': [], 'title': ''}
DOCS = pathlib.Path(__file__).parents[2] / 'docs'


def rewrite(run, **fields):
    about = json.loads((run / 'run.json').read_text()) | fields
    (run / 'run.json').write_text(json.dumps(about))


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """A report on two runs in another folder than its workdir; the second was made before dates."""
    folder = tmp_path_factory.mktemp('published')
    times = {'started': '2026-03-01T22:59:30+00:00', 'finished': '2026-03-02T00:01:00+00:00'}
    of = {'defaults': {'attack.budget': 9000}, 'commit': 'd'}
    rewrite(write_run(folder / 'work #1', 'r1'), **times, **of)
    write_run(folder / 'work #1', 'r2', 0.7, attack__loss='infonce')
    report.write_from(folder / 'out', [folder / 'work #1'])
    return folder / 'out'


def test_the_report_has_the_dates_the_time_and_the_fields_that_were_set(published):
    md = (published / 'report.md').read_text()
    facts = 'Runs: 2 · Started: 2026-03-01 22:59 UTC · Finished: 2026-03-02 00:01 UTC · Devices: '
    assert facts + '1 × cpu · Commit: c, d\n' in md  # no time: that of one run is not known
    assert '| [r1](<../work%20%231/runs/r1/>) | run r1 | 2026-03-01 22:59 UTC | 1 h 1 min |' in md
    assert '| [r2](<../work%20%231/runs/r2/>) | run r2 | – | – |' in md
    configuration = md.split('## Configuration')[1].split('<details>')[0]
    assert '| attack.budget | 9000 | 100 |' in configuration
    assert 'victim.epochs' not in configuration  # of which no run says that it was set
    assert md.index('| attack.budget |') < md.index('"budget": 100')


def test_links_lead_to_the_folders_of_the_stages(published):
    page = (published / 'report.html').read_text()
    stages = re.findall(r'href="(\.\./[^"]+)"', page)
    found = {pathlib.PurePath(link).parts[2] for link in stages}
    assert found == {'runs', 'victim', 'surrogate'}
    for link in stages:
        assert (published / link.replace('%20', ' ').replace('%23', '#')).is_dir()


def test_defaults_are_those_of_the_attack_and_only_of_what_was_set():
    c = config.base()
    c.attack.name, c.attack.budget, c.evaluation.tasks = 'rda', 50, ('noise', 'digits')
    run = next(config.expand(c)).to_dict()
    assert run['attack']['plan'] != ''  # filled in by the attack, set by nobody
    assert provenance.defaults(run | {'content': {'noise': 'a'}}) == {
        'attack.name': 'direct',
        'attack.budget': 9_000,
        'evaluation.tasks': config.base().evaluation.tasks,
    }
    assert provenance.defaults(next(config.expand(config.base())).to_dict()) == {}


HOSTILE = [
    r'a_b & 50 % of $x^2$ #1 {c} ~ \d "q" \'s `t` <e> f|g',
    '−8.9 (−11.7 to −6.2)',
    '78.0–84.0',
    'CKA ↑, L2 ↓',
    'gaussian_noise(stddev=0.1) | round(decimals=2) --config --- -',
    '\\textbackslash{}',
    '[0, 1] 81.0*',
]


def test_latex_tables_read_back_as_they_were():
    table = Table('T', ['x', 'y %'], [[a, a] for a in HOSTILE], [False, True], [''] * 7, 'A\nb %')
    text = export.as_latex(table)
    assert text.startswith('% T\n% A b %\n') and r'\begin{tabular}{lr}' in text
    body = text.split('\\midrule\n')[1].split('\\bottomrule')[0]
    plain = LatexNodes2Text(keep_comments=True)
    cells = [row.split(' & ') for row in body.removesuffix(' \\\\\n').split(' \\\\\n')]
    for (first, second), written in zip(cells, HOSTILE, strict=True):
        assert first == second
        LatexWalker(first, tolerant_parsing=False).get_latex_nodes()
        back = plain.latex_to_text(first).replace('ˆ', '^').replace('”', '"')
        assert ' '.join(back.split()) == written.replace('−', '-'), first


def test_csv_tables_hold_the_cells_of_the_report(tmp_path):
    full = make_full()
    write(tmp_path, **full)
    built = page.build(**full, config={}, title='')
    tables = dict(export.named_tables(built))
    assert len(tables) == len(list((tmp_path / 'tables').glob('*.csv'))) == 6
    for name, table in tables.items():
        rows = list(csv.reader(io.StringIO((tmp_path / 'tables' / f'{name}.csv').read_text())))
        assert rows == [table.header, *table.rows]


def test_tables_of_one_title_have_names_of_their_own():
    table = Table('On digits', ['x'], [['1']], [True], [''], '')
    sections = [report.page.Section('What?', [table, table]), report.page.Section('what', [table])]
    names = [
        name
        for name, _ in export.named_tables(report.build([], **EMPTY)._replace(sections=sections))
    ]
    assert names == ['what_on_digits', 'what_on_digits_no_2', 'what_on_digits_no_3']


def test_figures_are_pdf_with_real_text_in_the_layout_of_the_png(tmp_path):
    write(tmp_path, **make_full())
    for path in (tmp_path / 'figures').glob('*.pdf'):
        content = path.read_bytes()
        assert content.startswith(b'%PDF-') and b'CreationDate' not in content
        assert b'/Type3' not in content and b'/FontFile2' in content
        png = path.with_suffix('.png').read_bytes()
        pixels = [int.from_bytes(png[at : at + 4]) for at in (16, 20)]
        box = re.search(rb'/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]', content).groups()
        assert [float(side) * 180 / 72 for side in box] == pytest.approx(pixels, abs=1)


def test_one_point_is_no_figure(tmp_path):
    one = [{'title': 'victim', 'points': np.zeros((1, 2)), 'labels': [0]}]
    write(tmp_path, [make_row('victim', 0.9)], views=one, curves={'a': [{'step': 0, 'loss': 1.0}]})
    assert not (tmp_path / 'figures').exists()
    user = make_row('legitimate', 0.8, metric='user_accuracy', user='broad', defense='round')
    users = [user, user | {'defense': '', 'value': 0.85}]
    rows = [*BASE, make_theft(0.8), make_theft(0.7, defense='round'), *users]
    write(tmp_path, rows)  # of defenses one point
    assert [path.name for path in (tmp_path / 'figures').glob('*.png')] == ['accuracy_1_digits.png']
    steps = [{'step': 0, 'loss': 1.0}, {'step': 1, 'loss': 1.0}]
    _, note = style.figure_curves({'a': steps, 'b': steps[:1]})
    assert note == 'Trainings of one step, not drawn: 1.'


def test_the_glossary_has_the_words_of_the_report_and_is_that_of_the_docs(tmp_path):
    _, html = write(tmp_path, [*BASE, make_theft(0.8)])
    shown = re.findall('<dt>(.*?)</dt>', html)
    assert {'surrogate', 'victim', 'linear probe', 'gap recovered', 'query'} <= {*shown}
    assert not {'linear CKA', 'PCA', 'account'} & {*shown}
    entries = ' '.join((DOCS / 'glossary.md').read_text().split())
    for term, meaning in glossary.TERMS.items():
        assert f'**{term}** – {meaning}' in entries


def test_a_table_that_is_too_wide_is_shown_in_pieces_that_each_say_what_a_row_is():
    cells = ['surrogate', '100', *['0.731 (−0.298 to 1.760)'] * 12]
    header = ['Encoder', 'Budget', *(f'Measure {i}' for i in range(12))]
    table = Table('T', header, [cells], [False] + [True] * 13, [''], '', keys=2)
    first, second = as_html.pieces(table)
    assert first.header[:2] == second.header[:2] == header[:2]
    assert first.header[2:] + second.header[2:] == header[2:]
    assert first.rows == [cells[:8]] and len(second.numeric) == len(second.header)
    for piece in (first, second):
        measures = as_html.layout(piece)
        assert not measures.tight and 10 <= measures.size < 14.4
    narrow = table._replace(header=header[:4], rows=[cells[:4]], numeric=[True] * 4)
    assert as_html.pieces(narrow) == [narrow] and as_html.layout(narrow).size == 14.4
    keys = table._replace(keys=14)
    assert as_html.pieces(keys) == [keys]
    assert [row['Encoder'] for row in csv.DictReader(io.StringIO(export.as_csv(table)))] == cells[
        :1
    ]


@pytest.mark.parametrize(
    ('text', 'whole'),
    [
        ('81.0 % (78.0–84.0) on digits', ['81.0 % (78.0–84.0)']),
        ('65.0; −5.0 (−9.0 to +1.0)', ['−5.0 (−9.0 to +1.0)']),
        ('−7.6 points (−9 to −5, which is', ['−7.6 points (−9 to −5,']),
        ('0.912 (0.902–0.922), 1 not finite', ['0.912 (0.902–0.922)']),
        ('(1,024–2,048) of noise(stddev=1.0)', ['1,024–2,048']),
        ('Accuracy, %', ['Accuracy, %']),
        ('narrow(classes=3)', []),
    ],
)
def test_a_number_and_its_interval_are_one(text, whole):
    html = str(as_html._unbroken(text))
    assert re.findall('<span class="one">(.*?)</span>', html) == whole
    assert re.sub('<.*?>', '', html) == text
