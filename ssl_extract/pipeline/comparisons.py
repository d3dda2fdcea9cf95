"""The comparisons that a config lists, matched with its runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from ssl_extract import config, evaluation
from ssl_extract.checks import check_number, shown
from ssl_extract.errors import UserError
from ssl_extract.pipeline import rows
from ssl_extract.pipeline.context import Run
from ssl_extract.report import columns
from ssl_extract.report.families import Comparison, Condition
from ssl_extract.report.tables import PROBE

_KEYS = ('name', 'new', 'old', 'task', 'metric', 'margin')
_USER, _NONE = 'legitimate', '--config.report.comparisons="()"'


class _Known(NamedTuple):
    """The config of a family, and the ids of its runs by their config without seeds."""

    config: ml_collections.ConfigDict
    fixed: tuple[str, ...]
    ids: dict[str, tuple[str, ...]]


def family_of(
    cfg: ml_collections.ConfigDict,
    fixed: tuple[str, ...],
    runs: Sequence[Run],
    ids: Sequence[str],
    tasks: Sequence[str],
) -> list[Comparison]:
    """Finds the runs of every comparison that a config lists.

    Args:
        cfg: the config, with `report.comparisons`.
        fixed: fields that were given on the command line; they win over those of conditions.
        runs: all runs of the config.
        ids: of the runs.
        tasks: the names of the tasks; the first is that of comparisons without one.

    Raises:
        UserError: a comparison is not written as `config.base` says, or no run is one of its
            conditions; names it.
    """
    by_text: dict[str, tuple[str, ...]] = {}
    for run, run_id in zip(runs, ids, strict=True):
        text = _without_seeds(run.config)
        by_text[text] = (*by_text.get(text, ()), run_id)
    known = _Known(cfg, fixed, by_text)
    family: list[Comparison] = []
    for number, entry in enumerate(cfg.report.comparisons):
        where = f'report.comparisons[{number}]'
        _check(entry, where, tasks, [comparison.name for comparison in family])
        new, old = (_side(entry[key], f'{where}.{key}', known) for key in ('new', 'old'))
        if new == old:
            because = f', as the command line sets {", ".join(fixed)}' if fixed else ''
            raise UserError(
                f'{where} ({entry["name"]}) compares runs with themselves{because}: write two '
                f'conditions, or {_NONE}'
            )
        task, metric = entry.get('task', tasks[0]) or None, entry.get('metric', PROBE)
        family.append(Comparison(entry['name'], task, metric, entry.get('margin'), new, old))
    return family


def _check(entry: Mapping[str, Any], where: str, tasks: Sequence[str], names: list[str]) -> None:
    """Raises UserError if a comparison lacks a key, or one of its values is wrong."""
    for key in entry:
        if key not in _KEYS:
            raise UserError(f'{where} has {key!r}: known are {", ".join(_KEYS)}')
    for key in ('name', 'new', 'old'):
        if key not in entry:
            raise UserError(f'{where} has no {key!r}: write one')
    name = entry['name']
    if not isinstance(name, str) or not name or name in names:
        raise UserError(f'{where}.name={shown(name)}: write a text that no other comparison has')
    if entry.get('task', '') not in ('', *tasks):
        raise UserError(f"{where}.task={shown(entry['task'])}: write {', '.join(tasks)}, or ''")
    metrics = (*evaluation.METRICS, *rows.METRICS)
    if entry.get('metric', PROBE) not in metrics:
        raise UserError(f'{where}.metric={shown(entry["metric"])}: write {", ".join(metrics)}')
    if entry.get('margin') is not None:
        check_number(f'{where}.margin', entry['margin'], above=0)


def _side(written: Any, where: str, known: _Known) -> tuple[Condition, ...]:
    """Reads a condition, or several of which the best counts."""
    several = written if isinstance(written, tuple | list) else (written,)
    if not several or not all(isinstance(condition, Mapping) for condition in several):
        raise UserError(
            f"{where}={shown(written)}: write the overrides of a run, such as {{'attack.loss': "
            "'mse'}, or a tuple of them, of which the best counts"
        )
    return tuple(_condition(condition, where, known) for condition in several)


def _condition(written: Mapping[str, Any], where: str, known: _Known) -> Condition:
    role, user = written.get('role', 'surrogate'), written.get('user', '')
    overrides = {k: v for k, v in written.items() if k not in ('role', 'user')}
    if role not in columns.ROLES:
        raise UserError(f'{where} has role={shown(role)}: write {", ".join(columns.ROLES)}')
    users = known.config.legitimate.users
    if (role == _USER) != bool(user) or user not in (*users, ''):
        raise UserError(
            f'{where} has role={role!r} and user={shown(user)}: write role={_USER!r} with one of '
            f'the legitimate.users, {", ".join(users)}, or neither'
        )
    for seed in columns.SEEDS:
        if seed in overrides:
            raise UserError(f'{where} names {seed}: leave it out, a comparison is over all seeds')
    run = config.resolve(known.config, overrides, known.fixed, where)
    runs = known.ids.get(_without_seeds(run))
    if runs is None:
        raise UserError(
            f'{where}={shown(dict(written))}: no run is this; write all overrides of one of the '
            f'runs but its seed, or {_NONE}'
        )
    return Condition(runs, role, user, run.defense)


def _without_seeds(run: ml_collections.ConfigDict) -> str:
    fields = run.to_dict()
    del fields['seed'], fields['victim']['seed']
    return json.dumps(fields, sort_keys=True)
