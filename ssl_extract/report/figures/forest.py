"""The forest figure: a panel per budget, a row per encoder."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_extract.report import tables
from ssl_extract.report.columns import ROLE_TITLES
from ssl_extract.report.estimates import Estimate
from ssl_extract.report.figures.style import GRAY, INK, LINES, new_axes, new_figure, wrapped
from ssl_extract.report.labels import label, labels, series

MAX_ATTACKERS = 40
_COLORS = {'victim': INK, 'surrogate': LINES[0]}


class _Row(NamedTuple):
    """An encoder, or a kind of surrogate with several budgets."""

    name: str
    role: str
    by_budget: dict[int | None, Estimate]


def figure_forest(measured: Sequence[Estimate]) -> Figure:
    """Draws each encoder in a separate row with an interval; a panel per budget.

    The rows are in the same order in all panels: by accuracy at the largest budget. Hollow points
    are defended; at most MAX_ATTACKERS surrogates.

    Args:
        measured: estimates of linear-probe accuracy on one task, all with a value.
    """
    attackers = [e for e in measured if e.role == 'surrogate']
    budgets = sorted({e.budget for e in attackers}, key=lambda b: (b is not None, b or 0)) or [None]
    ranked = _attackers(attackers, budgets)
    first = [e for e in measured if e.role in ('victim', 'legitimate')]
    last = [e for e in measured if e.role in ('scratch', 'random')]
    rows = [*_others(first, budgets), *ranked[:MAX_ATTACKERS], *_others(last, budgets)]

    heights = [0.1 + 0.15 * (1 + row.name.count('\n')) for row in rows]
    middles = [sum(heights[:i]) + heights[i] / 2 for i in range(len(rows))]
    columns = 2 if len(budgets) == 4 else min(3, len(budgets))
    deep = -(-len(budgets) // columns)
    figure = new_figure(7.0, 0.5 + deep * (sum(heights) + 0.5))
    panels = new_axes(figure, len(budgets), columns)
    for i, (axes, budget) in enumerate(zip(panels, budgets, strict=True)):
        _panel(axes, rows, budget, middles)
        axes.set_title(
            _title([e for e in attackers if e.budget == budget]), fontsize=9.5, color=INK
        )
        names = axes.set_yticks(middles, [row.name for row in rows])
        axes.set_ylim(sum(heights), 0)
        if i % columns:
            axes.tick_params(axis='y', labelleft=False)
        for tick, row in zip(names, rows, strict=True):
            tick.label1.set_color(INK)
            tick.label1.set_fontweight('bold' if row.role == 'victim' else 'normal')
    ends = [axes.get_xlim() for axes in panels]
    for axes in panels:
        axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
    notes = [f'the best {MAX_ATTACKERS} of {len(ranked)} surrogates']
    notes *= len(ranked) > MAX_ATTACKERS
    notes += ['hollow: behind a defense'] * (len({bool(e.defense) for e in attackers}) > 1)
    words = 'linear-probe accuracy, %' + (f'\n({"; ".join(notes)})' if notes else '')
    figure.supxlabel(words, fontsize=9.5, color=INK)
    return figure


def _attackers(attackers: Sequence[Estimate], budgets: Sequence[int | None]) -> list[_Row]:
    """Makes a row for each kind of surrogate, the best at the largest budget first."""
    width = 38 if len(budgets) == 1 else 34
    rows: dict[tuple, _Row] = {}
    for e, name in zip(attackers, labels(attackers), strict=True):
        new = _Row(wrapped(name.removesuffix(', no defense'), width), e.role, {})
        rows.setdefault(series(e), new).by_budget[e.budget] = e

    def rank(row: _Row) -> tuple:
        largest = max(row.by_budget, key=budgets.index)
        return -budgets.index(largest), -row.by_budget[largest].value

    return sorted(rows.values(), key=rank)


def _others(measured: Sequence[Estimate], budgets: Sequence[int | None]) -> list[_Row]:
    """Makes rows of encoders that are no surrogates: at one budget, or at all budgets."""
    rows: dict[tuple, _Row] = {}
    for e in measured:
        bound = e.budget is not None and e.budget in budgets
        alike = [other for other in measured if other.role == e.role]
        parts = [ROLE_TITLES[e.role], label(e, alike, always=())]
        if e.role == 'scratch' and e.budget is not None and not bound:
            parts.append(f'{e.budget:,} inputs')
        if e.role == 'legitimate' and e.defense and e.defense not in parts[1]:
            parts.append(e.defense)
        row = _Row(wrapped(', '.join(filter(None, parts)), 30), e.role, {})
        row = rows.setdefault(series(e) if bound else e.condition, row)
        row.by_budget.update(dict.fromkeys([e.budget] if bound else budgets, e))
    return list(rows.values())


def _panel(
    axes: Axes,
    rows: Sequence[_Row],
    budget: int | None,
    middles: Sequence[float],
) -> None:
    for row, y in zip(rows, middles, strict=True):
        e = row.by_budget.get(budget)
        color = _COLORS.get(row.role, GRAY)
        if e is None:
            continue
        ends = tables.clipped(e.interval) or (e.value, e.value)
        bars = [[100 * abs(end - e.value)] for end in ends]
        style = {'marker': 'o' if row.role == 'surrogate' else 'D', 'markersize': 5, 'capsize': 2.5}
        face = 'white' if row.role == 'surrogate' and e.defense else color
        axes.errorbar(100 * e.value, y, xerr=bars, color=color, markerfacecolor=face, **style)
        where = {'transform': axes.get_yaxis_transform(), 'va': 'center', 'fontsize': 8}
        axes.text(1.02, y, tables.percent(e.value), color=color, **where)
        if row.role in ('victim', 'random', 'scratch'):  # to compare the others with
            axes.axvline(100 * e.value, color=color, linewidth=0.8, alpha=0.5, zorder=1)
    axes.tick_params(axis='y', length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis='x', color='#e4e4e4', linewidth=0.6)
    axes.grid(axis='y', visible=False)


def _title(attackers: Sequence[Estimate]) -> str:
    """Writes the title of a panel: the billed queries."""
    paid = [n for e in attackers for n in (e.billed or (e.budget,)) if n is not None]
    if not paid:
        return ''
    budget = attackers[0].budget
    words = '–'.join(f'{n:,}' for n in sorted({min(paid), max(paid)})) + ' paid queries'
    return words if budget is None or {*paid} == {budget} else f'{words}\nbudget {budget:,}'
