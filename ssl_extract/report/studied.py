"""The head of a report: victims, sizes and seeds."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ssl_extract.report import tables
from ssl_extract.report.results import FinishedRun
from ssl_extract.report.tables import PROBE

_MOST = 6  # numbers in a list


def studied(runs: Sequence[FinishedRun]) -> list[str]:
    """Describes each victim, and the sizes and seeds of the attacks on the victim, in a sentence.

    Args:
        runs: as `results.read_runs` returns them.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        about = [run.config[part] for part in ('data', 'victim')]
        groups.setdefault(json.dumps(about, sort_keys=True), []).append(run)
    return [f'Studied: {_victim(alike)}. {_attacks(alike)}.' for alike in groups.values()]


def _victim(runs: Sequence[FinishedRun]) -> str:
    """Writes name, network, size, training inputs and accuracies of a victim."""
    measured = {row.get('task'): row for row in _victim_rows(runs) if row['metric'] == PROBE}
    about = next((run.studied for run in runs if run.studied), {})
    fields = runs[0].config['victim']
    source = fields.get('source', 'pretrain')
    network = about.get('network') or next((r['encoder'] for r in measured.values()), '')
    how = fields.get('method', '') if source == 'pretrain' else source
    seed = f'seed {fields["seed"]}' if source == 'pretrain' else ''
    parts = [', '.join(filter(None, (f'the victim {how}'.strip(), seed, network)))]
    parts += [_counted(about, 'parameters'), _counted(about, 'images', 'training inputs')]
    parts += [_accuracy(task, row) for task, row in measured.items()]
    return '; '.join(filter(None, parts))


def _attacks(runs: Sequence[FinishedRun]) -> str:
    """Writes queries, pool and seeds of the attackers."""
    budgets = _listed(run.config['attack']['budget'] for run in runs)
    pools = _listed(run.studied['pool'] for run in runs if run.studied)
    seeds = _listed(run.config['seed'] for run in runs)
    of = f' from {pools} inputs' if pools else ''
    several = len({run.config['seed'] for run in runs}) > 1
    return f'Attackers: {budgets} queries{of}, seed{"s" * several} {seeds}'


def _accuracy(task: str | None, row: dict[str, Any]) -> str:
    interval = row.get('ci_low'), row.get('ci_high')
    bounds = f'{tables.span(interval)}, ' if None not in interval else ''
    accuracy = f'linear probe on {task} {tables.percent(row["value"])} %'
    return f'{accuracy} ({bounds}{row["n"]:,} test inputs)'


def _counted(about: dict[str, Any], name: str, words: str = '') -> str:
    return f'{about[name]:,} {words or name}' if about.get(name) else ''


def _listed(numbers: Iterable[int]) -> str:
    """Writes different numbers in order: '500, 1,000 and 4,000', or '1–10' of many.

    >>> _listed([4000, 500, 1000]), _listed(range(1, 11))
    ('500, 1,000 and 4,000', '1–10')
    """
    told = [f'{number:,}' for number in sorted(set(numbers))]
    if len(told) > _MOST:
        return f'{told[0]}–{told[-1]}'
    return ' and '.join(filter(None, (', '.join(told[:-1]), *told[-1:])))


def _victim_rows(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    return [row for run in runs for row in run.rows if row['role'] == 'victim']
