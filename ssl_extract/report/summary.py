"""The results in plain words, which open the report."""

from collections.abc import Sequence
from typing import Any

from ssl_extract.report import estimates, labels, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.tables import PROBE, percent, span


def summarize(rows: Sequence[Row], bill: Sequence[dict[str, Any]] = ()) -> list[str]:
    """The results in plain words: one paragraph per task, and what was paid."""
    probed = tables.tasks(rows)
    words = [_in_words(estimates.aggregate(rows, task, PROBE), task) for task in probed[:3]]
    if len(probed) > 3:
        words.append(f'{len(probed) - 3} more tasks are in the tables below.')
    if bill:
        billed = {}
        for entry in bill:
            billed[entry['account']] = max(entry['billed'], billed.get(entry['account'], 0))
        count = f'{len(billed)} accounts' if len(billed) > 1 else 'one account'
        words.append(f'In all, {sum(billed.values()):,} queries were billed to {count}.')
    return words or ['There are no results yet.']


def _in_words(found: Sequence[Estimate], task: str | None) -> str:
    thieves = [e for e in found if e.role == 'surrogate' and e.value is not None]
    best = max(
        [e for e in thieves if not e.defense] or thieves, key=lambda e: e.value, default=None
    )
    encoder = best.encoder if best else ''
    victim = estimates.reference(found, 'victim', encoder)
    random = estimates.reference(found, 'random', encoder)
    scratch = estimates.scratch_for(best, found) if best else None
    others = [
        f'the victim has {_percent(victim)}' if victim else '',
        f'an untrained encoder {_percent(random)}' if random else '',
        f'one pretrained on as many images without a victim {_percent(scratch)}' if scratch else '',
    ]
    rest = ', '.join(filter(None, others))
    if best is None:
        rest = rest[:1].upper() + rest[1:] + f' on {task}. ' if rest else ''
        return rest + f'No surrogate has been evaluated on {task} yet.'
    paid = best.billed[1] if best.billed else best.budget
    who = 'the surrogate' if len(thieves) == 1 else f'the best of {len(thieves)} surrogates'
    how = ', '.join(filter(None, (_how(best, thieves), best.defense)))
    seeds = f', mean of {best.seeds} seeds' if best.seeds > 1 else ''
    words = f'With {paid:,} paid queries {who} ' if paid is not None else f'{who.capitalize()} '
    words += f'({how}{seeds}) ' if how or seeds else ''
    words += f'reaches {_percent(best)} on {task}' + (f'; {rest}.' if rest else '.')
    gap = estimates.gap_recovered(best, found)
    if gap is not None:
        words += f' The thief recovered {percent(gap, 0)} % of what training gave the victim.'
    return words + _defense_words(found, best)


def _defense_words(found: Sequence[Estimate], best: Estimate) -> str:
    """What the strongest defense does: the one under which the thief's best attack is worst."""
    under: dict[str, Estimate] = {}
    for e in found:
        comparable = e.role == 'surrogate' and e.budget == best.budget and e.value is not None
        if comparable and e.defense and estimates.undefended(e, found):
            under[e.defense] = max(e, under.get(e.defense, e), key=lambda e: e.value)
    if not under:
        return ''
    e = min(under.values(), key=lambda e: e.value)
    delta, interval, _ = estimates.difference(e, estimates.undefended(e, found))
    which = f', the strongest of {len(under)} defenses,' if len(under) > 1 else ''
    how = _how(e, [other for other in found if other.role == 'surrogate'])
    how = f' ({how})' if how else ''
    bounds = f' ({span(interval, tables.signed)})' if interval else ''
    return (
        f' Under {e.defense}{which} the best surrogate{how} reaches {percent(e.value)} %, '
        f'{tables.signed(delta)} points{bounds} against the same attack without it.'
    )


def _how(e: Estimate, thieves: Sequence[Estimate]) -> str:
    """What tells a surrogate from others under the same defense."""
    alike = [other for other in thieves if other.defense == e.defense]
    return labels.label(e, alike, always=('attack', 'loss'))


def _percent(e: Estimate) -> str:
    interval = f' ({span(tables.clipped(e.interval))})' if e.interval else ''
    return f'{percent(e.value)} %{interval}'
