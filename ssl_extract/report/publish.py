"""Results and report of all finished runs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.report import columns, comparisons, origin, page, results
from ssl_extract.report.estimates import Row
from ssl_extract.report.results import FinishedRun
from ssl_extract.runtime import files, locks, loggers

MAX_VIEWS = 4
_SHOWN = {  # the arrays of each kind of pictures
    'clips': {'spectrograms', 'fields', 'hop', 'hertz'},
    'triggers': {'before', 'after', 'tasks'},
}
_VIEW = {'points': 'projection', 'labels': 'labels'}


def write_from(
    out: epath.PathLike, workdirs: Sequence[epath.PathLike], title: str = ''
) -> list[Row]:
    """Writes results and report of all finished runs of some workdirs.

    `results.jsonl` and `results.csv` hold the rows of `results.tidy`, `metrics.jsonl` the training
    curves, `report.md` and `report.html` the report, `figures/` and `tables/` its parts. What was
    written before is replaced. Two processes that write to one folder take turns.

    Args:
        out: the folder to write to, made if missing; may be one of the workdirs.
        workdirs: each with a folder `runs`.
        title: of the report; '' is the title of the first run.

    Returns:
        The rows of `results.jsonl`.

    Raises:
        UserError: no run is finished, a file is damaged, or results contradict each other.
    """
    out = epath.Path(out).expanduser()
    if not results.read_runs(*workdirs):
        where = ', '.join(str(epath.Path(workdir) / results.RUNS) for workdir in workdirs)
        raise UserError(
            f'no run is finished in {where or "no workdir"}: write the workdir of an experiment '
            'of which at least one run has ended'
        )
    with locks.lock(out / 'locks' / 'results.lock', 'report.html'):
        for folder in (out, out / 'figures', out / 'tables'):
            files.remove_temporary(folder, below=False)
        return _write(out, results.read_runs(*workdirs), title)


def _write(out: epath.Path, runs: list[FinishedRun], title: str) -> list[Row]:
    rows = results.tidy(runs)
    files.write_text(out / 'results.jsonl', files.as_jsonl(rows))  # whatever the report lacks
    curves = read_curves(runs)
    views = read_views(runs)
    shown = read_shown(runs)
    for folder in (out, out / 'figures'):
        files.remove_temporary(folder, below=False, age=files.DAY)
    files.write_text(out / 'results.csv', as_csv(rows))
    metrics = [row for curve in curves.values() for row in curve]
    files.write_text(out / 'metrics.jsonl', files.as_jsonl(metrics))
    page.write(
        out,
        rows,
        config=describe(runs),
        curves=curves,
        views=views,
        shown=shown,
        bill=bills(runs),
        title=title or runs[0].title,
        notes=list(dict.fromkeys(note for run in runs for note in run.notes)),
        origin=origin.origin(runs, out),
        tested=comparisons.test(runs),
    )
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """Writes tidy rows as CSV with the columns of `results.jsonl`; None is an empty cell.

    >>> as_csv([{'role': 'victim', 'value': 0.5, 'run': None}])
    'role,value,run\\nvictim,0.5,\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else columns.NAMES, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_curves(runs: Sequence[FinishedRun]) -> dict[str, list[dict[str, Any]]]:
    """Reads the training curve of every stage, once, under a unique name.

    Returns:
        Name -> rows, each with its step, its metrics, `stage` (the role) and `address`.

    Raises:
        UserError: a folder is missing or a part is damaged.
    """
    entries: dict[str, tuple[dict[str, Any], list[FinishedRun]]] = {}
    for run in runs:
        for entry in run.curves:
            entries.setdefault(entry['stage'], (entry, []))[1].append(run)
    names = _distinct([entry['name'] for entry, _ in entries.values()], entries, runs)
    curves = {}
    for name, (entry, sharing) in zip(names, entries.values(), strict=True):
        folder = sharing[0].workdir / entry['folder']
        for path in (folder, *(folder / part for part in entry.get('parts', ()))):
            if not path.exists():
                raise _missing(sharing[0], 'curves.json', path, folder)
        with files.advised(_remedy(sharing[0], folder)):
            parts = loggers.read_parts(folder)
        if parts:
            about = {'stage': entry['role'], 'address': entry['stage']}
            curves[name] = [about | part for part in parts]
    return curves


