"""Tables of defenses: costs to attackers and to legitimate users."""

import collections
from collections.abc import Sequence

from ssl_extract.report import columns, estimates, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.settings import (
    USER,
    Change,
    Setting,
    attack_name,
    change_of,
    in_points,
    settings,
    varied_fields,
)
from ssl_extract.report.tables import NONE, Table

PLAIN, CLEAN = 'user_accuracy_plain', 'user_accuracy_clean'
METRICS = (USER, PLAIN, CLEAN)  # of the tables of this module


def overview(rows: Sequence[Row], task: str | None) -> Table | None:
    """Tabulates a line per defense: the attacker, usual and worst, and every kind of user."""
    shown, titles = settings(rows, task), columns.TITLES
    if not shown:
        return None
    kinds = list(dict.fromkeys(kind for s in shown for kind in s.users))
    endpoints, budgets = {s.endpoint for s in shown}, {s.budget for s in shown}
    varied = varied_fields(shown)
    header = [titles['endpoint']] * (len(endpoints) > 1) + [titles['budget']] * (len(budgets) > 1)
    header += [*varied, titles['defense'], 'Attackers', 'Without it, %', 'Not adaptive, %']
    header += ['Adaptive, %', 'Worst case, %', 'Worst attack']
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
        line += [s.defense or 'none', _attackers(s), _percent(s.best if s.defense else None)]
        line += [_percent(s.usual), _percent(s.adaptive)]
        line += [_changed(s.worst, change), attack_name(s, shown)]
        line += [_changed(user and user.estimate, user and user.change) for user in users]
        body.append([*line, _seeds(s)])
    texts = (titles['endpoint'], titles['defense'], 'Worst attack', *varied)
    numeric = [name not in texts for name in header]
    caption = ' '.join(filter(None, _overview_caption(shown, task, ways)))
    keys = header.index(titles['defense']) + 1
    return Table(f'On {task}', header, body, numeric, [''] * len(body), caption, keys=keys)


def users(rows: Sequence[Row], task: str | None) -> Table | None:
    """Tabulates every legitimate user behind every defense; None where there is none."""
    measured = [e for e in estimates.aggregate(rows, task, USER) if e.role == 'legitimate']
    plain, clean = (
        {e.condition: e for e in estimates.aggregate(rows, task, metric)}
        for metric in (PLAIN, CLEAN)
    )
    if not measured:
        return None
    body, ways = [], set()
    for e in measured:
        change = change_of(e, estimates.undefended(e, measured)) if e.defense else None
        ways |= {change.way} if change else set()
        delta = NONE if change is None else tables.signed(change.delta)
        body.append(
            [
                *('not finite' if e.value is None else _percent(e), _interval(e)),
                *(delta, tables.span(change and change.interval, tables.signed)),
                *(_adapted(e), _percent(plain.get(e.condition)), _percent(clean.get(e.condition))),
                *(str(e.seeds), tables.span_of_counts(e.billed)),
            ]
        )
    headings = ['Accuracy, %', '95 % interval', 'Change', 'Change: interval']
    headings += [columns.TITLES['adaptation'], 'Answers as they come, %']
    headings += ['On undefended answers, %', 'Seeds', columns.TITLES['queries_billed']]
    caption = [
        f'Accuracy on {task} of what a legitimate user makes of its answers, through the defense. '
        'What is not answered counts as wrong. Adapted by: what it does about the answers, chosen '
        'on a part of its own labeled inputs, for each seed. Answers as they come: without that. '
        'On undefended answers: the same classifier on answers without the defense, which are '
        'strange to it where the defense is a secret map. Billed: the queries of its account.',
        tables.change_words(ways) if ways else '',
        'Against the same user without a defense.' if ways else '',
    ]
    return tables.assemble(f'On {task}, legitimate users', measured, headings, body, caption)


def _overview_caption(shown: Sequence[Setting], task: str | None, ways: set[str]) -> list[str]:
    defended = [s for s in shown if s.defense]
    compared = [s for s in defended if s.attackers and s.without]
    return [
        f'Linear-probe accuracy of surrogates on {task}, and what legitimate users reach there.',
        'Adaptive: an attacker that does something against the defense. Worst case: the best '
        'surrogate behind the defense, adaptive or not. Without it: the best of the same attacks, '
        'at the same budget, without a defense. Attackers: how many there are without and with '
        'the defense.',
        'The best of several is chosen by its mean over seeds, on the inputs that it is reported '
        'on: on either side chance makes it look better than it is, the more so the more there '
        'are. More attackers with the defense than without it, as where some adapt, make the '
        'defense look weaker than it is.'
        if compared
        else '',
        _missing(
            'Fewer attackers with it than without it, which makes it look stronger than it is',
            [s for s in compared if len(s.attackers) < len(s.without)],
        ),
        'After the semicolon: the change, of the worst case against the same attacks without a '
        'defense, of a user against itself without a defense.'
        if ways
        else '',
        tables.change_words(ways) if ways else '',
        _missing('No adaptive attacker was run for', [s for s in defended if not s.adaptive]),
        _missing('No surrogate was evaluated for', [s for s in defended if not s.attackers]),
        _missing('No legitimate user was evaluated for', [s for s in defended if not s.users]),
        _missing(
            'No attack behind it was run without a defense, so that nothing is compared, for',
            [s for s in defended if s.attackers and not s.without],
        ),
        _missing(
            'Some attack without a defense is better than all that were run behind',
            [s for s in compared if s.best.value < max(u.value for u in s.undefended)],
        ),
    ]


def _attackers(s: Setting) -> str:
    """Writes the numbers of attackers without and with a defense: '2, 3'."""
    return f'{len(s.without)}, {len(s.attackers)}' if s.defense else str(len(s.attackers))


def _missing(words: str, shown: Sequence[Setting]) -> str:
    names = list(dict.fromkeys(s.defense for s in shown))
    return f'{words}: {", ".join(names)}.' if names else ''


def _percent(e: Estimate | None) -> str:
    return NONE if e is None else tables.percent(e.value) + ('*' if e.mixed else '')


def _adapted(e: Estimate) -> str:
    """Writes the adaptations and how many seeds chose each: 'shrink (2), nothing (1)'."""
    counts = collections.Counter(name or 'nothing' for name in e.adaptations)
    one = len(counts) == 1
    return ', '.join(name if one else f'{name} ({n})' for name, n in counts.most_common())


def _interval(e: Estimate) -> str:
    return tables.span(tables.clipped(e.interval))


def _changed(e: Estimate | None, change: Change | None) -> str:
    """Writes '74.0; −7.0 (−9.0 to −5.0)'."""
    return _percent(e) + (f'; {in_points(change)}' if change else '')


def _seeds(s: Setting) -> str:
    counts = {e.seeds for e in (s.worst, *(user.estimate for user in s.users.values())) if e}
    return '–'.join(map(str, sorted({min(counts), max(counts)}))) if counts else NONE
