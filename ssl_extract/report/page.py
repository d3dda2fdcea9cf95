"""The pages of a report: report.md and report.html."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ssl_extract.report import (
    columns,
    comparisons,
    costs,
    defenses,
    estimates,
    export,
    glossary,
    headroom,
    metrics,
    noticed,
    settings,
    tables,
)
from ssl_extract.report.as_html import html
from ssl_extract.report.as_markdown import markdown
from ssl_extract.report.comparisons import Tested
from ssl_extract.report.estimates import Row
from ssl_extract.report.figures import style
from ssl_extract.report.figures.accuracy import figure_accuracy
from ssl_extract.report.figures.break_even import figure_break_even
from ssl_extract.report.figures.clips import figure_clips
from ssl_extract.report.figures.pareto import figure_defenses
from ssl_extract.report.figures.triggers import figure_triggers
from ssl_extract.report.parts import Origin, Picture, Report, Section, picture
from ssl_extract.report.summary import summarize
from ssl_extract.report.tables import PROBE, Table
from ssl_extract.runtime import files

NOWHERE = Origin([], [], [], None)  # of rows that no run is known of
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


def write(
    workdir: epath.Path,
    rows: list[Row],
    *,
    config: dict[str, Any],
    curves: dict[str, list[dict[str, Any]]],
    views: list[dict[str, Any]],
    bill: list[dict[str, Any]],
    title: str,
    shown: Mapping[str, dict[str, Any]] | None = None,
    notes: Sequence[str] = (),
    origin: Origin = NOWHERE,
    tested: Sequence[Tested] = (),
) -> None:
    """Writes `report.md` and the self-contained `report.html` into `workdir`.

    The figures are in `figures/`, as PNG and PDF, and the tables in `tables/`, as CSV and LaTeX.
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
        shown: the arrays of pictures by their kind: `clips`, see `figures.clips`, and `triggers`,
            see `figures.triggers`.
        notes: further sentences of the summary, on the data.
        origin: the runs, their stages and fields.
        tested: the comparisons that were listed before the runs.
    """
    workdir = epath.Path(workdir)
    report = build(
        rows,
        config=config,
        curves=curves,
        views=views,
        bill=bill,
        title=title,
        shown=shown,
        notes=notes,
        origin=origin,
        tested=tested,
    )
    save(workdir, report)


def save(folder: epath.Path, report: Report) -> None:
    """Writes a report: `report.md`, `report.html`, `figures/` and `tables/`.

    Args:
        folder: made if missing; what was written before is replaced.
        report: the report.
    """
    for section in report.sections:
        for item in section.items:
            if isinstance(item, Picture):
                files.write_bytes(folder / 'figures' / f'{item.name}.png', item.png)
                files.write_bytes(folder / 'figures' / f'{item.name}.pdf', item.pdf)
    for name, table in export.named_tables(report):
        files.write_text(folder / 'tables' / f'{name}.csv', export.as_csv(table))
        files.write_text(folder / 'tables' / f'{name}.tex', export.as_latex(table))
    files.write_bytes(folder / 'report.md', markdown(report).encode())
    files.write_bytes(folder / 'report.html', html(report).encode())


def build(
    rows: Sequence[Row],
    *,
    config: dict[str, Any],
    curves: dict[str, list[dict[str, Any]]],
    views: Sequence[dict[str, Any]],
    bill: Sequence[dict[str, Any]],
    title: str,
    shown: Mapping[str, dict[str, Any]] | None = None,
    notes: Sequence[str] = (),
    origin: Origin = NOWHERE,
    tested: Sequence[Tested] = (),
) -> Report:
    """Makes all words, tables and pictures of a report; the arguments are those of `write`."""
    rows, followers = columns.split_followers(rows)
    notes = [*notes, *(_with_budget(*follower) for follower in followers.items())]
    probed = tables.tasks(rows)
    stolen = [item for i, task in enumerate(probed) for item in _stolen(rows, task, i)]
    guarded = tables.tasks(rows, (PROBE, settings.USER))
    defended = [item for i, task in enumerate(guarded) for item in _defended(rows, task, i)]
    family, pictures = comparisons.table(tested), shown or {}
    sections = [
        Section('Comparisons', [family] if family else []),
        *_sections(rows, {metrics.STOLEN: stolen, metrics.CHANGED: defended}),
        Section('What it cost', _costs(rows, probed, costs.prices(config, rows))),
        Section('The query bill', [tables.bill(bill)] if bill else []),
        Section('Clips', _pictures('clips', figure_clips(pictures.get('clips')))),
        Section('Triggers', _pictures('triggers', figure_triggers(pictures.get('triggers')))),
        Section('Representations', _pictures('representations', style.figure_views(views))),
        Section('Training', _pictures('curves', style.figure_curves(curves))),
    ]
    sections.append(Section('Runs and stages', origin.tables))
    report = Report(
        title=title,
        summary=[
            *origin.studied,
            *summarize(rows, bill),
            *filter(None, [comparisons.in_words(tested)]),
            *(f'Note: {note}.' for note in notes),
        ],
        facts=origin.facts,
        sections=[section for section in sections if section.items],
        command=str(config.get('command') or ''),
        changes=origin.changes,
        config=json.dumps(config, indent=2, default=str, ensure_ascii=False) if config else '',
        glossary=[],
    )
    return report._replace(glossary=glossary.used_terms(_words(report)))


def _words(report: Report) -> str:
    """Joins the words of a report that a reader may look up."""
    words = [*report.summary]
    for section in report.sections:
        words.append(section.title)
        for item in section.items:
            words.append(item.caption)
            if isinstance(item, Table):
                words += [*item.header, *(cell for row in item.rows for cell in row)]
    return '\n'.join(words) if report.sections else ''


def _stolen(rows: Sequence[Row], task: str | None, index: int) -> list[Table | Picture]:
    measured = [e for e in estimates.aggregate(rows, task, PROBE) if e.value is not None]
    table = tables.stolen(rows, task)
    if len(measured) < 2:  # the table shows one point better
        return [table]
    drawn = picture(
        _file_name('accuracy', task, index),
        figure_accuracy(rows, task),
        f'Linear-probe accuracy on {task} of every encoder, with intervals',
        f'Linear-probe accuracy on {task}; bars and bands are the intervals of the table.',
    )
    return [table, drawn]


def _defended(rows: Sequence[Row], task: str | None, index: int) -> list[Table | Picture]:
    pictures = [
        picture(
            _file_name('headroom' if shares else 'defenses', task, index),
            drawn[0],
            f'What each defense took from the attacker on {task} against what its users lost, '
            + _UNITS[shares],
            f'{_PARETO.format(unit=_UNITS[shares])} {drawn[1]}'.strip(),
        )
        for shares in (False, True)
        if (drawn := figure_defenses(rows, task, shares=shares))
    ]
    parts = (defenses.overview(rows, task), headroom.headroom(rows, task), *pictures)
    parts += (tables.defended(rows, task), defenses.users(rows, task))
    return [part for part in parts if part]


def _file_name(kind: str, task: str | None, index: int) -> str:
    return f'{kind}_{index + 1}_{export.slug(str(task))}'


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


def _with_budget(field: str, values: dict[int, Any]) -> str:
    listed = ', '.join(f'{value} with {budget:,}' for budget, value in values.items())
    return f'{field} goes with the budget: {listed} queries'


def _pictures(name: str, drawn: tuple[style.Figure, str] | None, where: str = '') -> list[Picture]:
    if drawn is None:
        return []
    alt, caption = {
        'representations': (
            'Two-dimensional projections of the representations, colored by class',
            'Each point is a test input of the first task, its color the class. The axes are the '
            'first two principal components (PCA) of the representations of each encoder. Those of '
            'other encoders are rotated, or mirrored, to match the victim’s; no axis has a unit. '
            'Two components show a part of a representation: compare encoders by the tables.',
        ),
        'clips': (
            'Log-mel spectrograms of some of the attacker’s clips and of their views',
            'Log-mel spectrograms of the first of the attacker’s clips, in the order of chance, '
            'and of a view of each, drawn anew. All panels have the same colors; gray is padding.',
        ),
        'triggers': (
            'Test images without the trigger, with it, and the difference',
            'Test images of the attack’s success: as they are, with the trigger, and the '
            'difference of the two about gray.',
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
    return [picture(name, drawn[0], alt, f'{caption} {drawn[1]}'.strip())]
