"""Defenses with their attackers and users at one endpoint and budget."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssl_extract.errors import UserError
from ssl_extract.registry import parse_call, split_chain
from ssl_extract.report import estimates, labels, tables
from ssl_extract.report.estimates import Estimate, Fields, Interval, Row
from ssl_extract.report.tables import NONE, PROBE

USER = 'user_accuracy'
_ADAPTED = ('attack', 'plan', 'strategy', 'adaptive')  # what an adaptation may change


class Change(NamedTuple):
    """The change of an accuracy, the 95 % interval if any, and the kind of the interval."""

    delta: float
    interval: Interval
    way: str

    @property
    def is_clear(self) -> bool:
        """Checks whether the accuracy surely goes down: the interval lies below 0."""
        return self.interval is not None and self.interval[1] < 0


class User(NamedTuple):
    """A kind of legitimate user behind a defense, the same user without it, and the change."""

    kind: str
    estimate: Estimate
    without: Estimate | None
    change: Change | None


class Setting(NamedTuple):
    """A defense ('': none), with attackers at one endpoint and budget, and with users.

    Attributes:
        fields: of the victim and the evaluation, where they differ between runs.
        endpoint, budget, defense: of the oracle.
        attackers: the surrogates, with linear-probe accuracy.
        undefended: all surrogates without a defense at the same endpoint and budget.
        users: kind -> the user of the kind that lost most.
    """

    fields: Fields
    endpoint: str
    budget: int | None
    defense: str
    attackers: list[Estimate]
    undefended: list[Estimate]
    users: dict[str, User]

    @property
    def without(self) -> list[Estimate]:
        """Returns the attackers without a defense that were run behind the defense too."""
        met = [u for e in self.attackers for u in _selves(e, self.undefended)]
        return [u for u in self.undefended if u in met]

    @property
    def best(self) -> Estimate | None:
        """Returns the best of the same attackers without a defense."""
        return _best(self.without)

    @property
    def usual(self) -> Estimate | None:
        """Returns the best attacker that does nothing against the defense."""
        return _best(e for e in self.attackers if not e.is_adaptive)

    @property
    def adaptive(self) -> Estimate | None:
        """Returns the best attacker that adapts to the defense."""
        return _best(e for e in self.attackers if e.is_adaptive)

    @property
    def worst(self) -> Estimate | None:
        """Returns the best attacker of all, by the mean over seeds."""
        return _best(self.attackers)

    @property
    def worst_user(self) -> User | None:
        """Returns the user that lost most."""
        compared = [user for user in self.users.values() if user.change]
        return min(compared, key=lambda user: user.change.delta, default=None)

    def change(self, attacker: Estimate | None) -> Change | None:
        """Returns the change from the best of the same attackers without a defense to this one."""
        return change_of(attacker, self.best) if self.defense else None


def settings(rows: Sequence[Row], task: str | None, metric: str = PROBE) -> list[Setting]:
    """Lists every defense on one task, weaker before stronger, at each endpoint and budget.

    Victims that differ in a config field are apart. 'No defense' comes first; empty where there is
    no defense at all. Attackers are compared by `metric`.
    """
    attackers = [e for e in estimates.aggregate(rows, task, metric) if e.role == 'surrogate']
    attackers = [e for e in attackers if e.value is not None]
    users = [e for e in estimates.aggregate(rows, task, USER) if e.value is not None]
    users = [e for e in users if e.role == 'legitimate']
    places = {(e.endpoint, e.budget) for e in attackers} or {(e.endpoint, None) for e in users}
    places = sorted(places, key=lambda place: (place[0], place[1] or 0))
    return [
        setting
        for fields in _victims([*attackers, *users])
        for endpoint, budget in places
        for setting in _at(fields, endpoint, budget, attackers, users)
    ]


def chief(shown: Sequence[Setting]) -> list[Setting]:
    """Chooses the settings of the victim, endpoint and budget with most defenses.

    Of several, the largest budget.
    """
    groups: dict[tuple, list[Setting]] = {}
    for s in shown:
        groups.setdefault((s.fields, s.endpoint, s.budget), []).append(s)
    return max(groups.values(), key=lambda g: (len(g), g[0].budget or 0), default=[])


def natural(spec: str) -> list[tuple]:
    """Returns a key that sorts numbers in a text by value.

    >>> sorted(['a(x=10)', 'a(x=9.5)', 'a(x=1e-2)'], key=natural)
    ['a(x=1e-2)', 'a(x=9.5)', 'a(x=10)']
    """
    parts = re.split(r'((?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)', spec)
    return [(1, float(p), '') if i % 2 else (0, 0.0, p) for i, p in enumerate(parts)]


def family(spec: str) -> str:
    """Returns the names of a chain without arguments: strengths of one defense share it.

    >>> family('guard(threshold=0.1, then="noise(stddev=1)") | round(decimals=2)')
    'guard | round'
    """
    try:
        return ' | '.join(parse_call(part)[0] for part in split_chain(spec))
    except UserError:  # not a spec
        return spec


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Finds the points (lost by users, taken from the attacker) that no other beats.

    >>> frontier([(1.0, 5.0), (2.0, 4.0), (0.0, 0.0), (3.0, 6.0)])
    [2, 0, 3]
    """
    unbeaten, most = [], -math.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > most:
            unbeaten.append(i)
            most = points[i][1]
    return unbeaten


