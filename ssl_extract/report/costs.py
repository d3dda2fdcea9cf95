"""What stealing and training cost: amounts per condition, their price, the break-even price."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ssl_extract.report import estimates, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.tables import NONE, Table

_QUERIES = ('queries_billed', 'queries_unique', 'queries_repeated', 'queries_refused')
_AMOUNTS = (*_QUERIES, 'dollars', 'flops', 'seconds')
_ROLES = ('victim', 'surrogate', 'scratch')
_PREFIXES = ('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')


class Prices(NamedTuple):
    """Dollars for 1,000 queries, and for an hour of the machine that trains."""

    per_1000_queries: float
    per_hour: float


class Cost(NamedTuple):
    """What one encoder took, as means over seeds; None: not known, or it does not apply.

    Attributes:
        estimate: one of its amounts, for its condition.
        amounts: billed, unique, repeated and refused queries, `dollars` for them, training `flops`
            and `seconds`.
        training_dollars: for the training time.
        mixed: the amounts that runs of one seed do not agree on.
    """

    estimate: Estimate
    amounts: dict[str, float | None]
    training_dollars: float | None
    mixed: frozenset[str]

    @property
    def total_dollars(self) -> float | None:
        """For queries and training; None where a part of it is not known."""
        asked = self.amounts['dollars'] if self.estimate.role == 'surrogate' else 0.0
        return None if None in (asked, self.training_dollars) else asked + self.training_dollars


def prices(config: dict[str, Any]) -> Prices | None:
    """The prices that the config given to `report.write` names, or None."""
    cost = (config.get('config') or {}).get('cost') or {}
    named = Prices(cost.get('dollars_per_1000_queries'), cost.get('dollars_per_hour'))
    return named if all(estimates.is_finite(price) and price >= 0 for price in named) else None


def break_even(victim_dollars: float, training_dollars: float, queries: float) -> float | None:
    """The price of 1,000 queries above which stealing costs more than training.

    Args:
        victim_dollars: for training the victim.
        training_dollars: for training the surrogate.
        queries: paid by the attacker.

    Returns:
        Dollars; None: never cheaper, even if the queries were free; infinite: there were none.

    >>> break_even(10.0, 2.0, 4000)
    2.0
    >>> break_even(10.0, 12.0, 4000) is None
    True
    """
    if training_dollars >= victim_dollars:
        return None
    return 1000 * (victim_dollars - training_dollars) / queries if queries else math.inf


def costs(rows: Iterable[Row], price: Prices) -> list[Cost]:
    """What every victim, surrogate and encoder from scratch took, in the order of the tables."""
    rows = [_priced(row, price) for row in rows if row['role'] in _ROLES]
    by_amount = {}
    for amount in _AMOUNTS:
        measured = [row | {'task': None, 'metric': amount, 'value': row[amount]} for row in rows]
        found = estimates.aggregate(measured, None, amount)
        by_amount[amount] = {e.condition: e for e in found}
    every = {c: e for found in by_amount.values() for c, e in found.items()}
    made = []
    for e in sorted(every.values(), key=estimates.order):
        parts = {a: found.get(e.condition) for a, found in by_amount.items()}
        amounts = {a: part.value if part else None for a, part in parts.items()}
        mixed = frozenset(a for a, part in parts.items() if part and part.mixed)
        seconds = amounts['seconds']
        hours = None if seconds is None else seconds / 3600
        made.append(Cost(e, amounts, None if hours is None else hours * price.per_hour, mixed))
    return made


def spent(rows: Sequence[Row], price: Prices) -> Table | None:
    """The table of what every encoder cost; None where nothing is known."""
    found = costs(rows, price)
    if not found:
        return None
    largest = max((c.amounts['flops'] or 0 for c in found), default=0)
    power = min(int(math.log10(largest)) // 3, len(_PREFIXES) - 1) if largest >= 1 else 0
    columns = [
        *('Billed', 'Unique', 'Repeated', 'Refused', 'Dollars for queries'),
        *(f'Training, {_PREFIXES[power]}FLOP', 'Training, s', 'Dollars for training'),
        'Dollars in all',
    ]
    body = [_cells(c, 1000.0**power) for c in found]
    caption = [
        'Means over seeds. A query is one view sent and answered; repeated ones are billed again, '
        f'refused ones are not. Prices: {dollars(price.per_1000_queries)} dollars for 1,000 '
        f'queries, {dollars(price.per_hour)} dollars for an hour of the machine that trains.',
        'Training: all its phases, without evaluation.',
        'From scratch and victim: no queries.' if len({c.estimate.role for c in found}) > 1 else '',
    ]
    shown = [c.estimate._replace(mixed=bool(c.mixed)) for c in found]
    return tables.assemble('', shown, columns, body, caption)


def amount(value: float | None) -> str:
    """A number that is not negative with three digits and no exponent, whole from 100 on.

    >>> [amount(value) for value in (0, 0.00123, 1.5, 12.34, 12345.6)]
    ['0', '0.00123', '1.50', '12.3', '12,346']
    """
    if value is None:
        return NONE
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f'{value:,.{digits}f}'


def dollars(value: float | None) -> str:
    """The same for money: cents from one dollar on."""
    return amount(value) if value is None or value < 1 else f'{value:,.2f}'


def _priced(row: Row, price: Prices) -> Row:
    """The row with all amounts; queries and their price only where there is an oracle to ask."""
    row = dict.fromkeys(_AMOUNTS) | row
    row['seconds'] = row['seconds'] or None  # 0 is written where an encoder was given, not trained
    if row['role'] != 'surrogate':
        return row | dict.fromkeys((*_QUERIES, 'dollars'))
    if row['dollars'] is None and row['queries_billed'] is not None:
        row['dollars'] = row['queries_billed'] / 1000 * price.per_1000_queries
    return row


def _cells(cost: Cost, unit: float) -> list[str]:
    def star(*names: str) -> str:
        return '*' if cost.mixed.intersection(names) else ''

    a = cost.amounts
    flops = None if a['flops'] is None else a['flops'] / unit
    return [
        *(NONE if a[q] is None else f'{a[q]:,.0f}{star(q)}' for q in _QUERIES),
        dollars(a['dollars']) + star('dollars'),
        amount(flops) + star('flops'),
        amount(a['seconds']) + star('seconds'),
        dollars(cost.training_dollars) + star('seconds'),
        dollars(cost.total_dollars) + star('dollars', 'seconds'),
    ]
