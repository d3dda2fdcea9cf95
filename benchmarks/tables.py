"""Tables of the suite's records, and ratios between two records."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ssl_extract.errors import UserError

Record = dict[str, Any]  # what `suite.run` returns
Place = tuple[str, str, int]  # row, encoder, batch size
COLUMNS = ('compile_s', 'program_mib', 'gflop')  # of which a ratio is one number


def header(record: Record) -> str:
    """Writes the machine, the versions and the matrix-product rate in a line."""
    versions = ', '.join(f'{name} {version}' for name, version in record['versions'].items())
    return (
        f'{_machine(record)}, {versions}; '
        f'float32 matrix product {record["matmul_gflops"]:,.0f} GFLOP/s'
    )


def table(record: Record) -> list[str]:
    """Writes the figures of a record, a block for each encoder.

    >>> row = {'row': 'knn', 'encoder': 'vit', 'batch_size': 64, 'compile_s': 0.5, 'host_ms': None}
    >>> row |= {'median': 1234.5, 'low': 1000.0, 'high': 1500.0, 'gflop': 0.25, 'share': 0.125}
    >>> row |= {'program_mib': None, 'device_mib': None}
    >>> _, heading, line = table({'rows': [row], 'settings': {'size': 32}})
    >>> heading, ' '.join(line.split())
    ('vit, 32x32', 'knn 64 1,234 (1,000 to 1,500) 0.50 - 0.250 12.5% -')
    """
    title = (
        f'{"":17s}{"batch":>8s} {"inputs/s":>8s} {"(quartiles)":20s}{"compile s":>9s}'
        f'{"MiB":>9s}{"GFLOP":>10s}{"of peak":>8s}{"host ms":>8s}'
    )
    told = any(row['device_mib'] is not None for row in record['rows'])
    lines = [title + (f'{"device MiB":>12s}' if told else '')]
    side = record['settings']['size']
    for row, heading in _blocks(record['rows']):
        lines += [f'{heading}, {side}x{side}'] if heading else []
        spread = f'({number(row["low"])} to {number(row["high"])})'
        host = row['host_ms'] and float(np.median(row['host_ms']))
        lines.append(
            f'{row["row"]:17s}{row["batch_size"]:8,d} {number(row["median"]):>8s} {spread:20s}'
            f'{row["compile_s"]:9.2f}{number(row["program_mib"]):>9s}{number(row["gflop"]):>10s}'
            f'{row["share"]:8.1%}{number(host):>8s}'
            + (f'{number(row["device_mib"]):>12s}' if told else '')
        )
    return lines


def compare(new: Record, old: Record) -> list[dict[str, Any]]:
    """Computes the ratios of a record to an older one, for the rows that both have.

    Returns:
        `row`, `encoder`, `batch_size`; `ratio` of the medians of inputs a second, with `low` and
        `high`: a quartile of one record to the opposite quartile of the other; the ratios of
        `COLUMNS`, None where a record has no number.
    """
    before = _by_place(old)
    return [
        _place_fields(place)
        | {
            'ratio': row['median'] / before[place]['median'],
            'low': row['low'] / before[place]['high'],
            'high': row['high'] / before[place]['low'],
        }
        | {name: _ratio(row[name], before[place][name]) for name in COLUMNS}
        for place, row in _by_place(new).items()
        if place in before
    ]


def compare_rounds(new: Sequence[Record], old: Sequence[Record]) -> list[dict[str, Any]]:
    """Computes the ratios of two sides that were measured in rounds.

    Args:
        new, old: the records of each side, one for each round.

    Returns:
        As `compare`; `ratio` is that of the medians over the rounds, and `low` and `high` are the
        quartiles of the rounds' own ratios.
    """
    sides = [[_by_place(record) for record in side] for side in (new, old)]
    rows = []
    for place in sides[0][0]:
        if place not in sides[1][0]:
            continue
        here, there = ([record[place] for record in side] for side in sides)
        medians = [np.array([row['median'] for row in side]) for side in (here, there)]
        low, high = np.percentile(medians[0] / medians[1], [25, 75])
        whole = {
            name: _ratio(*(_median(row[name] for row in side) for side in (here, there)))
            for name in COLUMNS
        }
        ratio = float(np.median(medians[0]) / np.median(medians[1]))
        spread = {'ratio': ratio, 'low': float(low), 'high': float(high)}
        rows.append(_place_fields(place) | spread | whole)
    return rows


def ratio_table(rows: list[dict[str, Any]]) -> list[str]:
    """Writes what `compare` or `compare_rounds` returns, a block for each encoder."""
    lines = [
        f'{"ratio new / old":17s}{"batch":>8s} {"inputs/s":>8s} {"(spread)":20s}{"compile s":>9s}'
        f'{"MiB":>9s}{"GFLOP":>10s}'
    ]
    for row, heading in _blocks(rows):
        lines += [heading] if heading else []
        spread = f'({row["low"]:.3f} to {row["high"]:.3f})'
        cells = ('-' if row[name] is None else f'{row[name]:.3f}' for name in COLUMNS)
        lines.append(
            f'{row["row"]:17s}{row["batch_size"]:8,d} {row["ratio"]:8.3f} {spread:20s}'
            + '{:>9s}{:>9s}{:>10s}'.format(*cells)
        )
    return lines


def differences(new: Record, old: Record) -> list[str]:
    """Writes what two records do not share: machine and versions in a line, rows in two."""
    pairs = {'processor': 'processor', 'cores': 'cores', 'devices': 'devices'}
    found = [
        f'{name}: {_shown(new[key])} and {_shown(old[key])}'
        for name, key in pairs.items()
        if new[key] != old[key]
    ]
    found += [
        f'{name}: {new["versions"].get(name)} and {old["versions"].get(name)}'
        for name in sorted(new['versions'].keys() | old['versions'].keys())
        if new['versions'].get(name) != old['versions'].get(name)
    ]
    lines = [f'not the same in new and old: {"; ".join(found)}'] if found else []
    for name, one, other in (('new', new, old), ('old', old, new)):
        others = _by_place(other)
        alone = [place for place in _by_place(one) if place not in others]
        if alone:
            shown = '; '.join(', '.join(str(part) for part in place if part) for place in alone)
            lines.append(f'only in {name}: {shown}')
    return lines


def check_settings(new: dict[str, Any], old: dict[str, Any], name: str) -> None:
    """Refuses to compare measurements of different work.

    Args:
        new, old: the `settings` of two records.
        name: of the old record, for the error message.

    Raises:
        UserError: they differ.
    """
    for key in new:
        if new[key] != old.get(key):
            raise UserError(
                f'{name} was measured with {key} {old.get(key)!r}, and this run has {new[key]!r}: '
                'compare runs of the same settings'
            )


def number(value: float | None) -> str:
    """Writes a number with three digits or more, and '-' for None.

    >>> number(12345.6), number(12.345), number(0.01234), number(0.0), number(None)
    ('12,346', '12.3', '0.0123', '0', '-')
    """
    if value is None:
        return '-'
    if value >= 99.95:
        return f'{value:,.0f}'
    digits = 0 if value <= 0 else 2 - int(np.floor(np.log10(value)))
    return f'{value:.{min(digits, 6)}f}'


def _blocks(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Gives each row, those of an encoder together, with the heading of a new block or ''."""
    last = None
    names = list(dict.fromkeys(row['encoder'] for row in rows))
    for row in sorted(rows, key=lambda row: names.index(row['encoder'])):
        changed, last = row['encoder'] != last, row['encoder']
        yield row, (row['encoder'] or 'without an encoder') if changed else ''


def _by_place(record: Record) -> dict[Place, dict[str, Any]]:
    return {(row['row'], row['encoder'], row['batch_size']): row for row in record['rows']}


def _place_fields(place: Place) -> dict[str, Any]:
    return dict(zip(('row', 'encoder', 'batch_size'), place, strict=True))


def _ratio(new: float | None, old: float | None) -> float | None:
    return new / old if new is not None and old else None


def _median(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.median(numbers)) if numbers else None


def _machine(record: Record) -> str:
    devices = record['devices']
    return f'{record["processor"]}, {record["cores"]} cores, {len(devices)} x {devices[0]}'


def _shown(value: Any) -> str:
    return f'{len(value)} x {value[0]}' if isinstance(value, list) else str(value)
