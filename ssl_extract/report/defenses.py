"""Tables of defenses: costs to attackers and to legitimate users."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssl_extract.errors import UserError
from ssl_extract.registry import parse_call, split_chain
from ssl_extract.report import columns, estimates, labels, tables
from ssl_extract.report.estimates import Estimate, Fields, Interval, Row
from ssl_extract.report.tables import NONE, PROBE, Table

USER, USER_CLEAN = 'user_accuracy', 'user_accuracy_clean'
METRICS = (USER, USER_CLEAN)  # of the tables of this module


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
    """A kind of legitimate user behind a defense, and the change of the accuracy."""

    kind: str
    estimate: Estimate
    change: Change | None


class Setting(NamedTuple):
    """A defense ('': none), with attackers at one endpoint and budget, and with users.

    Attributes:
        fields: of the victim and the evaluation, where they differ between runs.
        endpoint, budget, defense: of the oracle.
        attackers: the surrogates, with linear-probe accuracy.
        best: of all surrogates without a defense at the same endpoint and budget.
        users: kind -> the user of the kind that lost most.
    """

    fields: Fields
    endpoint: str
    budget: int | None
    defense: str
    attackers: list[Estimate]
    best: Estimate | None
    users: dict[str, User]

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
        """Returns the change from the best attacker without a defense to this one."""
        return _change(attacker, self.best) if self.defense else None


def settings(rows: Sequence[Row], task: str | None) -> list[Setting]:
    """Lists every defense on one task, weaker before stronger, at each endpoint and budget.

    Victims that differ in a config field are apart. 'No defense' comes first; empty where there is
    no defense at all.
    """
    attackers = [e for e in estimates.aggregate(rows, task, PROBE) if e.role == 'surrogate']
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


def overview(rows: Sequence[Row], task: str | None) -> Table | None:
    """Tabulates a line per defense: the attacker, usual and worst, and every kind of user."""
    shown, titles = settings(rows, task), columns.TITLES
    if not shown:
        return None
    kinds = list(dict.fromkeys(kind for s in shown for kind in s.users))
    endpoints, budgets = {s.endpoint for s in shown}, {s.budget for s in shown}
    varied = _varied_fields(shown)
    header = [titles['endpoint']] * (len(endpoints) > 1) + [titles['budget']] * (len(budgets) > 1)
    header += [*varied, titles['defense'], 'Not adaptive, %', 'Adaptive, %']
    header += ['Worst case, %', 'Worst attack']
    header += [f'User, {kind}, %' if kind else 'User, %' for kind in kinds] or ['User, %']
    header += ['Seeds']
    body, ways = [], set()
    for s in shown:
        change = s.change(s.worst)
        changes = [change, *(user.change for user in s.users.values())]
        ways |= {c.way for c in changes if c}
        users = [s.users.get(kind) for kind in kinds] or [None]
        line = [s.endpoint or NONE] * (len(endpoints) > 1)
        line += [NONE if s.budget is None else f'{s.budget:,}'] * (len(budgets) > 1)
        line += [str(dict(s.fields).get(name, NONE)) for name in varied]
        line += [s.defense or 'none', _percent(s.usual), _percent(s.adaptive)]
        line += [_changed(s.worst, change), attack_name(s, shown)]
        line += [_changed(user and user.estimate, user and user.change) for user in users]
        body.append([*line, _seeds(s)])
    texts = (titles['endpoint'], titles['defense'], 'Worst attack', *varied)
    numeric = [name not in texts for name in header]
    caption = ' '.join(filter(None, _overview_caption(shown, task, ways)))
    return Table(f'On {task}', header, body, numeric, [''] * len(body), caption)


def users(rows: Sequence[Row], task: str | None) -> Table | None:
    """Tabulates every legitimate user behind every defense; None where there is none."""
    measured = [e for e in estimates.aggregate(rows, task, USER) if e.role == 'legitimate']
    clean = {e.condition: e for e in estimates.aggregate(rows, task, USER_CLEAN)}
    if not measured:
        return None
    body, ways = [], set()
    for e in measured:
        change = _change(e, estimates.undefended(e, measured)) if e.defense else None
        ways |= {change.way} if change else set()
        delta = NONE if change is None else tables.signed(change.delta)
        body.append(
            [
                *('not finite' if e.value is None else _percent(e), _interval(e)),
                *(delta, tables.span(change and change.interval, tables.signed)),
                *(_percent(clean.get(e.condition)), str(e.seeds)),
            ]
        )
    headings = ['Accuracy, %', '95 % interval', 'Change', 'Change: interval']
    headings += ['On undefended answers, %', 'Seeds']
    caption = [
        f'Accuracy on {task} of what a legitimate user makes of its answers, through the defense. '
        'What is not answered counts as wrong. Budget: the queries its account sends.',
        tables.change_words(ways) if ways else '',
        'Against the same user without a defense.' if ways else '',
    ]
    return tables.assemble(f'On {task}, legitimate users', measured, headings, body, caption)


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


def _varied_fields(shown: Sequence[Setting]) -> list[str]:
    """Names the fields that tell the victims apart."""
    values: dict[str, set] = {}
    for s in shown:
        for name, value in s.fields:
            values.setdefault(name, set()).add(value)
    return [name for name in sorted(values) if len(values[name]) > 1]


def _overview_caption(shown: Sequence[Setting], task: str | None, ways: set[str]) -> list[str]:
    defended = [s for s in shown if s.defense]
    untried = [s for s in defended if s.best and s.attackers and not _met_best(s)]
    return [
        f'Linear-probe accuracy of surrogates on {task}, and what legitimate users reach there.',
        'Adaptive: an attacker that does something against the defense. Worst case: the best '
        'surrogate, adaptive or not; it is chosen by the mean over seeds, which is slightly '
        'optimistic for the attacker.',
        'After the semicolon: the change, of the worst case against the best surrogate without a '
        'defense at the same budget, of a user against itself without a defense.'
        if ways
        else '',
        tables.change_words(ways) if ways else '',
        _missing('No adaptive attacker was run for', [s for s in defended if not s.adaptive]),
        _missing('No surrogate was evaluated for', [s for s in defended if not s.attackers]),
        _missing('No legitimate user was evaluated for', [s for s in defended if not s.users]),
        _missing('The best attack without a defense was not run for', untried),
    ]


def _missing(words: str, shown: Sequence[Setting]) -> str:
    names = list(dict.fromkeys(s.defense for s in shown))
    return f'{words}: {", ".join(names)}.' if names else ''


def _met_best(s: Setting) -> bool:
    return any((e.attack, e.loss) == (s.best.attack, s.best.loss) for e in s.attackers)


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
    best = _best(e for e in here if not e.defense)
    behind = {name: [e for e in here if e.defense == name] for name in names | {''}}
    return [
        Setting(fields, endpoint, budget, name, behind[name], best, _users(near, name))
        for name in sorted(behind, key=natural)
    ]


def _users(measured: Sequence[Estimate], defense: str) -> dict[str, User]:
    by_kind: dict[str, User] = {}
    for e in measured:
        if e.defense == defense:
            change = _change(e, estimates.undefended(e, measured)) if defense else None
            new = User(e.user, e, change)
            by_kind[e.user] = max(by_kind.get(e.user, new), new, key=_loss)
    return by_kind


def _loss(user: User) -> tuple[float, float]:
    return -math.inf if user.change is None else -user.change.delta, -user.estimate.value


def _best(encoders: Iterable[Estimate]) -> Estimate | None:
    return max(encoders, key=lambda e: e.value, default=None)


def _change(new: Estimate | None, old: Estimate | None) -> Change | None:
    change = estimates.difference(new, old) if new and old else None
    return change and Change(*change)


def _percent(e: Estimate | None) -> str:
    return NONE if e is None else tables.percent(e.value) + ('*' if e.mixed else '')


def _interval(e: Estimate) -> str:
    return tables.span(tables.clipped(e.interval))


def _changed(e: Estimate | None, change: Change | None) -> str:
    """Writes '74.0; −7.0 (−9.0 to −5.0)'."""
    return _percent(e) + (f'; {in_points(change)}' if change else '')


def in_points(change: Change) -> str:
    """Writes a change in points: '−7.0 (−9.0 to −5.0)'."""
    bounds = f' ({tables.span(change.interval, tables.signed)})' if change.interval else ''
    return tables.signed(change.delta) + bounds


def _seeds(s: Setting) -> str:
    counts = {e.seeds for e in (s.worst, *(user.estimate for user in s.users.values())) if e}
    return '–'.join(map(str, sorted({min(counts), max(counts)}))) if counts else NONE
