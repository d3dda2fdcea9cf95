"""Tables of the defenses' counters for accounts."""

from collections.abc import Sequence

from ssl_extract.report import estimates, metrics, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.metrics import NOTICED, Shown
from ssl_extract.report.settings import family, natural
from ssl_extract.report.tables import NONE, Table


def names(rows: Sequence[Row]) -> list[str]:
    """Names the metrics that are counters of a defense: of the section NOTICED, without a task."""
    without = {row['metric'] for row in rows if row.get('task') is None}
    shown = metrics.shown(rows)
    return [name for name in shown if name in without and shown[name].section == NOTICED]


def noticed_tables(rows: Sequence[Row]) -> list[Table]:
    """Tabulates the final counters of each defense for each account, a table a kind of defense."""
    by_metric = {
        m: {e.condition: e for e in estimates.aggregate(rows, None, m) if e.value is not None}
        for m in names(rows)
    }
    accounts = {key: e for column in by_metric.values() for key, e in column.items()}
    families: dict[str, list[Estimate]] = {}
    for e in sorted(accounts.values(), key=lambda e: (natural(e.defense), estimates.order(e))):
        families.setdefault(family(e.defense), []).append(e)
    shown = metrics.shown(rows)
    return [_noticed_by(name, alike, by_metric, shown) for name, alike in families.items()]


def _noticed_by(
    name: str,
    measured: Sequence[Estimate],
    by_metric: dict[str, dict[tuple, Estimate]],
    described: dict[str, Shown],
) -> Table:
    shown = [m for m, column in by_metric.items() if any(e.condition in column for e in measured)]
    titles = [described[m].title.split('.') for m in shown]
    if len({parts[0] for parts in titles}) == 1 and all(len(parts) > 1 for parts in titles):
        titles = [parts[1:] for parts in titles]
    lines: dict[tuple, list[Estimate]] = {}
    for e in measured:  # one account serves every loss
        cells = tuple(_over_seeds(by_metric[m].get(e.condition)) for m in shown)
        lines.setdefault((e._replace(loss='').condition, cells), []).append(e)
    accounts = [alike[0]._replace(loss=_some([e.loss for e in alike])) for alike in lines.values()]
    headings = ['.'.join(parts) for parts in titles]
    caption = [
        'What the defense knew of an account after its last query: mean over seeds, in brackets '
        'the smallest and the largest. Of an attacker with several accounts, the account with most.'
    ]
    body = [list(cells) for _, cells in lines]
    return tables.assemble(name, accounts, headings, body, caption)


def _some(words: Sequence[str]) -> str:
    more = f' and {len(words) - 3} more' if len(words) > 3 else ''
    return ', '.join(words[:3]) + more


def _over_seeds(e: Estimate | None) -> str:
    if e is None:
        return NONE
    ends = min(e.by_seed.values()), max(e.by_seed.values())
    spread = f' ({tables.span(ends, _number)})' if ends[0] != ends[1] else ''
    return _number(e.value) + ('*' if e.mixed else '') + spread


def _number(value: float) -> str:
    """Writes whole numbers whole; others with three digits or three decimals.

    >>> [_number(v) for v in (1200.0, 0.4216, 0.00012, 12.5)]
    ['1,200', '0.422', '0.00012', '12.5']
    """
    if value == int(value) or abs(value) >= 1000:
        return tables.minus(f'{value:,.0f}')
    return tables.minus(f'{value:.3g}')
