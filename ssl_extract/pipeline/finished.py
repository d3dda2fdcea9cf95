"""Finished runs, written to the workdir, and the rows of all of them."""

import datetime
import time
from typing import Any, NamedTuple

from etils import epath

from ssl_extract import report
from ssl_extract.pipeline import rows
from ssl_extract.pipeline.context import Run
from ssl_extract.report.results import FinishedRun
from ssl_extract.runtime import files, locks

Json = dict[str, Any]


class Results(NamedTuple):
    """The rows of one run, and the bills, curves and views that the report shows."""

    rows: list[Json]
    bills: list[Json]
    curves: list[Json]
    views: list[Json]


def write(run: Run, where: epath.Path, results: Results, about: Json) -> None:
    """Writes a finished run, whole or not at all; a run that is there stays as it is.

    Args:
        run: the run.
        where: the run's folder, named by its id.
        results: what the run computed.
        about: title, start, provenance, resolved config and notes on the data.
    """
    with locks.lock(run.workspace.folder / 'locks' / f'run-{where.name}.lock', where.name):
        if (where / 'run.json').exists():
            return
        files.remove_temporary(where)
        lists = {f'{name}.json': getattr(results, name) for name in ('bills', 'curves', 'views')}
        for name, entries in lists.items():
            files.write_text(where / name, files.as_json(entries))
        lists['rows.jsonl'] = rows.complete(results.rows, where.name)
        files.write_text(where / 'rows.jsonl', files.as_jsonl(lists['rows.jsonl']))
        about |= {'files': {name: files.checksum(entries) for name, entries in lists.items()}}
        named = {'id': where.name, 'name': rows.name_of(run), 'finished': now()}
        files.write_json(where / 'run.json', named | about)


def write_results(folder: epath.Path) -> list[FinishedRun]:
    """Writes results.jsonl, of all finished runs of a workdir; other processes wait meanwhile.

    Args:
        folder: the workdir.

    Returns:
        The finished runs.
    """
    with locks.lock(folder / 'locks' / 'results.lock', 'results.jsonl'):
        files.remove_temporary(folder, below=False)
        finished = report.read_runs(folder)
        files.write_text(folder / 'results.jsonl', files.as_jsonl(report.tidy(finished)))
    return finished


def write_results_timed(folder: epath.Path) -> float:
    """Writes results.jsonl and returns when to do so again: all runs are read each time.

    Args:
        folder: the workdir.

    Returns:
        A time of `time.monotonic`; until then nine tenths of the time and more are left for runs.
    """
    began = time.monotonic()
    write_results(folder)
    return time.monotonic() + 20 * (time.monotonic() - began)


def now() -> str:
    """Returns the time in UTC, as the files of a run have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec='microseconds')
