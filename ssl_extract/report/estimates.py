"""Estimates from result rows: means over seeds, intervals and differences."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import scipy

from ssl_extract.errors import UserError
from ssl_extract.report import columns

Row = dict[str, Any]
Interval = tuple[float, float] | None
Fields = tuple[tuple[str, Any], ...]


class Estimate(NamedTuple):
    """One measured quantity under one condition, over all seeds.

    Attributes:
        role, attack, loss, defense, budget, plan: the condition ('' or None where there is none).
        strategy: of choosing queries.
        data: the attacker's set.
        endpoint: of the oracle's answers.
        views: a word for the augmentations.
        adaptive: the attacker's measures against the defense.
        user: the kind of a legitimate user.
        encoder: the network.
        fields: the last of the condition, (name, value) of each config field that differs between
            runs and that the condition has one value of; see `results.tidy`.
        value: mean over seeds of the finite values; None where no value is finite.
        interval: 95 % interval, see `aggregate`; None where none can be given.
        by_seed: finite value of each seed; a seed is the values of `columns.SEEDS`.
        seeds: number of independent runs in the mean `value`.
        lost: number of seeds whose value is not finite (they are not in the mean).
        mixed: one seed has several values; see `aggregate`.
        billed: smallest and largest number of queries billed, or None.
        is_adaptive: whether the attacker does something against the defense.
        adaptations: what a user chose to do about the defense, seed by seed; '' is nothing.
    """

    role: str
    attack: str
    loss: str
    defense: str
    budget: int | None
    plan: str
    strategy: str
    data: str
    endpoint: str
    views: str
    adaptive: str
    user: str
    encoder: str
    fields: Fields
    value: float | None
    interval: Interval
    by_seed: dict[Any, float]
    seeds: int
    lost: int
    mixed: bool
    billed: tuple[int, int] | None
    is_adaptive: bool
    adaptations: tuple[str, ...]

    @property
    def condition(self) -> tuple:
        """Returns the condition, without the measured value."""
        return self[: len(CONDITION)]

    @property
    def setting(self) -> Fields:
        """Returns the fields of the victim and the evaluation; see `columns.SETTING`."""
        return tuple((name, v) for name, v in self.fields if name.split('.')[0] in columns.SETTING)

    def get(self, name: str) -> Any:
        """Returns the value of a column or of a config field; '' where there is none."""
        return getattr(self, name) if name in CONDITION else dict(self.fields).get(name, '')


CONDITION = Estimate._fields[: Estimate._fields.index('value')]


def aggregate(
    rows: Iterable[Row], task: str | None, metric: str, *, allow_mixed: bool = False
) -> list[Estimate]:
    """Estimates `metric` on `task`, once per condition, victim first, untrained encoder last.

    A condition is the columns of the kind 'condition' that the role has, and the config fields that
    differ between runs. An estimate averages over seeds and over nothing else.

    With several seeds the interval is the t-interval of the mean over seeds (see `t_interval`);
    with one seed the interval is that of the row, over test inputs. A measurement that several
    seeds share (one victim, several attackers) counts once.

    Args:
        rows: as `results.tidy` returns them.
        task: the task, or None for a metric without a task.
        metric: the metric.
        allow_mixed: one seed may have several values, as a time measured on two machines; their
            mean stands for the seed and the estimate is `mixed`.

    Raises:
        UserError: one condition and seed has several values; names them.
    """
    groups: dict[tuple, dict[Fields, list[Row]]] = {}
    for row in rows:
        if row.get('task') == task and row.get('metric') == metric and row.get('value') is not None:
            group = groups.setdefault(_condition(row), {})
            group.setdefault(_fields(row), []).append(row)
    estimates = [
        _estimate((*condition, fields), alike, allow_mixed)
        for condition, by_fields in groups.items()
        for fields, alike in _joined(by_fields).items()
    ]
    return sorted(estimates, key=order)


def t_interval(values: Sequence[float]) -> Interval:
    """Returns the 95 % t-interval of the mean of two or more values, None of fewer.

    >>> low, high = t_interval([0.5, 0.6])
    >>> round(low, 3), round(high, 3)
    (-0.085, 1.185)
    """
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    return float(mean - half), float(mean + half)


def difference(new: Estimate, old: Estimate) -> tuple[float, Interval, str] | None:
    """Returns `new - old`, the 95 % interval and its kind; None where a value is missing.

    With two or more seeds in common, the interval is the t-interval of the differences seed by
    seed. Otherwise both intervals are combined as if independent (Newcombe 1998, method 10; Zou and
    Donner 2008, MOVER), which is wide for two encoders tested on the same inputs.
    """
    if new.value is None or old.value is None:
        return None
    shared = new.by_seed.keys() & old.by_seed.keys()
    if min(new.seeds, old.seeds) >= 2 and len(shared) >= 2:
        values = [new.by_seed[seed] - old.by_seed[seed] for seed in shared]
        return math.fsum(values) / len(values), t_interval(values), 'paired'
    delta = new.value - old.value
    if new.interval is None or old.interval is None:
        return delta, None, 'none'
    (low, high), (old_low, old_high) = new.interval, old.interval
    below = math.hypot(new.value - low, old_high - old.value)
    above = math.hypot(high - new.value, old.value - old_low)
    return delta, (delta - below, delta + above), 'independent'


def reference(
    estimates: Iterable[Estimate], role: str, like: Estimate | None = None
) -> Estimate | None:
    """Finds the estimate of `role` that `like` compares to.

    The result is the only estimate whose config fields agree with those of `like`; of several, the
    estimate with the same encoder.
    """
    alike = [e for e in estimates if e.role == role and e.value is not None]
    alike = [e for e in alike if like is None or _agree(e, like)]
    same = [e for e in alike if like is not None and e.encoder == like.encoder]
    return alike[0] if len(alike) == 1 else same[0] if len(same) == 1 else None


def undefended(estimate: Estimate, estimates: Sequence[Estimate]) -> Estimate | None:
    """Finds the same condition without a defense.

    Without such an estimate, the result is the same attack without adaptation for an adaptive
    attacker, and the victim for a legitimate user.
    """
    for like in (estimate, estimate._replace(adaptive='')):
        alike = [e for e in estimates if not e.defense and e.value is not None and same(e, like)]
        if alike:
            return max(alike, key=lambda e: len({*e.fields} & {*like.fields}))
    if estimate.role == 'legitimate':
        return reference(estimates, 'victim', estimate)
    return None


def scratch_for(attacker: Estimate, estimates: Sequence[Estimate]) -> Estimate | None:
    """Finds the encoder pretrained without a victim on as many inputs as the attacker asked."""
    alike = [
        e
        for e in estimates
        if e.budget == attacker.budget
        and e.data in ('', attacker.data)
        and e.strategy in ('', attacker.strategy)
    ]
    return reference(alike, 'scratch', attacker)


def is_finite(value: Any) -> bool:
    """Returns whether `value` is a number that can be shown: not None, NaN or infinite."""
    return value is not None and math.isfinite(value)


def order(e: Estimate) -> tuple:
    """Returns the key by which tables are sorted."""
    rank = columns.ROLES.index(e.role) if e.role in columns.ROLES else len(columns.ROLES)
    how = e.plan, e.strategy, e.data, e.endpoint, e.views, e.adaptive, e.user, e.encoder
    fields = tuple((name, isinstance(value, str), value) for name, value in e.fields)
    return rank, e.role, e.attack, e.loss, *how, fields, e.defense, e.budget or 0


def agree(a: Fields, b: Fields) -> bool:
    """Returns whether no field has one value in `a` and another in `b`.

    >>> agree((('victim.epochs', 5),), (('attack.epochs', 9), ('victim.epochs', 5)))
    True
    """
    values = dict(b)
    return all(values.get(name, value) == value for name, value in a)


def same(a: Estimate, b: Estimate) -> bool:
    """Returns whether two conditions differ in the defense and in nothing else."""
    unlike = ('defense', 'fields')
    alike = all(getattr(a, name) == getattr(b, name) for name in CONDITION if name not in unlike)
    return alike and _agree(a, b)


def _agree(a: Estimate, b: Estimate) -> bool:
    return agree(a.fields, b.fields)


def _condition(row: Row) -> tuple:
    """Returns the columns of the condition, without the fields that differ between runs."""
    used = columns.conditions(row['role'])
    cells = {name: row.get(name) if name in used else None for name in CONDITION[:-1]}
    texts = {name: value or '' for name, value in cells.items() if name != 'budget'}
    return tuple((cells | texts).values())


def _fields(row: Row) -> Fields:
    named = [name for name in columns.differing_fields(row) if name not in columns.SEEDS]
    return tuple((name, row[name]) for name in named if row[name] is not None)


def _seed(row: Row) -> tuple:
    return tuple(row[name] for name in columns.SEEDS if row.get(name) is not None)


def _joined(groups: dict[Fields, list[Row]]) -> dict[Fields, list[Row]]:
    """Joins the seeds of one condition whose runs differ in fields without effect on the condition.

    Runs that differ in a field share a row without a value of the field: the row does not depend on
    the field. Another seed of the same condition may have been in one run only, and then has the
    value of that run. The row with fewer fields stands for the other row, unless the two have
    different values of the same seed.
    """
    joined: dict[Fields, list[Row]] = {}
    for fields, rows in sorted(groups.items(), key=lambda group: len(group[0])):
        hosts = [host for host in joined if {*host} < {*fields} and _fit(joined[host], rows)]
        joined.setdefault(hosts[-1] if hosts else fields, []).extend(rows)
    return joined


def _fit(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Returns whether no seed has one value in `rows` and another in `others`."""
    values = {_seed(row): row['value'] for row in rows}
    return all(values.get(_seed(row), row['value']) == row['value'] for row in others)