def read_views(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Reads the first MAX_VIEWS projections, each once, as `page.write` takes them.

    Raises:
        UserError: an `arrays.npz` is missing, damaged or without projection and labels.
    """
    entries: dict[str, tuple[dict[str, Any], list[FinishedRun]]] = {}
    for run in runs:
        for entry in run.views:
            entries.setdefault(entry['folder'], (entry, []))[1].append(run)
    names = _distinct([entry['title'] for entry, _ in entries.values()], entries, runs)
    views = []
    for name, (entry, sharing) in list(zip(names, entries.values(), strict=True))[:MAX_VIEWS]:
        path = sharing[0].workdir / entry['folder'] / 'arrays.npz'
        if not path.exists():
            raise _missing(sharing[0], 'views.json', path, path.parent)
        with files.advised(_remedy(sharing[0], path.parent)):
            arrays = files.read_npz(path)
            if not set(_VIEW.values()) <= set(arrays):
                raise files.DamagedError(f'{path} lacks {" or ".join(_VIEW.values())}')
        views.append({'title': name} | {k: arrays[v] for k, v in _VIEW.items()})
    return views


def read_shown(runs: Sequence[FinishedRun]) -> dict[str, dict[str, Any]]:
    """Reads the pictures of each kind, of the first run that has some, as `page.write` takes them.

    Raises:
        UserError: a file is missing, damaged or without its arrays.
    """
    read: dict[str, dict[str, Any]] = {}
    for kind, names in _SHOWN.items():
        run = next((run for run in runs if kind in (run.shown or {})), None)
        if run is None:
            continue
        path = run.workdir / run.shown[kind] / 'result.npz'
        if not path.exists():
            raise _missing(run, 'run.json', path, path.parent)
        with files.advised(_remedy(run, path.parent)):
            read[kind] = files.read_npz(path)
            if not set(read[kind]) >= names:
                raise files.DamagedError(f'{path} lacks {" or ".join(sorted(names))}')
    return read


def bills(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Lists the bills of all runs; an account in two workdirs was paid in both."""
    places: dict[str, set[str]] = {}
    for run in runs:
        for bill in run.bills:
            places.setdefault(bill['account'], set()).add(str(run.workdir))
    return [
        bill | {'account': f'{bill["account"]} in {run.workdir}'}
        if len(places[bill['account']]) > 1
        else bill
        for run in runs
        for bill in run.bills
    ]


def describe(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Describes the runs for the end of the report: common fields, then those of each run.

    Returns:
        `command` (a line for each), `commit`, `versions` and `devices` (a list of them where runs
        differ), `config` (the nested fields on which all runs agree) and, of several runs, `runs`:
        id -> its name and the dotted fields on which they do not agree.
    """
    configs = {run.id: results.flatten(run.config) for run in runs}
    names = list(dict.fromkeys(name for config in configs.values() for name in config))
    shared = [
        name
        for name in names
        if len({json.dumps(config.get(name)) for config in configs.values()}) == 1
    ]
    described: dict[str, Any] = {'command': '\n'.join(dict.fromkeys(run.command for run in runs))}
    for name in ('commit', 'versions', 'devices'):
        values = {json.dumps(getattr(run, name)): getattr(run, name) for run in runs}
        described[name] = next(iter(values.values())) if len(values) == 1 else [*values.values()]
    described['config'] = _nested({name: configs[runs[0].id][name] for name in shared})
    if len(runs) > 1:
        described['runs'] = {
            run.id: {'name': run.name}
            | {name: v for name, v in configs[run.id].items() if name not in shared}
            for run in runs
        }
    return described


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split('.')
        part = nested
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
    return nested


def _distinct(
    names: Sequence[str],
    entries: dict[str, tuple[dict[str, Any], list[FinishedRun]]],
    runs: Sequence[FinishedRun],
) -> list[str]:
    """Adds to equal names the config fields that tell them apart.

    A figure puts the name before ': ' above a panel and takes the mean over 'seed 1', 'seed 2'.
    """
    fields = results.differing(runs)
    cells = [results.agreed_fields(sharing, fields) for _, sharing in entries.values()]
    distinct: list[str] = []
    for name, values, key in zip(names, cells, entries, strict=True):
        alike = [other for n, other in zip(names, cells, strict=True) if n == name]
        varied = [f for f in fields if len({str(other[f]) for other in alike}) > 1]
        seeds = [f'seed {values[f]}' for f in varied if f in columns.SEEDS]
        words = [
            f'{f}={values[f]}' for f in varied if f not in columns.SEEDS and values[f] is not None
        ]
        panel = name if ': ' in name or not words else f'{name}: {words.pop(0)}'
        full = ', '.join([panel, *words, *seeds])
        distinct.append(full if full not in distinct else f'{full}, {key[:8]}')
    return distinct


def _missing(run: FinishedRun, name: str, path: epath.Path, folder: epath.Path) -> UserError:
    return UserError(
        f'{run.folder / name} names {path}, which is not there: {_remedy(run, folder)}'
    )


def _remedy(run: FinishedRun, folder: epath.Path) -> str:
    """Says how a run gets back what it names in `folder`; the rest of its stages is only read."""
    moved = ' and '.join(str(path) for path in (run.folder, folder) if path.exists())
    return (
        f'put it back from a copy, or move {moved} out of the workdir and run its experiment again '
        'there'
    )
