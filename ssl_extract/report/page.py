"""The pages of a report: report.md and report.html."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
from etils import epath

from ssl_extract.report import (
    costs,
    defenses,
    estimates,
    headroom,
    metrics,
    noticed,
    settings,
    tables,
)
from ssl_extract.report.estimates import Row
from ssl_extract.report.figures import style
from ssl_extract.report.figures.accuracy import figure_accuracy
from ssl_extract.report.figures.break_even import figure_break_even
from ssl_extract.report.figures.pareto import figure_defenses
from ssl_extract.report.summary import summarize
from ssl_extract.report.tables import PROBE, Table
from ssl_extract.runtime import files

_PARETO = (
    'Each point is a defense: to the right what the legitimate user that loses most lost, upwards '
    'how far the best surrogate fell, {unit}. Filled: the worst case over all attacks; hollow, '
    'joined to it: the best attacker that does not adapt. Thin bars: the 95 % intervals of the '
    'table. Dashed: the frontier, the defenses that no other beats in both. Lines join the '
    'strengths of one defense.'
)
_UNITS = {
    False: 'in percentage points, which are of different headroom on the two axes',
    True: 'in per cent of the headroom over an untrained encoder',
}


class Picture(NamedTuple):
    """A figure: file name without folder, PNG bytes, alternative text, caption."""

    name: str
    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        """Encodes the PNG for a data URL."""
        return base64.b64encode(self.png).decode('ascii')


class Section(NamedTuple):
    """A heading of the report and the parts under the heading, in order."""

    title: str
    items: list[Table | Picture]


class Report(NamedTuple):
    """The content of both formats: all words and numbers of a report."""

    title: str
    summary: list[str]
    sections: list[Section]
    command: str
    config: str


def write(
    workdir: epath.Path,
    rows: list[Row],
    *,
    config: dict[str, Any],
    curves: dict[str, list[dict[str, Any]]],
    views: list[dict[str, Any]],
    bill: list[dict[str, Any]],
    title: str,
) -> None:
    """Writes `report.md`, `figures/*.png` and the self-contained `report.html` into `workdir`.

    Every part may be empty (a run that has only begun): it is then left out. The same input gives
    the same bytes, and each file appears whole or not at all.

    Args:
        workdir: folder, made if missing; any path that `etils.epath` can write to.
        rows: rows of `results.jsonl`, of one run or of many.
        config: what the run writes down; its `'command'`, where it has one, is shown first, and
            `['config']['cost']` holds the prices (without them there is no section on cost).
        curves: training curves, name -> `[{'step': 10, 'loss': 0.5, ...}, ...]`; see
            `style.figure_curves` for names that share a panel or are averaged.
        views: projections, `{'title': str, 'points': [N, 2], 'labels': int [N]}` and, if known,
            `'class_names'`.
        bill: one entry per run: `{'account', 'run', 'billed', 'unique', 'repeated', 'refused',
            'budget', 'plan'}`.
        title: the heading.
    """
    workdir = epath.Path(workdir)
    report = build(rows, config=config, curves=curves, views=views, bill=bill, title=title)
    (workdir / 'figures').mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for item in section.items:
            if isinstance(item, Picture):
                files.write_bytes(workdir / 'figures' / item.name, item.png)
    files.write_bytes(workdir / 'report.md', markdown(report).encode())
    files.write_bytes(workdir / 'report.html', html(report).encode())


def build(
    rows: Sequence[Row],
    *,
    config: dict[str, Any],
    curves: dict[str, list[dict[str, Any]]],
    views: Sequence[dict[str, Any]],
    bill: Sequence[dict[str, Any]],
    title: str,
) -> Report:
    """Makes all words, tables and pictures of a report; the arguments are those of `write`."""
    probed = tables.tasks(rows)
    stolen = [item for i, task in enumerate(probed) for item in _stolen(rows, task, i)]
    guarded = tables.tasks(rows, (PROBE, settings.USER))
    defended = [item for i, task in enumerate(guarded) for item in _defended(rows, task, i)]
    sections = [
        *_sections(rows, {metrics.STOLEN: stolen, metrics.CHANGED: defended}),
        Section('What it cost', _costs(rows, probed, costs.prices(config, rows))),
        Section('The query bill', [tables.bill(bill)] if bill else []),
        Section('Representations', _pictures('representations', style.figure_views(views))),
        Section('Training', _pictures('curves', style.figure_curves(curves))),
    ]
    return Report(
        title=title,
        summary=summarize(rows, bill),
        sections=[section for section in sections if section.items],
        command=str(config.get('command') or ''),
        config=json.dumps(config, indent=2, default=str, ensure_ascii=False) if config else '',
    )


def html(report: Report) -> str:
    """Renders the report as one HTML page without scripts or anything from outside."""
    loader = jinja2.PackageLoader('ssl_extract.report')
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters['breakable'] = _breakable
    return environment.get_template('report.html.j2').render(report=report)


def markdown(report: Report) -> str:
    """Renders the report as GitHub-flavored markdown; pictures are links to `figures/`."""
    lines = [f'# {_escape(report.title)}', '']
    for sentence in report.summary:
        lines += [_escape(sentence), '']
    for section in report.sections:
        lines += [f'## {_escape(section.title)}', '']
        for item in section.items:
            if isinstance(item, Picture):
                lines += [f'![{_escape(item.alt)}](figures/{item.name})', '']
            else:
                lines += list(_markdown_table(item))
            lines += [_escape(item.caption), ''] if item.caption else []
    if report.config:
        lines += ['## Configuration', '']
        lines += [_fenced(report.command, 'sh'), ''] if report.command else []
        lines += [_fenced(report.config, 'json'), '']
    return '\n'.join(lines)


def _stolen(rows: Sequence[Row], task: str | None, index: int) -> list[Table | Picture]:
    measured = [e for e in estimates.aggregate(rows, task, PROBE) if e.value is not None]
    table = tables.stolen(rows, task)
    if not measured:
        return [table]
    picture = Picture(
        name=_file_name('accuracy', task, index),
        png=style.png(figure_accuracy(rows, task)),
        alt=f'Linear-probe accuracy on {task} of every encoder, with intervals',
        caption=f'Linear-probe accuracy on {task}; bars and bands are the intervals of the table.',
    )
    return [table, picture]


def _defended(rows: Sequence[Row], task: str | None, index: int) -> list[Table | Picture]:
    pictures = [
        Picture(
            name=_file_name('headroom' if shares else 'defenses', task, index),
            png=style.png(drawn[0]),
            alt=f'What each defense took from the attacker on {task} against what its users lost, '
            + _UNITS[shares],
            caption=f'{_PARETO.format(unit=_UNITS[shares])} {drawn[1]}'.strip(),
        )
        for shares in (False, True)
        if (drawn := figure_defenses(rows, task, shares=shares))
    ]
    parts = (defenses.overview(rows, task), headroom.headroom(rows, task), *pictures)
    parts += (tables.defended(rows, task), defenses.users(rows, task))
    return [part for part in parts if part]


def _file_name(kind: str, task: str | None, index: int) -> str:
    return f'{kind}_{index + 1}_{re.sub("[^a-z0-9]+", "_", str(task).lower()).strip("_")}.png'


def _sections(rows: Sequence[Row], own: dict[str, list[Table | Picture]]) -> list[Section]:
    """Puts every metric under the section that its rows name; OTHER is the last.

    Args:
        rows: the rows.
        own: the first sections, with tables of the metrics that are shown nowhere else.
    """
    elsewhere = {PROBE, *defenses.METRICS, *headroom.METRICS, *noticed.names(rows)}
    by_section: dict[str, list[str]] = {}
    for name, shown in metrics.shown(rows).items():
        if name not in elsewhere:
            by_section.setdefault(shown.section, []).append(name)
    own = {**own, metrics.NOTICED: noticed.noticed_tables(rows)}
    titles = [title for title in by_section if title not in (*own, metrics.OTHER)]
    return [
        Section(title, own.get(title, []) + _measures(rows, by_section.get(title, [])))
        for title in (*own, *titles, metrics.OTHER)
    ]


def _measures(rows: Sequence[Row], names: Sequence[str]) -> list[Table]:
    return [tables.measures(rows, task, names) for task in tables.tasks(rows, names)]


def _costs(
    rows: Sequence[Row], probed: Sequence[str | None], price: costs.Prices | None
) -> list[Table | Picture]:
    table = price and costs.spent(rows, price)
    if not table:
        return []
    task = probed[0] if probed else None
    return [table, *_pictures('break_even', figure_break_even(rows, task, price), f' on {task}')]


def _pictures(name: str, drawn: tuple[style.Figure, str] | None, where: str = '') -> list[Picture]:
    if drawn is None:
        return []
    alt, caption = {
        'representations': (
            'Two-dimensional projections of the representations, colored by class',
            'Each point is an image, its color the class. Axes have no unit of their own.',
        ),
        'curves': (
            'Training loss against step',
            'Training loss; where seeds are averaged, the band is the range between them.',
        ),
        'break_even': (
            'Dollars for stealing against the price of a query, with the cost of training',
            'What an attacker pays for queries and training, each attack without defense at its '
            'largest budget, against the price of a query. A dot, and “even at” in the legend, is '
            'the price at which stealing costs as much as training the victim; above it stealing '
            'costs more. Attacks that ask and train alike lie on one line. The victim’s data, '
            'labeled or not, and trial runs are not counted. The encoders are not equally good: '
            f'the legend gives the linear-probe accuracy{where} in per cent of the victim’s.',
        ),
    }[name]
    return [Picture(f'{name}.png', style.png(drawn[0]), alt, f'{caption} {drawn[1]}'.strip())]


def _breakable(text: str) -> markupsafe.Markup:
    """Escapes text in which a spec such as `noise(stddev=1.0)` may break where a reader would."""
    return markupsafe.Markup(re.sub(r'([(_])', r'\1<wbr>', str(markupsafe.escape(text))))


def _escape(text: str) -> str:
    """Writes plain text as markdown, with all marks and HTML escaped."""
    text = re.sub(r'([\\`*|\[\]])', r'\\\1', ' '.join(text.split()))
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def _markdown_table(table: Table) -> Iterator[str]:
    if table.title:
        yield from (f'### {_escape(table.title)}', '')
    rules = ['---:' if numeric else '---' for numeric in table.numeric]
    for cells in (map(_escape, table.header), rules, *(map(_escape, row) for row in table.rows)):
        yield f'| {" | ".join(cells)} |'
    yield ''


def _fenced(text: str, language: str) -> str:
    fence = '`' * max([3, *(len(run) + 1 for run in re.findall('`{3,}', text))])
    return f'{fence}{language}\n{text}\n{fence}'
