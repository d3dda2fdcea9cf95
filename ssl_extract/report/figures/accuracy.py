"""The figure of accuracy against paid queries."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ssl_extract.report import estimates, tables
from ssl_extract.report.columns import ROLE_TITLES
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.figures.forest import figure_forest
from ssl_extract.report.figures.style import (
    GRAY,
    INK,
    LINES,
    legend_below,
    new_axes,
    new_figure,
    wrapped,
)
from ssl_extract.report.labels import label, labels, series

MARKERS = 'osD^vPX'
MAX_LINES = 8
DASHES = ('-', (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))


def figure_accuracy(rows: Sequence[Row], task: str | None) -> Figure:
    """Draws linear-probe accuracy on `task` against paid queries, with 95 % intervals.

    One line per attack (color) and defense (dashes and marker); victim and untrained encoder as
    horizontal lines with bands; encoders pretrained from scratch on as many inputs as gray
    diamonds. Where all surrogates paid the same, or there are more than MAX_LINES of them, a panel
    per budget with one row each, from best to worst (`figures_forest`).

    Args:
        rows: rows of `results.jsonl`.
        task: the task to show.

    Returns:
        A figure; `figure.savefig(path)` writes it.
    """
    measured = [e for e in estimates.aggregate(rows, task, tables.PROBE) if e.value is not None]
    paid = {_paid(e) for e in measured if e.role in ('surrogate', 'scratch')} - {None}
    if not paid or max(paid) <= 1.05 * min(paid):
        return figure_forest(measured)
    lines, alone = _lines(measured, 'surrogate'), _lines(measured, 'scratch')
    if len(lines) > MAX_LINES:
        return figure_forest(measured)
    first = [line[0] for line in lines]
    names = [wrapped(name, 42) for name in labels(first)]
    figure = new_figure(7.0, 4.3 + 0.1 * sum(name.count('\n') + 1 for name in names))
    axes = new_axes(figure, 1, 1)[0]
    log = max(paid) >= 5 * max(min(paid), 1)
    if log:
        axes.set_xscale('symlog' if min(paid) < 1 else 'log')
        axes.xaxis.set_minor_formatter(NullFormatter())
    _levels(axes, measured)
    drawn = zip(lines, names, _looks(first), strict=True)
    for i, (line, name, look) in enumerate(drawn):
        offset = i - (len(lines) - 1) / 2  # so that intervals at one budget do not hide each other
        _points(axes, line, paid, log, offset, label=name, **look)
    for line, marker in zip(alone, itertools.cycle('dph8'), strict=False):
        what = label(line[0], [other[0] for other in alone], always=())
        name = wrapped(', '.join(filter(None, ('from scratch, own inputs', what))), 42)
        style = {'color': GRAY, 'linestyle': ':', 'markerfacecolor': 'white', 'marker': marker}
        _points(axes, line, paid, log, 0, label=name, **style)
    _budget_ticks(axes, sorted(paid), log)
    axes.set_xlabel('paid queries' + (' (for “from scratch”: own inputs)' if alone else ''))
    axes.set_ylabel('linear-probe accuracy, %')
    legend_below(figure, axes)
    return figure


def _lines(measured: Sequence[Estimate], role: str) -> list[list[Estimate]]:
    """Lists the estimates of `role` whose price is known, a list for each line."""
    lines: dict[tuple, list[Estimate]] = {}
    for e in measured:
        if e.role == role and _paid(e) is not None:
            lines.setdefault(series(e), []).append(e)
    return list(lines.values())


def _paid(e: Estimate) -> float | None:
    if e.role == 'scratch' or e.billed is None:
        return e.budget
    return sum(e.billed) / 2


def _levels(axes: Axes, measured: Sequence[Estimate]) -> None:
    """Draws victim and untrained encoder as lines over the whole width, named at the right."""
    levels = [e for e in measured if e.role in ('victim', 'random')]
    top = max((e.value for e in levels), default=0)
    for e in levels:
        color, dash = (INK, '-') if e.role == 'victim' else (GRAY, '--')
        axes.axhline(100 * e.value, color=color, linestyle=dash, linewidth=1.2, zorder=1)
        if e.interval:
            band = [100 * end for end in tables.clipped(e.interval)]
            axes.axhspan(*band, color=color, alpha=0.09, linewidth=0, zorder=0)
        alike = [other for other in levels if other.role == e.role]
        what = label(e, alike, always=()) or e.encoder if len(alike) > 1 else ''
        name = ', '.join(filter(None, (ROLE_TITLES[e.role], what)))
        side = 'bottom' if e.value == top else 'top'  # so that two close ones do not collide
        where = {'transform': axes.get_yaxis_transform(), 'va': side, 'fontsize': 9}
        axes.text(1.015, 100 * e.value, wrapped(name, 24), color=color, **where)


def _points(
    axes: Axes, line: Sequence[Estimate], paid: set[float], log: bool, offset: float, **style: Any
) -> None:
    x = np.array([_paid(e) for e in line], dtype=float)
    order = np.argsort(x)
    spread = np.log(max(paid) / max(min(paid), 1)) if log else max(paid) - min(paid)
    x = x * np.exp(offset * 0.008 * spread) if log else x + offset * 0.008 * spread
    y = np.array([e.value for e in line])
    ends = [tables.clipped(e.interval) or (e.value, e.value) for e in line]
    bars = np.abs(np.array(ends).T - y)
    style = {'linewidth': 1.6, 'markersize': 5.5, 'capsize': 2, 'elinewidth': 1} | style
    axes.errorbar(x[order], 100 * y[order], yerr=100 * bars[:, order], zorder=3, **style)


def _looks(lines: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Chooses a color for each attack, a marker and dashes for each defense."""
    keys = [series(e._replace(defense='')) for e in lines]
    attacks, defenses = list(dict.fromkeys(keys)), sorted({e.defense for e in lines})
    looks = []
    for key, e in zip(keys, lines, strict=True):
        a, d = attacks.index(key), defenses.index(e.defense)
        marker = MARKERS[(d + a // len(LINES)) % len(MARKERS)]
        dash = DASHES[d % len(DASHES)]
        looks.append({'color': LINES[a % len(LINES)], 'marker': marker, 'linestyle': dash})
    return looks


def _budget_ticks(axes: Axes, paid: Sequence[float], log: bool) -> None:
    if len(paid) <= 6:
        axes.set_xticks(paid)
        axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
    if log:
        axes.set_xlim(max(min(paid), 0.9) / 1.25, max(paid) * 1.25)
