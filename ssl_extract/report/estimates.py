"""From tidy result rows to one estimate per condition: means over seeds, intervals, differences."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from scipy import stats

Row = dict[str, Any]
Interval = tuple[float, float] | None

ROLES = ('victim', 'legitimate', 'surrogate', 'scratch', 'random')  # the order in every table
# What tells two conditions of a role apart; the other fields say nothing about that role.
_IDENTITY = {
    'victim': ('encoder',),
    'legitimate': ('endpoint', 'defense', 'user', 'budget', 'encoder'),
    'surrogate': (
        *('attack', 'loss', 'defense', 'budget', 'plan'),
        *('strategy', 'data', 'endpoint', 'views', 'adaptive', 'encoder'),
    ),
    'scratch': ('budget', 'strategy', 'data', 'encoder'),
    'random': ('encoder',),
}


class Estimate(NamedTuple):
    """One measured quantity under one condition, over all its seeds.

    Attributes:
        role, attack, loss, defense, budget, plan: the condition ('' or None: not given).
        strategy: how the queries were chosen.
        data: the set they were chosen from.
        endpoint: what the oracle answered with.
        views: a word for the augmentations.
        adaptive: what the attacker did against the defense.
        user: the kind of a legitimate user.
        encoder: the last of the condition, the network.
        value: mean over seeds of the finite values; None where no value is finite.
        interval: 95 % interval, see `aggregate`; None where none can be given.
        by_seed: finite value of each seed.
        seeds: how many independent runs `value` is the mean of.
        lost: how many seeds gave a value that is not finite (they are not in the mean).
        mixed: one seed has several values, of runs that differ in something not in the rows.
        billed: smallest and largest number of queries billed, or None.
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
    value: float | None
    interval: Interval
    by_seed: dict[Any, float]
    seeds: int
    lost: int
    mixed: bool
    billed: tuple[int, int] | None

    @property
    def condition(self) -> tuple:
        """What was measured, without how it came out."""
        return self[: len(CONDITION)]


CONDITION = Estimate._fields[: Estimate._fields.index('value')]


def aggregate(rows: Iterable[Row], task: str | None, metric: str) -> list[Estimate]:
    """Estimates of `metric` on `task`, one per condition, victim first, untrained encoder last.

    With several seeds the interval is the t-interval of the mean over seeds (see `t_interval`);
    with one it is the row's own, over test images. Where several seeds share one and the same
    measurement (one victim, several attackers), it counts as one.
    """
    conditions: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.get('task') == task and row.get('metric') == metric and row.get('value') is not None:
            conditions.setdefault(_condition(row), []).append(row)
    estimates = [_estimate(condition, found) for condition, found in conditions.items()]
    return sorted(estimates, key=order)


def t_interval(values: Sequence[float]) -> Interval:
    """95 % t-interval of the mean of two or more values, None of fewer.

    >>> low, high = t_interval([0.5, 0.6])
    >>> round(low, 3), round(high, 3)
    (-0.085, 1.185)
    """
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = stats.t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    return float(mean - half), float(mean + half)


def difference(new: Estimate, old: Estimate) -> tuple[float, Interval, str] | None:
    """`new - old`, its 95 % interval, and how that was found; None where a value is missing.

    Two or more seeds in common: the t-interval of the differences seed by seed. Otherwise both
    intervals are combined as if independent (Newcombe 1998, method 10; Zou and Donner 2008, MOVER),
    which is wide for two encoders tested on the same images.
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


def reference(estimates: Sequence[Estimate], role: str, encoder: str = '') -> Estimate | None:
    """The estimate of `role` that others compare to: the only one, or the one with this encoder."""
    found = [e for e in estimates if e.role == role and e.value is not None]
    same = [e for e in found if e.encoder == encoder]
    return found[0] if len(found) == 1 else same[0] if len(same) == 1 else None


def gap_recovered(estimate: Estimate, estimates: Sequence[Estimate]) -> float | None:
    """(value - random) / (victim - random); None where one is missing or the victim not better."""
    victim = reference(estimates, 'victim', estimate.encoder)
    random = reference(estimates, 'random', estimate.encoder)
    if None in (estimate.value, victim, random) or victim.value <= random.value:
        return None
    return (estimate.value - random.value) / (victim.value - random.value)


def undefended(estimate: Estimate, estimates: Sequence[Estimate]) -> Estimate | None:
    """The same condition without a defense.

    Failing that, for an attacker that adapted, the same attack that had nothing to adapt to; for a
    legitimate user, the victim.
    """
    for like in (estimate, estimate._replace(adaptive='')):
        for other in estimates:
            if not other.defense and _same(other, like) and other.value is not None:
                return other
    if estimate.role == 'legitimate':
        return reference(estimates, 'victim', estimate.encoder)
    return None


def scratch_for(attacker: Estimate, estimates: Sequence[Estimate]) -> Estimate | None:
    """The encoder pretrained without a victim on as many images as the attacker asked."""
    alike = [
        e
        for e in estimates
        if e.budget == attacker.budget
        and e.data in ('', attacker.data)
        and e.strategy in ('', attacker.strategy)
    ]
    return reference(alike, 'scratch', attacker.encoder)


def is_finite(value: Any) -> bool:
    """Whether `value` is a number that can be shown: not None, NaN or infinite."""
    return value is not None and math.isfinite(value)


def _same(a: Estimate, b: Estimate) -> bool:
    return all(getattr(a, field) == getattr(b, field) for field in CONDITION if field != 'defense')


def _condition(row: Row) -> tuple:
    used = _IDENTITY.get(row['role'], _IDENTITY['surrogate'])
    fields = {field: row.get(field) if field in used else None for field in CONDITION[1:]}
    texts = {field: value or '' for field, value in fields.items() if field != 'budget'}
    return row['role'], *(fields | texts).values()


def order(e: Estimate) -> tuple:
    """The key by which tables are sorted."""
    rank = ROLES.index(e.role) if e.role in ROLES else len(ROLES)
    how = e.plan, e.strategy, e.data, e.endpoint, e.views, e.adaptive, e.user, e.encoder
    return rank, e.role, e.attack, e.loss, *how, e.defense, e.budget or 0


def _estimate(condition: tuple, rows: Sequence[Row]) -> Estimate:
    seeds: dict[Any, dict[float, Row]] = {}
    for row in rows:  # the same value met again is the same measurement, seen by another run
        if is_finite(row['value']):
            seeds.setdefault(row.get('seed'), {})[row['value']] = row
    lost = len({row.get('seed') for row in rows} - seeds.keys())
    by_seed = {seed: math.fsum(found) / len(found) for seed, found in seeds.items()}
    mixed = any(len(found) > 1 for found in seeds.values())
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
        lost=lost,
        mixed=mixed,
        billed=(min(billed), max(billed)) if billed else None,
    )
