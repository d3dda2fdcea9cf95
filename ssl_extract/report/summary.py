"""The summary in plain words at the top of a report."""

from collections.abc import Sequence
from typing import Any

from ssl_extract.report import estimates, headroom, labels, ratios, settings, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.headroom import Floors, Loss
from ssl_extract.report.settings import Change, Setting
from ssl_extract.report.tables import PROBE, percent, span

FEW_SHOT = 'fewshot'


def summarize(rows: Sequence[Row], bill: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Writes the results in plain words: a paragraph for each task, and the billed queries."""
    probed = tables.tasks(rows)
    words = [_in_words(rows, task) for task in probed[:3]]
    if len(probed) > 3:
        words.append(f'{len(probed) - 3} more tasks are in the tables below.')
    if bill:
        billed = {}
        for entry in bill:
            billed[entry['account']] = max(entry['billed'], billed.get(entry['account'], 0))
        count = f'{len(billed)} accounts' if len(billed) > 1 else 'one account'
        words.append(f'In all, {sum(billed.values()):,} queries were billed to {count}.')
    return words or ['There are no results yet.']


def _in_words(rows: Sequence[Row], task: str | None) -> str:
    measured = estimates.aggregate(rows, task, PROBE)
    attackers = [e for e in measured if e.role == 'surrogate' and e.value is not None]
    best = max(
        [e for e in attackers if not e.defense] or attackers, key=lambda e: e.value, default=None
    )
    victim = estimates.reference(measured, 'victim', best)
    random = estimates.reference(measured, 'random', best)
    scratch = estimates.scratch_for(best, measured) if best else None
    others = [
        f'the victim has {_percent(victim)}' if victim else '',
        f'an untrained encoder {_percent(random)}' if random else '',
        f'one pretrained on as many inputs without a victim {_percent(scratch)}' if scratch else '',
    ]
    rest = ', '.join(filter(None, others))
    if best is None:
        rest = rest[:1].upper() + rest[1:] + f' on {task}. ' if rest else ''
        return rest + f'No surrogate has been evaluated on {task} yet.'
    paid = best.billed[1] if best.billed else best.budget
    subject = 'the surrogate' if len(attackers) == 1 else f'the best of {len(attackers)} surrogates'
    how = ', '.join(filter(None, (_how(best, attackers), best.defense)))
    seeds = f', mean of {best.seeds} seeds' if best.seeds > 1 else ''
    words = (
        f'With {paid:,} paid queries {subject} ' if paid is not None else f'{subject.capitalize()} '
    )
    words += f'({how}{seeds}) ' if how or seeds else ''
    words += f'reaches {_percent(best)} on {task}' + (f'; {rest}.' if rest else '.')
    gap = ratios.gap_recovered(best, measured)
    if gap is not None:
        share = f'{percent(gap.value, 0)} % ({span(gap.interval, tables.whole)})'
        words += f' The attacker recovered {share} of what training gave the victim.'
    words += _few_shot_words(rows, task)
    among = headroom.floors(rows, task)
    return words + _defense_words(settings.settings(rows, task), best, among)


def _few_shot_words(rows: Sequence[Row], task: str | None) -> str:
    """Says what encoders are worth with few labels; a full probe hides much of the difference."""
    measured = estimates.aggregate(rows, task, FEW_SHOT)
    stolen = [e for e in measured if e.role == 'surrogate' and e.value is not None]
    best = max((e for e in stolen if not e.defense), key=lambda e: e.value, default=None)
    scratch = estimates.scratch_for(best, measured) if best else None
    if scratch is None:
        return ''
    ahead = Change(*estimates.difference(best, scratch))
    words = f' With few labels the best surrogate has {_percent(best)}, {_points(ahead)} against '
    words += f'the one pretrained without a victim, {_percent(scratch)}.'
    defended = [s for s in settings.settings(rows, task, FEW_SHOT) if s.change(s.worst)]
    same = [s for s in defended if (s.endpoint, s.budget) == (best.endpoint, best.budget)]
    if not same:
        return words
    s = min(same, key=lambda s: s.worst.value)
    name, points = settings.attack_name(s, [s]), _points(s.change(s.worst))
    words += f' Under {s.defense} the best ({name}) then has {percent(s.worst.value)} %'
    return f'{words}, {points}.'


def _defense_words(every: Sequence[Setting], best: Estimate, among: Floors) -> str:
    """Describes the defense behind which the best attack is worst, and the users' losses."""
    same = [
        s
        for s in every
        if (s.endpoint, s.budget) == (best.endpoint, best.budget)
        and estimates.agree(s.fields, best.setting)
    ]
    shown = [s for s in same if s.change(s.worst)]
    if not shown:
        shown = [s for s in settings.chief(every) if s.change(s.worst)]
    if not shown:
        return ''
    tested = [s for s in shown if s.adaptive]
    s = min(tested or shown, key=lambda s: s.worst.value)
    loss = headroom.of_attacker(s, s.worst, among)
    name, count = settings.attack_name(s, [s]), len(tested or shown)
    which = f', the strongest of {count} defenses,' if count > 1 else ''
    if count < len(shown):
        which = which or ', the only defense'
        which = f'{which.rstrip(",")} that an attacker adapted to,'
    queries = f' with {s.budget:,} queries' if s.budget not in (best.budget, None) else ''
    words = (
        f' Under {s.defense}{which} the best surrogate ({name}) reaches '
        f'{percent(s.worst.value)} %{queries}, {_points(loss.change)} against the best of the '
        f'same attacks without a defense{_share(loss)}.'
    )
    if not any(other.change(other.worst).is_clear for other in shown):
        words = ' No defense is shown to hold the attacker back.' + words
    if s.adaptive is None:
        words += ' No attacker that adapts was tried against it.'
    return words + _user_words(s, among)


def _user_words(s: Setting, among: Floors) -> str:
    user = s.worst_user
    if user is None:
        return ' What it takes from a legitimate user was not measured.'
    kind = f' ({user.kind})' if user.kind else ''
    which = 'A legitimate user'
    if len(s.users) > 1:
        which = f'Of {len(s.users)} kinds of legitimate users the one that loses most'
    loss = headroom.of_user(user, among)
    return f' {which}{kind} changes by {_points(user.change)}{_share(loss)}.'


def _share(loss: Loss) -> str:
    """Writes a loss as a share of the headroom over an untrained encoder, where there is one."""
    share = loss.shares['untrained']
    if share is None:
        return ''
    bounds = span(share.interval, tables.whole)
    return f', a loss of {percent(share.value, 0)} % ({bounds}) of its headroom over untrained'


def _points(change: Change) -> str:
    """Writes '−7.0 points (−9.0 to −5.0)', and whether the interval includes 0."""
    points = f'{tables.signed(change.delta)} points'
    if change.interval is None:
        return f'{points} (no interval)'
    low, high = change.interval
    nothing = ', which includes 0' if low <= 0 <= high else ''
    return f'{points} ({span(change.interval, tables.signed)}{nothing})'


def _how(e: Estimate, attackers: Sequence[Estimate]) -> str:
    """Labels a surrogate among the surrogates under the same defense."""
    alike = [other for other in attackers if other.defense == e.defense]
    return labels.label(e, alike, always=('attack', 'loss'))


def _percent(e: Estimate) -> str:
    interval = f' ({span(tables.clipped(e.interval))})' if e.interval else ''
    return f'{percent(e.value)} %{interval}'
