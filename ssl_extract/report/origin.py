"""The origin of a report: its runs, their dates, stages and fields."""

import datetime
import os
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from ssl_extract.report import families, results, studied
from ssl_extract.report.parts import Origin
from ssl_extract.report.results import FinishedRun
from ssl_extract.report.tables import NONE, Table

_MOST = 4  # names or values in a cell
# The other folders of a workdir.
_NO_STAGES = (results.RUNS, families.FOLDER, 'figures', 'locks', 'tables')


def origin(runs: Sequence[FinishedRun], out: epath.PathLike) -> Origin:
    """Describes the runs of a report that lies in the folder `out`.

    Args:
        runs: as `results.read_runs` returns them.
        out: the folder of the report, from which its links lead.
    """
    tables = [_runs(runs, epath.Path(out)), _stages(runs, epath.Path(out))]
    return Origin(
        _facts(runs),
        studied.studied(runs),
        [table for table in tables if table.rows],
        _changes(runs),
    )


def duration(seconds: float) -> str:
    """Writes a time in its two largest units.

    >>> [duration(seconds) for seconds in (8.24, 141.0, 5400.0)]
    ['8.2 s', '2 min 21 s', '1 h 30 min']
    """
    if seconds < 10:
        return f'{seconds:.1f} s'
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f'{hours:,} h {minutes} min'
    return f'{minutes} min {seconds % 60} s' if minutes else f'{seconds} s'


def _facts(runs: Sequence[FinishedRun]) -> list[tuple[str, str]]:
    """Lists number, dates, time, devices and version of the runs, as far as they are known."""
    starts = [time for run in runs if (time := _time(run.started))]
    ends = [time for run in runs if (time := _time(run.finished))]
    spent = [seconds for run in runs if (seconds := _seconds(run)) is not None]
    devices = dict.fromkeys(_counted(run.devices) for run in runs)
    commits = dict.fromkeys(run.commit[:10] for run in runs)
    facts = {
        'Runs': str(len(runs)),
        'Started': _date(min(starts)) if starts else '',
        'Finished': _date(max(ends)) if ends else '',
        'Time': duration(sum(spent)) if len(spent) == len(runs) else '',
        'Devices': '; '.join(devices),
        'Commit': _some(commits),
    }
    return [(name, value) for name, value in facts.items() if value]


def _runs(runs: Sequence[FinishedRun], out: epath.Path) -> Table:
    """Tabulates the runs, with links to their folders."""
    body, links = [], {}
    for run in runs:
        start, seconds = _time(run.started), _seconds(run)
        time = NONE if seconds is None else duration(seconds)
        body.append([run.id, run.name, _date(start) if start else NONE, time])
        links[run.id] = _address(run.folder, out)
    caption = (
        'Time: of the process that finished the run; stages that were finished before took theirs '
        'earlier. A run leads to its rows, its config and its command.'
    )
    header, kinds = ['Run', 'What', 'Started', 'Time'], [''] * len(body)
    return Table('Runs', header, body, [False, False, False, True], kinds, caption, links)


def _stages(runs: Sequence[FinishedRun], out: epath.Path) -> Table:
    """Tabulates the stages of all runs, with links to their folders."""
    sharing: dict[tuple[epath.Path, str], list[str]] = {}
    for run in runs:
        for address in _addresses(run):
            sharing.setdefault((run.workdir, address), []).append(run.id)
    seconds = {row.get('stage'): row.get('seconds') for run in runs for row in run.rows}
    kinds = {workdir: _kinds(workdir) for workdir in dict.fromkeys(w for w, _ in sharing)}
    body, links = [], {}
    for (workdir, address), users in sharing.items():
        if address in kinds[workdir]:
            kind, time = kinds[workdir][address], seconds.get(address)
            time = duration(time) if time else NONE
            body.append([kind, address, time, _some(users)])
            links[address] = _address(workdir / kind / address, out)
    caption = (
        'A stage is computed once and shared by its runs. A stage leads to its folder, where '
        'spec.json holds everything that the stage depends on. Training: over all processes.'
    )
    header, alike = ['Stage', 'Address', 'Training', 'Runs'], [''] * len(body)
    return Table('Stages', header, body, [False, False, True, False], alike, caption, links)


def _changes(runs: Sequence[FinishedRun]) -> Table | None:
    """Tabulates the fields that differ from their defaults; None where no run says."""
    if not any(run.defaults is not None for run in runs):
        return None
    configs = [results.flatten(run.config) for run in runs]
    names = sorted({name for run in runs for name in run.defaults or ()})
    body = []
    for name in names:
        defaults = [run.defaults[name] for run in runs if name in (run.defaults or ())]
        values = [config[name] for config in configs if name in config]
        body.append([name, _some(map(_value, defaults)), _some(map(_value, values))])
    caption = 'All other fields have their defaults.'
    return Table('', ['Field', 'Default', 'Here'], body, [False] * 3, [''] * len(body), caption)


def _addresses(run: FinishedRun) -> list[str]:
    """Lists the addresses that a run names, each once: trained, asked, and measured."""
    named = [row['stage'] for row in run.rows if row.get('stage')]
    named += [curve['stage'] for curve in run.curves]
    named += [bill['account'] for bill in run.bills]
    named += [os.path.basename(view['folder']) for view in run.views]
    return list(dict.fromkeys(named))


def _kinds(workdir: epath.Path) -> dict[str, str]:
    """Returns the kind of every stage of a workdir, by address."""
    folders = [f for f in workdir.iterdir() if f.name not in _NO_STAGES and f.is_dir()]
    return {stage.name: folder.name for folder in folders for stage in folder.iterdir()}


def _address(folder: epath.Path, out: epath.Path) -> str:
    """Returns the address of a folder for a link in `out`: relative to it, where both are local."""
    where, start = os.fspath(folder), os.fspath(out)
    if '://' in where or '://' in start:
        return where
    relative = os.path.relpath(os.path.abspath(where), os.path.abspath(start))
    return urllib.parse.quote(relative.replace(os.sep, '/')) + '/'


def _time(text: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _date(time: datetime.datetime) -> str:
    return f'{time:%Y-%m-%d %H:%M} UTC'


def _seconds(run: FinishedRun) -> float | None:
    start, end = _time(run.started), _time(run.finished)
    return (end - start).total_seconds() if start and end else None


def _counted(devices: Sequence[str]) -> str:
    kinds = {kind: devices.count(kind) for kind in devices}
    return ', '.join(f'{count} × {kind}' for kind, count in kinds.items())


def _some(words: Iterable[str]) -> str:
    """Joins different words, at most _MOST of them."""
    words = list(dict.fromkeys(words))
    more = f' and {len(words) - _MOST} more' if len(words) > _MOST else ''
    return ', '.join(words[:_MOST]) + more


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ', '.join(map(_value, value)) or '()'
    return "''" if value == '' else str(value)
