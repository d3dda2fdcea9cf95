"""Losses behind a defense as shares of the headroom over named floors."""

from collections.abc import Sequence
from typing import NamedTuple

from ssl_extract.report import columns, estimates, ratios, settings, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.ratios import Ratio
from ssl_extract.report.settings import Change, Setting, User
from ssl_extract.report.tables import NONE, PROBE, Table

CHANCE, UNTRAINED, ANSWER_CHANGE = 'user_chance', 'user_untrained', 'answer_change'
# The floors of attackers and users, in the order of the table.
FLOORS = ('untrained', 'from scratch', 'chance')
METRICS = (CHANCE, UNTRAINED, ANSWER_CHANGE)  # of the tables of this module


class Loss(NamedTuple):
    """The loss of an attacker or a user behind a defense.

    Attributes:
        who: 'attacker', or the user with its kind.
        change: of the accuracy, which a loss makes negative.
        shares: the loss as a share of (accuracy without the defense - floor), by floor; None where
            the floor was not measured or the headroom is not clearly positive.
    """

    who: str
    change: Change
    shares: dict[str, Ratio | None]


class Floors(NamedTuple):
    """The estimates of a task that losses are compared with.

    Attributes:
        encoders: by linear probe; those of the untrained encoder and those from scratch are used.
        chance: the best constant guess of each user.
        untrained: each user's classifier on an untrained encoder of its own.
        answer_change: how far a defense moves each user's answers, in their standard deviations.
    """

    encoders: list[Estimate]
    chance: list[Estimate]
    untrained: list[Estimate]
    answer_change: list[Estimate]


def floors(rows: Sequence[Row], task: str | None) -> Floors:
    """Reads the floors of a task."""
    return Floors(*(estimates.aggregate(rows, task, m) for m in (PROBE, *METRICS)))


def losses(s: Setting, among: Floors) -> list[Loss]:
    """Lists the losses behind a defense: of the worst case, then of every kind of user."""
    found = [of_attacker(s, s.worst, among)]
    found += [of_user(user, among) for user in s.users.values()]
    return [loss for loss in found if loss]


def of_attacker(s: Setting, attacker: Estimate | None, among: Floors) -> Loss | None:
    """Returns the loss of an attacker against the best of the same attacks without a defense."""
    change = s.change(attacker)
    if change is None:
        return None
    at = {
        'untrained': estimates.reference(among.encoders, 'random', s.best),
        'from scratch': estimates.scratch_for(s.best, among.encoders),
    }
    return Loss('attacker', change, _shares(s.best, attacker, at))


def of_user(user: User, among: Floors) -> Loss | None:
    """Returns the loss of a user against itself without a defense."""
    if user.change is None:
        return None
    at = {
        'untrained': _of(user.estimate, among.untrained),
        'chance': _of(user.estimate, among.chance),
    }
    who = f'user, {user.kind}' if user.kind else 'user'
    return Loss(who, user.change, _shares(user.without, user.estimate, at))


def headroom(rows: Sequence[Row], task: str | None) -> Table | None:
    """Tabulates the losses behind every defense, in points and as shares; None without any."""
    shown, among = settings.settings(rows, task), floors(rows, task)
    lines = [(s, loss) for s in shown for loss in losses(s, among)]
    if not lines:
        return None
    titles, varied = columns.TITLES, settings.varied_fields(shown)
    left = {
        titles['endpoint']: [s.endpoint or NONE for s, _ in lines],
        titles['budget']: [NONE if s.budget is None else f'{s.budget:,}' for s, _ in lines],
        **{name: [str(dict(s.fields).get(name, NONE)) for s, _ in lines] for name in varied},
    }
    left = {name: cells for name, cells in left.items() if len(set(cells)) > 1}
    right = {
        titles['defense']: [s.defense for s, _ in lines],
        'Answers moved, SD': [_answer_change(s, among) for s, _ in lines],
        'Loss of': [loss.who for _, loss in lines],
        'Points': [_points(loss.change) for _, loss in lines],
        **{
            f'Over {floor}, %': [tables.share_of(loss.shares.get(floor)) for _, loss in lines]
            for floor in FLOORS
        },
    }
    right = {name: cells for name, cells in right.items() if {*cells} != {NONE}}
    cells = left | right
    texts = (titles['endpoint'], titles['defense'], 'Loss of', *varied)
    body = [list(line) for line in zip(*cells.values(), strict=True)]
    numeric = [name not in texts for name in cells]
    caption = ' '.join(filter(None, _caption(lines, task)))
    return Table(
        f'On {task}, losses as shares of headroom',
        list(cells),
        body,
        numeric,
        [''] * len(body),
        caption,
        keys=list(cells).index('Loss of') + 1,
    )


def _caption(lines: Sequence[tuple[Setting, Loss]], task: str | None) -> list[str]:
    return [
        f'Losses of accuracy on {task}, of the worst case against the best of the same attacks '
        'without a defense and of each user against itself without a defense.',
        'Over a floor: the loss as a share of (accuracy without the defense − floor), with '
        'Fieller’s 95 % interval; left out where this headroom is not clearly positive. Points of '
        'attackers and users are points of different headroom; shares over the same floor may be '
        'compared.',
        'Floors. Untrained: of an attacker the linear probe of an untrained encoder, of a user its '
        'classifier on an untrained encoder of its own. From scratch: pretrained without a victim '
        'on as many of the attacker’s inputs. Chance: the best constant guess.',
        'Answers moved: the root mean square of what the defense changes in the answers to a '
        'user’s queries, in standard deviations of the undefended answers.',
        tables.change_words({loss.change.way for _, loss in lines}, 'Points: the loss'),
    ]


def _shares(
    without: Estimate, behind: Estimate, at: dict[str, Estimate | None]
) -> dict[str, Ratio | None]:
    return {
        name: floor and ratios.ratio((without, behind), (without, floor))
        for name, floor in at.items()
    }


def _of(user: Estimate, measured: Sequence[Estimate]) -> Estimate | None:
    """Finds what was measured of a user, with the defense or without."""
    return next((e for e in measured if estimates.same(e, user)), None)


def _points(change: Change) -> str:
    """Writes a loss in points, which is the change with the other sign."""
    interval = change.interval and (-change.interval[1], -change.interval[0])
    return settings.in_points(Change(-change.delta, interval, change.way))


def _answer_change(s: Setting, among: Floors) -> str:
    """Writes how far a defense moves the answers, over the kinds of users: '0.79–0.81'."""
    moved = [
        e.value
        for user in s.users.values()
        for e in among.answer_change
        if e.defense == s.defense and estimates.same(e, user.estimate) and e.value is not None
    ]
    return '–'.join(dict.fromkeys(f'{v:.3g}' for v in (min(moved), max(moved)))) if moved else NONE
