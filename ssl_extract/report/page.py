"""The report of an experiment: report.md with its figures, and report.html, one file."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
from etils import epath

from ssl_extract import files
from ssl_extract.report import estimates, figures, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.figures_accuracy import figure_accuracy as figure_accuracy
from ssl_extract.report.tables import PROBE, Table, percent, span


class Picture(NamedTuple):
    """A figure: file name without folder, PNG bytes, words for those who cannot see it, caption."""

    name: str
    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode('ascii')


class Section(NamedTuple):
    title: str
    items: list[Table | Picture]


class Report(NamedTuple):
    """What both formats show: all words and numbers are made here, once."""

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
        config: the resolved configuration; its `'command'`, where it has one, is shown first.
        curves: training curves, name -> `[{'step': 10, 'loss': 0.5, ...}, ...]`; see
            `figures.figure_curves` for names that share a panel or are averaged.
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
    """All words, tables and pictures of a report; the arguments are those of `write`."""
    probed = tables.tasks(rows)
    metrics = sorted({row['metric'] for row in rows} - {PROBE, *tables.FIDELITY})
    near = [m for m in metrics if m == 'knn'] + [m for m in metrics if m.startswith('fewshot')]
    other = [m for m in metrics if m not in near]
    stolen = [item for i, task in enumerate(probed) for item in _stolen(rows, task, i)]
    defended = [table for task in probed if (table := tables.defended(rows, task))]
    sections = [
        Section('What was stolen', stolen),
        Section('What a defense changed', defended),
        Section('Without a full probe: kNN and few labels', _measures(rows, near)),
        Section('How alike the encoders are to the victim', _measures(rows, tables.FIDELITY)),
        Section('Other measures', _measures(rows, other)),
        Section('The query bill', [tables.bill(bill)] if bill else []),
        Section('Representations', _pictures('representations', figures.figure_views(views))),
        Section('Training', _pictures('curves', figures.figure_curves(curves))),
    ]
    return Report(
        title=title,
        summary=summarize(rows, bill),
        sections=[section for section in sections if section.items],
        command=str(config.get('command') or ''),
        config=json.dumps(config, indent=2, default=str, ensure_ascii=False) if config else '',
    )


def summarize(rows: Sequence[Row], bill: Sequence[dict[str, Any]] = ()) -> list[str]:
    """The results in plain words: one paragraph per task, and what was paid."""
    probed = tables.tasks(rows)
    words = [_in_words(estimates.aggregate(rows, task, PROBE), task) for task in probed[:3]]
    if len(probed) > 3:
        words.append(f'{len(probed) - 3} more tasks are in the tables below.')
    if bill:
        billed = {}
        for entry in bill:
            billed[entry['account']] = max(entry['billed'], billed.get(entry['account'], 0))
        count = f'{len(billed)} accounts' if len(billed) > 1 else 'one account'
        words.append(f'In all, {sum(billed.values()):,} queries were billed to {count}.')
    return words or ['There are no results yet.']


def html(report: Report) -> str:
    """The report as one HTML page without scripts or anything from outside."""
    loader = jinja2.PackageLoader('ssl_extract.report')
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters['breakable'] = _breakable
    return environment.get_template('report.html.j2').render(report=report)


def markdown(report: Report) -> str:
    """The report as GitHub-flavoured markdown; pictures are links to `figures/`."""
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
    found = [e for e in estimates.aggregate(rows, task, PROBE) if e.value is not None]
    table = tables.stolen(rows, task)
    if not found:
        return [table]
    picture = Picture(
        name=f'accuracy_{index + 1}_{re.sub("[^a-z0-9]+", "_", str(task).lower()).strip("_")}.png',
        png=figures.png(figure_accuracy(rows, task)),
        alt=f'Linear-probe accuracy on {task} of every encoder, with intervals',
        caption=f'Linear-probe accuracy on {task}; bars and bands are the intervals of the table.',
    )
    return [table, picture]


def _measures(rows: Sequence[Row], metrics: Sequence[str]) -> list[Table]:
    return [tables.measures(rows, task, metrics) for task in tables.tasks(rows, metrics)]


def _pictures(name: str, made: tuple[figures.Figure, str] | None) -> list[Picture]:
    if made is None:
        return []
    alt, caption = {
        'representations': (
            'Two-dimensional projections of the representations, coloured by class',
            'Each point is an image, its colour the class. Axes have no unit of their own.',
        ),
        'curves': (
            'Training loss against step',
            'Training loss; where seeds are averaged, the band is the range between them.',
        ),
    }[name]
    return [Picture(f'{name}.png', figures.png(made[0]), alt, f'{caption} {made[1]}'.strip())]


def _in_words(found: Sequence[Estimate], task: str | None) -> str:
    thieves = [e for e in found if e.role == 'surrogate' and e.value is not None]
    best = max(
        [e for e in thieves if not e.defense] or thieves, key=lambda e: e.value, default=None
    )
    encoder = best.encoder if best else ''
    victim = estimates.reference(found, 'victim', encoder)
    random = estimates.reference(found, 'random', encoder)
    scratch = [e for e in found if e.role == 'scratch' and best and e.budget == best.budget]
    others = [
        f'the victim has {_percent(victim)}' if victim else '',
        f'an untrained encoder {_percent(random)}' if random else '',
        f'one pretrained on as many images without a victim {_percent(scratch[0])}'
        if len(scratch) == 1 and scratch[0].value is not None
        else '',
    ]
    rest = ', '.join(filter(None, others))
    if best is None:
        rest = rest[:1].upper() + rest[1:] + f' on {task}. ' if rest else ''
        return rest + f'No surrogate has been evaluated on {task} yet.'
    paid = best.billed[1] if best.billed else best.budget
    who = 'the surrogate' if len(thieves) == 1 else f'the best of {len(thieves)} surrogates'
    how = ', '.join(filter(None, (best.attack, best.loss, best.defense)))
    seeds = f', mean of {best.seeds} seeds' if best.seeds > 1 else ''
    words = f'With {paid:,} paid queries {who} ' if paid is not None else f'{who.capitalize()} '
    words += f'({how}{seeds}) ' if how or seeds else ''
    words += f'reaches {_percent(best)} on {task}' + (f'; {rest}.' if rest else '.')
    gap = estimates.gap_recovered(best, found)
    if gap is not None:
        words += f' The thief recovered {percent(gap, 0)} % of what training gave the victim.'
    return words + _defense_words(found, best)


def _defense_words(found: Sequence[Estimate], best: Estimate) -> str:
    """What the strongest defense does: the one under which the thief's best attack is worst."""
    under: dict[str, Estimate] = {}
    for e in found:
        comparable = e.role == 'surrogate' and e.budget == best.budget and e.value is not None
        if comparable and e.defense and estimates.undefended(e, found):
            under[e.defense] = max(e, under.get(e.defense, e), key=lambda e: e.value)
    if not under:
        return ''
    e = min(under.values(), key=lambda e: e.value)
    delta, interval, _ = estimates.difference(e, estimates.undefended(e, found))
    which = f', the strongest of {len(under)} defenses,' if len(under) > 1 else ''
    how = f' ({", ".join(filter(None, (e.attack, e.loss)))})' if e.attack or e.loss else ''
    bounds = f' ({span(interval, tables.signed)})' if interval else ''
    return (
        f' Under {e.defense}{which} the best surrogate{how} reaches {percent(e.value)} %, '
        f'{tables.signed(delta)} points{bounds} against the same attack without it.'
    )


def _percent(e: Estimate) -> str:
    interval = f' ({span(tables.clipped(e.interval))})' if e.interval else ''
    return f'{percent(e.value)} %{interval}'


def _breakable(text: str) -> markupsafe.Markup:
    """Escaped text in which a spec such as `noise(stddev=1.0)` may break where a reader would."""
    return markupsafe.Markup(re.sub(r'([(_])', r'\1<wbr>', str(markupsafe.escape(text))))


def _escape(text: str) -> str:
    """Plain text as markdown: nothing in it is read as a mark or as HTML."""
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