def _estimate(condition: tuple, rows: Sequence[Row], allow_mixed: bool) -> Estimate:
    seeds: dict[tuple, dict[float, Row]] = {}
    for row in rows:  # an equal value is the same measurement in another run
        if is_finite(row['value']):
            seeds.setdefault(_seed(row), {})[row['value']] = row
    mixed = any(len(measured) > 1 for measured in seeds.values())
    if mixed and not allow_mixed:
        raise UserError(_conflict(next(m for m in seeds.values() if len(m) > 1)))
    by_seed = {seed: math.fsum(measured) / len(measured) for seed, measured in seeds.items()}
    values = list(by_seed.values())
    count, interval = len(values), None
    if len(set(values)) == 1 and not mixed:  # one seed, or one measurement that several seeds share
        row = seeds[next(iter(seeds))][values[0]]
        bounds = row.get('ci_low'), row.get('ci_high')
        interval = bounds if all(map(is_finite, bounds)) else None
        count = count if condition[0] in ('surrogate', 'legitimate') else 1
    else:
        interval = t_interval(values)
    billed = [row['queries_billed'] for row in rows if is_finite(row.get('queries_billed'))]
    return Estimate(
        *condition,
        value=math.fsum(values) / len(values) if values else None,
        interval=interval,
        by_seed=by_seed,
        seeds=count,
        lost=len({_seed(row) for row in rows} - seeds.keys()),
        mixed=mixed,
        billed=(min(billed), max(billed)) if billed else None,
        is_adaptive=any(row.get('is_adaptive') for row in rows),
        adaptations=tuple(row.get('adaptation') or '' for row in sorted(rows, key=_seed)),
    )


def _conflict(measured: dict[float, Row]) -> str:
    """Describes the rows that give one condition and seed several values."""
    rows = list(measured.values())
    where = [f'{row["value"]} (run {row.get("run")}, stage {row.get("stage")})' for row in rows]
    names = [name for name in columns.CONDITIONS if rows[0].get(name) not in (None, '')]
    condition = ', '.join(f'{name} {rows[0][name]}' for name in (*names, 'seed'))
    return (
        f'{rows[0]["metric"]} on {rows[0].get("task")} has several values for {condition}: '
        f'{" and ".join(where)}; no field of their configs tells them apart: remove one of these '
        'runs from its runs/ folder, or report their folders one at a time'
    )
