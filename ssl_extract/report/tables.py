"""Tables of a report: lists of strings that any format can show."""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_extract.report import columns, estimates, labels, metrics, ratios
from ssl_extract.report.estimates import Estimate, Interval, Row
from ssl_extract.report.ratios import Ratio

NONE = '–'
PROBE = 'linear_probe'
_MIXED = '* Measured more than once for one seed, as on two machines: the mean is shown.'


class Table(NamedTuple):
    """A table of text: `rows` [R][C], `numeric` [C] (right-aligned), `kinds` [R] (for styling).

    `links` holds the address that a cell with this text leads to; the first `keys` columns say
    what a row is of.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    kinds: list[str]
    caption: str
    links: Mapping[str, str] = types.MappingProxyType({})
    keys: int = 1


def percent(value: float | None, digits: int = 1) -> str:
    """Writes a proportion in per cent.

    >>> percent(0.8123), percent(None)
    ('81.2', '–')
    """
    return NONE if value is None else minus(f'{100 * value:.{digits}f}')


def minus(text: str) -> str:
    """Writes a true minus sign, and no '-0.0'."""
    return (text.lstrip('-') if not text.strip('-0.') else text).replace('-', '−')


def span(interval: Interval, show: Callable[[float], str] = percent) -> str:
    """Writes an interval: '77.9–84.1', with signs '−1.0 to +2.0', '–' for None."""
    if interval is None:
        return NONE
    signs = interval[0] < 0 or show is signed
    return (' to ' if signs else '–').join(map(show, interval))


def p_value(value: float | None) -> str:
    """Writes a p-value.

    >>> p_value(0.0004), p_value(0.04), p_value(None)
    ('<0.001', '0.040', '–')
    """
    return NONE if value is None else '<0.001' if value < 0.001 else f'{value:.3f}'


def share_of(ratio: Ratio | None) -> str:
    """Writes a ratio in whole per cent, with its interval.

    >>> share_of(Ratio(0.7, (0.581, 0.832))), share_of(None)
    ('70 (58–83)', '–')
    """
    if ratio is None:
        return NONE
    return f'{percent(ratio.value, 0)} ({span(ratio.interval, whole)})'


def whole(value: float) -> str:
    """Writes a proportion in whole per cent."""
    return percent(value, 0)


def clipped(interval: Interval) -> Interval:
    """Cuts an interval of a proportion to [0, 1]."""
    return interval and (max(interval[0], 0.0), min(interval[1], 1.0))


def tasks(rows: Iterable[Row], names: Iterable[str] = (PROBE,)) -> list[str | None]:
    """Names the tasks on which one of the metrics was measured, in the order of the rows."""
    wanted = set(names)
    return list(dict.fromkeys(row.get('task') for row in rows if row.get('metric') in wanted))


def stolen(rows: Sequence[Row], task: str | None) -> Table:
    """Tabulates linear-probe accuracy of every encoder on one task, with queries billed."""
    measured = estimates.aggregate(rows, task, PROBE)
    body = []
    for e in measured:
        gap = ratios.gap_recovered(e, measured) if e.role in ('surrogate', 'scratch') else None
        value = _value(e, share=True)
        body.append(
            [value, span(clipped(e.interval)), _seeds(e), span_of_counts(e.billed), share_of(gap)]
        )
    headings = ['Accuracy, %', '95 % interval', 'Seeds', 'Queries billed', 'Gap recovered, %']
    caption = [
        f'Linear probe on {task}.',
        _interval_words(measured),
        'Gap recovered: (this encoder − untrained) / (victim − untrained), with Fieller’s 95 % '
        'interval; left out where the victim is not clearly better than untrained.',
    ]
    if any(e.role == 'scratch' for e in measured):
        caption.append(
            'From scratch: pretrained without a victim on as many of the attacker’s own inputs as '
            'the budget says; what stealing must beat.'
        )
    return assemble(f'On {task}', measured, headings, body, caption)


def measures(rows: Sequence[Row], task: str | None, names: Sequence[str]) -> Table:
    """Tabulates metrics side by side for every encoder; a column each, its interval in brackets."""
    shown = metrics.shown(rows)
    present = [m for m in names if estimates.aggregate(rows, task, m)]
    by_metric = {m: {e.condition: e for e in estimates.aggregate(rows, task, m)} for m in present}
    measured = {key: e for column in by_metric.values() for key, e in column.items()}
    encoders = sorted(measured.values(), key=estimates.order)
    body = [
        [_with_interval(by_metric[m].get(e.condition), shown[m].is_share) for m in present]
        for e in encoders
    ]
    flat = [e for column in by_metric.values() for e in column.values()]
    headings = [shown[m].heading for m in present]
    title = '' if task is None else f'On {task}'
    return assemble(title, encoders, headings, body, ['In brackets:', _interval_words(flat)], flat)


def defended(rows: Sequence[Row], task: str | None) -> Table | None:
    """Tabulates every attack behind every defense; None where there is no pair to compare."""
    measured = estimates.aggregate(rows, task, PROBE)
    shown = [e for e in measured if e.defense]
    pairs = [estimates.undefended(e, measured) for e in shown]
    changes = [old and estimates.difference(e, old) for e, old in zip(shown, pairs, strict=True)]
    if not any(changes):
        return None
    body = []
    for e, old, change in zip(shown, pairs, changes, strict=True):
        delta, interval, _ = change or (None, None, '')
        body.append(
            [
                _value(old, share=True) if old else NONE,
                *(_value(e, share=True), span(clipped(e.interval))),
                *(NONE if delta is None else signed(delta), span(interval, signed)),
            ]
        )
    caption = [
        f'Linear probe on {task}, the same attack and budget without and with the defense.',
        change_words({change[2] for change in changes if change}),
        'An attacker that adapted is compared with the same attack that had nothing to adapt to, '
        'where it was not run without a defense.'
        if any(e.adaptive and old and not old.adaptive for e, old in zip(shown, pairs, strict=True))
        else '',
    ]
    headings = ['Without, %', 'With, %', 'With: interval', 'Change', '95 % interval']
    return assemble(f'On {task}, attack by attack', shown, headings, body, caption)


def change_words(ways: set[str], what: str = 'Change') -> str:
    """Describes the intervals of changes; `ways` are kinds of `estimates.difference`."""
    words = {
        'paired': 'with several seeds, the t-interval of the differences seed by seed',
        'independent': 'the two intervals combined as if independent (Newcombe’s method)',
    }
    used = '; '.join(words[way] for way in words if way in ways)
    intervals = f' with its 95 % interval: {used}' if used else ''
    return f'{what} in percentage points{intervals}.'


def bill(entries: Sequence[dict[str, Any]]) -> Table:
    """Tabulates the query bill, one line per account, with the sum over accounts.

    Runs that share an account share its answers, and its ledger only grows: the largest numbers
    count.
    """
    accounts: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        accounts.setdefault(entry['account'], []).append(entry)
    amounts = ('budget', 'billed', 'unique', 'repeated', 'refused')
    body, total = [], dict.fromkeys(amounts, 0)
    for account, alike in accounts.items():
        most = {a: max(entry.get(a) or 0 for entry in alike) for a in amounts}
        total = {a: total[a] + most[a] for a in amounts}
        runs = list(dict.fromkeys(str(entry['run']) for entry in alike))
        more = f', and {len(runs) - 3} more' if len(runs) > 3 else ''
        plans = ', '.join(dict.fromkeys(str(entry.get('plan') or NONE) for entry in alike))
        body.append(
            [account, ', '.join(runs[:3]) + more, plans, *(f'{most[a]:,}' for a in amounts)]
        )
    kinds = [''] * len(body)
    if len(body) > 1:
        body.append(['All accounts', '', '', *(f'{total[a]:,}' for a in amounts)])
        kinds.append('total')
    titles = [_title(name) for name in ('plan', 'budget', *columns.QUERIES)]
    header = ['Account', 'Runs', *titles]
    caption = (
        'A query is one view sent and answered. Unique: different views among the billed; '
        'repeated: asked again and billed again; refused: not answered, not billed.'
    )
    return Table('', header, body, [False] * 3 + [True] * 5, kinds, caption)


def assemble(
    title: str,
    shown: Sequence[Estimate],
    headings: list[str],
    body: list[list[str]],
    caption: list[str],
    measured: Sequence[Estimate] = (),
) -> Table:
    """Puts the columns that tell encoders apart before `body`; leaves out constant columns.

    Args:
        title: above the table.
        shown: the encoder of each line.
        headings: of the columns of `body`.
        body: the cells that were measured, a list for each line.
        caption: sentences; empty ones are left out.
        measured: all estimates in the body, where `shown` are not all.
    """
    left = {
        _title('role'): [labels.role_name(e) for e in shown],
        _title('attack'): [', '.join(filter(None, (e.attack, e.loss))) for e in shown],
        **{c.title: labels.column(shown, c.name) for c in columns.shown('varied')},
        **{name: labels.column(shown, name) for name in labels.varied_fields(shown)},
        _title('defense'): [e.defense for e in shown],
        _title('adaptive'): [e.adaptive for e in shown],
        _title('budget'): ['' if e.budget is None else f'{e.budget:,}' for e in shown],
    }
    left = {name: cells for name, cells in left.items() if any(cells)}
    right = {name: [row[i] for row in body] for i, name in enumerate(headings)}
    right = {n: c for n, c in right.items() if set(c) != {NONE} or n in headings[:1]}
    cells = left | right
    numbers = {name for name in labels.varied_fields(shown) if _are_numbers(shown, name)}
    numeric = [name in right or name in numbers or name == _title('budget') for name in cells]
    rows = [[cell or NONE for cell in row] for row in zip(*cells.values(), strict=True)]
    notes = [_MIXED] if any(e.mixed for e in measured or shown) else []
    words = ' '.join(filter(None, caption + notes))
    kinds = [e.role for e in shown]
    return Table(title, list(cells), rows, numeric, kinds, words, keys=len(left))


def _title(name: str) -> str:
    return columns.TITLES[name]


def _are_numbers(shown: Sequence[Estimate], name: str) -> bool:
    return all(isinstance(e.get(name), int | float) or e.get(name) == '' for e in shown)


def _interval_words(measured: Sequence[Estimate]) -> str:
    several = any(e.seeds > 1 for e in measured)
    single = any(e.seeds == 1 and e.interval for e in measured)
    words = '95 % interval over the test inputs of one run'
    if several:
        rest = f' (where there is one seed: {words})' if single else ''
        return f'Mean over seeds and 95 % t-interval of that mean over seeds{rest}.'
    return f'{words}.' if single else ''


def _value(e: Estimate, share: bool) -> str:
    if e.value is None:
        return 'not finite'
    shown = percent(e.value) if share else decimal(e.value)
    return shown + ('*' if e.mixed else '')


def _with_interval(e: Estimate | None, share: bool) -> str:
    if e is None:
        return NONE
    show = percent if share else decimal
    interval = clipped(e.interval) if share else e.interval
    lost = f', {e.lost} not finite' if e.lost and e.seeds else ''
    return _value(e, share) + (f' ({span(interval, show)})' if interval else '') + lost


def _seeds(e: Estimate) -> str:
    return str(e.seeds) + (f' ({e.lost} not finite)' if e.lost and e.seeds else '')


def span_of_counts(numbers: tuple[int, int] | None) -> str:
    """Writes the smallest and the largest of some counts: '128' or '100–1,200'."""
    return NONE if numbers is None else '–'.join(f'{n:,}' for n in sorted(set(numbers)))


def decimal(value: float) -> str:
    """Writes a value that is no share."""
    return minus(f'{value:.3f}' if abs(value) < 100 else f'{value:.4g}')


def signed(value: float) -> str:
    """Writes a change of a proportion in percentage points, with its sign."""
    shown = percent(value)
    return shown if shown.startswith('−') or not shown.strip('0.') else f'+{shown}'