def attack_name(s: Setting, among: Sequence[Setting]) -> str:
    """Names the attack of the worst case."""
    attacker = s.worst
    if attacker is None:
        return NONE
    attacker = attacker._replace(defense='')
    alike = [e._replace(defense='') for other in among for e in other.attackers]
    kind = attacker.adaptive, attacker.is_adaptive
    alike = [e for e in alike if (e.adaptive, e.is_adaptive) == kind]
    always = ('attack', 'loss', 'adaptive')
    if attacker.is_adaptive and not attacker.adaptive:
        always += ('plan', 'strategy')
    return labels.label(attacker, alike, always=always) or 'surrogate'


def varied_fields(shown: Sequence[Setting]) -> list[str]:
    """Names the fields that tell the victims apart."""
    values: dict[str, set] = {}
    for s in shown:
        for name, value in s.fields:
            values.setdefault(name, set()).add(value)
    return [name for name in sorted(values) if len(values[name]) > 1]


def _victims(encoders: Sequence[Estimate]) -> list[Fields]:
    """Lists the fields of each victim, without those that are a part of another's fields."""
    distinct = list(dict.fromkeys(e.setting for e in encoders))
    return [fields for fields in distinct if not any({*fields} < {*other} for other in distinct)]


def _at(
    fields: Fields,
    endpoint: str,
    budget: int | None,
    attackers: Sequence[Estimate],
    users: Sequence[Estimate],
) -> list[Setting]:
    """Lists the defenses of one victim at one endpoint and budget."""
    attackers = [e for e in attackers if estimates.agree(e.setting, fields)]
    met = {e.defense for e in attackers}
    here = [e for e in attackers if (e.endpoint, e.budget) == (endpoint, budget)]
    users = [e for e in users if estimates.agree(e.setting, fields)]
    near = [e for e in users if not (e.endpoint and endpoint) or e.endpoint == endpoint]
    names = {e.defense for e in here} | {e.defense for e in near if e.defense not in met}
    if not names - {''}:
        return []
    behind = {name: [e for e in here if e.defense == name] for name in names | {''}}
    return [
        Setting(fields, endpoint, budget, name, behind[name], behind[''], _users(near, name))
        for name in sorted(behind, key=natural)
    ]


def _selves(e: Estimate, undefended: Sequence[Estimate]) -> list[Estimate]:
    """Finds an attacker behind a defense among those without one.

    An attacker that adapts is the same attack with the same loss, network, images and views, for
    its adaptation may be a plan, a strategy, an argument or a field of the attack: of several such
    attacks those that share the most of these with it.
    """
    if not e.is_adaptive:
        return [u for u in undefended if estimates.same(e, u)]
    bare = [_bare(u) for u in undefended]
    alike = [u for u, b in zip(undefended, bare, strict=True) if estimates.same(_bare(e), b)]
    near = [
        len({*u.fields} & {*e.fields}) + sum(u.get(name) == e.get(name) for name in _ADAPTED)
        for u in alike
    ]
    return [u for u, count in zip(alike, near, strict=True) if count == max(near)]


def _bare(e: Estimate) -> Estimate:
    """Returns an attacker without all that an adaptation may be."""
    bare = {'plan': '', 'strategy': '', 'adaptive': '', 'fields': e.setting}
    return e._replace(attack=family(e.attack), **bare)


def _users(measured: Sequence[Estimate], defense: str) -> dict[str, User]:
    by_kind: dict[str, User] = {}
    for e in measured:
        if e.defense == defense:
            without = estimates.undefended(e, measured) if defense else None
            new = User(e.user, e, without, change_of(e, without))
            by_kind[e.user] = max(by_kind.get(e.user, new), new, key=_loss)
    return by_kind


def _loss(user: User) -> tuple[float, float]:
    return -math.inf if user.change is None else -user.change.delta, -user.estimate.value


def _best(encoders: Iterable[Estimate]) -> Estimate | None:
    return max(encoders, key=lambda e: e.value, default=None)


def change_of(new: Estimate | None, old: Estimate | None) -> Change | None:
    """Returns the change from one accuracy to another; None where one of them is missing."""
    change = estimates.difference(new, old) if new and old else None
    return change and Change(*change)


def in_points(change: Change) -> str:
    """Writes a change in points: '−7.0 (−9.0 to −5.0)'."""
    bounds = f' ({tables.span(change.interval, tables.signed)})' if change.interval else ''
    return tables.signed(change.delta) + bounds
