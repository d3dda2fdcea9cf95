"""The costs of stealing and training, and the break-even price."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ssl_extract.report import columns, estimates, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.tables import NONE, Table

_AMOUNTS = tuple(column.name for column in columns.COLUMNS if column.kind == 'bill')
_PER_1000, _PER_HOUR = 'dollars_per_1000_queries', 'dollars_per_hour'
_TRAINING = 'training_dollars'
_ROLES = ('victim', 'surrogate', 'scratch')
_PREFIXES = ('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')


class Prices(NamedTuple):
    """Dollars for 1,000 queries, and for an hour of the machine that trains.

    None: the runs do not agree; each encoder then has the price of its own runs.
    """

    per_1000_queries: float | None
    per_hour: float | None


class Cost(NamedTuple):
    """The costs of one encoder, as means over seeds; None where unknown, or where there are none.

    Attributes:
        estimate: of one amount, which holds the condition.
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
        """Adds the dollars for queries and training; None where a part is unknown."""
        paid = self.amounts['dollars'] if self.estimate.role == 'surrogate' else 0.0
        return None if None in (paid, self.training_dollars) else paid + self.training_dollars


def prices(config: dict[str, Any], rows: Iterable[Row] = ()) -> Prices | None:
    """Reads the prices from the config given to `report.write`.

    Args:
        config: `['config']['cost']` holds the prices on which all runs agree.
        rows: hold the prices on which the runs do not agree, as columns.

    Returns:
        The prices; None where one of them is neither there nor a column.
    """
    cost = (config.get('config') or {}).get('cost') or {}
    differing = {name for row in rows for name in columns.differing_fields(row)}
    agreed = []
    for name in (_PER_1000, _PER_HOUR):
        price = cost.get(name)
        if f'cost.{name}' in differing:
            price = None
        elif not (estimates.is_finite(price) and price >= 0):
            return None
        agreed.append(price)
    return Prices(*agreed)


def break_even(victim_dollars: float, training_dollars: float, queries: float) -> float | None:
    """Returns the price of 1,000 queries above which stealing costs more than training.

    Args:
        victim_dollars: for training the victim.
        training_dollars: for training the surrogate.
        queries: paid by the attacker.

    Returns:
        Dollars. None where stealing costs more even with free queries; infinite without queries.

    >>> break_even(10.0, 2.0, 4000)
    2.0
    >>> break_even(10.0, 12.0, 4000) is None
    True
    """
    if training_dollars >= victim_dollars:
        return None
    return 1000 * (victim_dollars - training_dollars) / queries if queries else math.inf


def costs(rows: Iterable[Row], price: Prices) -> list[Cost]:
    """Lists the costs of victims, surrogates and encoders from scratch, in the order of tables."""
    rows = [_priced(row, price) for row in rows if row['role'] in _ROLES]
    by_amount = {}
    for amount in (*_AMOUNTS, _TRAINING):
        values = [
            _training_dollars(row, price) if amount == _TRAINING else row[amount] for row in rows
        ]
        measured = [
            row | {'task': None, 'metric': amount, 'value': value}
            for row, value in zip(rows, values, strict=True)
        ]
        aggregated = estimates.aggregate(measured, None, amount, allow_mixed=True)
        by_amount[amount] = {e.condition: e for e in aggregated}
    encoders = {c: e for column in by_amount.values() for c, e in column.items()}
    return [_cost(e, by_amount) for e in sorted(encoders.values(), key=estimates.order)]


def _cost(e: Estimate, by_amount: dict[str, dict[tuple, Estimate]]) -> Cost:
    parts = {a: column.get(e.condition) for a, column in by_amount.items()}
    amounts = {a: part.value if part else None for a, part in parts.items()}
    mixed = frozenset(a for a, part in parts.items() if part and part.mixed)
    return Cost(e, amounts, amounts.pop(_TRAINING), mixed)


def spent(rows: Sequence[Row], price: Prices) -> Table | None:
    """Tabulates the costs of all encoders; None where no cost is known."""
    encoders = costs(rows, price)
    if not encoders:
        return None
    largest = max((c.amounts['flops'] or 0 for c in encoders), default=0)
    power = min(int(math.log10(largest)) // 3, len(_PREFIXES) - 1) if largest >= 1 else 0
    titles = columns.TITLES
    headings = [
        *(titles[name] for name in (*columns.QUERIES, 'dollars')),
        titles['flops'].replace('FLOP', f'{_PREFIXES[power]}FLOP'),
        *(titles['seconds'], 'Dollars for training', 'Dollars in all'),
    ]
    body = [_cells(c, 1000.0**power) for c in encoders]
    caption = [
        'Means over seeds. A query is one view sent and answered; repeated ones are billed again, '
        f'refused ones are not. Prices: {_price(price.per_1000_queries)} for 1,000 queries, '
        f'{_price(price.per_hour)} for an hour of the machine that trains.',
        'Training: all its phases, without evaluation.',
        'From scratch and victim: no queries.'
        if len({c.estimate.role for c in encoders}) > 1
        else '',
    ]
    shown = [c.estimate._replace(mixed=bool(c.mixed)) for c in encoders]
    return tables.assemble('', shown, headings, body, caption)


def amount(value: float | None) -> str:
    """Writes a number that is not negative with three digits and no exponent, whole from 100 on.

    >>> [amount(value) for value in (0, 0.00123, 1.5, 12.34, 12345.6)]
    ['0', '0.00123', '1.50', '12.3', '12,346']
    """
    if value is None:
        return NONE
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f'{value:,.{digits}f}'


def dollars(value: float | None) -> str:
    """Writes an amount of money: cents from one dollar on."""
    return amount(value) if value is None or value < 1 else f'{value:,.2f}'


def _price(price: float | None) -> str:
    return 'each run’s own' if price is None else f'{dollars(price)} dollars'


def _priced(row: Row, price: Prices) -> Row:
    """Fills in all amounts of a row; queries and their price only for surrogates."""
    row = dict.fromkeys(_AMOUNTS) | row
    row['seconds'] = row['seconds'] or None  # 0 is written where an encoder was given, not trained
    if row['role'] != 'surrogate':
        return row | dict.fromkeys((*columns.QUERIES, 'dollars'))
    if row['dollars'] is None and None not in (row['queries_billed'], price.per_1000_queries):
        row['dollars'] = row['queries_billed'] / 1000 * price.per_1000_queries
    return row


def _training_dollars(row: Row, price: Prices) -> float | None:
    per_hour = row.get(f'cost.{_PER_HOUR}') if price.per_hour is None else price.per_hour
    return None if None in (row['seconds'], per_hour) else row['seconds'] / 3600 * per_hour


def _cells(cost: Cost, unit: float) -> list[str]:
    def star(*names: str) -> str:
        return '*' if cost.mixed.intersection(names) else ''

    a = cost.amounts
    flops = None if a['flops'] is None else a['flops'] / unit
    return [
        *(NONE if a[q] is None else f'{a[q]:,.0f}{star(q)}' for q in columns.QUERIES),
        dollars(a['dollars']) + star('dollars'),
        amount(flops) + star('flops'),
        amount(a['seconds']) + star('seconds'),
        dollars(cost.training_dollars) + star('seconds'),
        dollars(cost.total_dollars) + star('dollars', 'seconds'),
    ]
