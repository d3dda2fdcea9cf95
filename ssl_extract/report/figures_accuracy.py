"""The report's first figure: accuracy against paid queries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ssl_extract.report import estimates, tables
from ssl_extract.report.estimates import Estimate, Row
from ssl_extract.report.figures import GREY, INK, LINES, legend_below, new_axes, new_figure, wrapped

MARKERS = 'osD^vPX'
DASHES = ('-', (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))


def figure_accuracy(rows: Sequence[Row], task: str | None) -> Figure:
    """Linear-probe accuracy on `task` against paid queries, with 95 % intervals.

    One line per attack, loss, plan and encoder (colour) and defense (dashes and marker); victim and
    untrained encoder as horizontal lines with bands; encoders pretrained from scratch on as many
    images as grey diamonds. Where all surrogates paid the same, one line each, from best to worst.

    Args:
        rows: rows of `results.jsonl`.
        task: the task to show.

    Returns:
        A figure; `figure.savefig(path)` writes it.
    """
    found = [e for e in estimates.aggregate(rows, task, tables.PROBE) if e.value is not None]
    paid = {_paid(e) for e in found if e.role in ('surrogate', 'scratch')} - {None}
    if not paid or max(paid) <= 1.05 * min(paid):
        return _forest(found)
    series: dict[tuple, list[Estimate]] = {}
    for e in found:
        if e.role == 'surrogate' and _paid(e) is not None:
            series.setdefault(_key(e), []).append(e)
    figure = new_figure(7.0, 4.3 + 0.16 * len(series))
    axes = new_axes(figure, 1, 1)[0]
    log = max(paid) >= 5 * max(min(paid), 1)
    if log:
        axes.set_xscale('symlog' if min(paid) < 1 else 'log')
        axes.xaxis.set_minor_formatter(NullFormatter())
    _levels(axes, found)
    looks, labels = _looks(list(series)), _labels(list(series))
    for i, (key, line) in enumerate(series.items()):
        offset = i - (len(series) - 1) / 2  # so that intervals at one budget do not hide each other
        _points(axes, line, paid, log, offset, label=wrapped(labels[key], 42), **looks[key])
    scratch = [e for e in found if e.role == 'scratch' and _paid(e) is not None]
    if scratch:
        style = {'color': GREY, 'marker': 'd', 'linestyle': ':', 'markerfacecolor': 'white'}
        _points(axes, scratch, paid, log, 0, label='from scratch, own images', **style)
    _budget_ticks(axes, sorted(paid), log)
    axes.set_xlabel('paid queries' + (' (for “from scratch”: own images)' if scratch else ''))
    axes.set_ylabel('linear-probe accuracy, %')
    legend_below(figure, axes)
    return figure


def _paid(e: Estimate) -> float | None:
    if e.role == 'scratch' or e.billed is None:
        return e.budget
    return sum(e.billed) / 2


def _levels(axes: Axes, found: Sequence[Estimate]) -> None:
    """Victim and untrained encoder as lines over the whole width, named at the right."""
    levels = [e for e in found if e.role in ('victim', 'random')]
    top = max((e.value for e in levels), default=0)
    for e in levels:
        color, dash = (INK, '-') if e.role == 'victim' else (GREY, '--')
        axes.axhline(100 * e.value, color=color, linestyle=dash, linewidth=1.2, zorder=1)
        if e.interval:
            band = [100 * end for end in tables.clipped(e.interval)]
            axes.axhspan(*band, color=color, alpha=0.09, linewidth=0, zorder=0)
        several = sum(other.role == e.role for other in levels) > 1
        name = tables.ROLE_NAMES[e.role] + (f', {e.encoder}' if several else '')
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


def _looks(keys: Sequence[tuple]) -> dict[tuple, dict[str, Any]]:
    """A colour for each attack and loss; a marker and dashes for each defense."""
    attacks = list(dict.fromkeys(key[:-1] for key in keys))
    defenses = sorted({key[-1] for key in keys})
    looks = {}
    for key in keys:
        a, d = attacks.index(key[:-1]), defenses.index(key[-1])
        marker = MARKERS[(d + a // len(LINES)) % len(MARKERS)]
        dash = DASHES[d % len(DASHES)]
        looks[key] = {'color': LINES[a % len(LINES)], 'marker': marker, 'linestyle': dash}
    return looks


def _labels(keys: Sequence[tuple]) -> dict[tuple, str]:
    """What tells the series apart, in words; all of it where there is but one."""
    varied = [len({key[i] for key in keys}) > 1 for i in range(5)]
    varied[1] = True  # the loss is always worth a word
    labels = {}
    for key in keys:
        parts = [part for part, use in zip(key[:-1], varied, strict=False) if use and part]
        if varied[-1]:
            parts.append(key[-1] or 'no defense')
        labels[key] = ', '.join(parts) or 'surrogate'
    return labels


def _budget_ticks(axes: Axes, paid: Sequence[float], log: bool) -> None:
    if len(paid) <= 6:
        axes.set_xticks(paid)
        axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
    if log:
        axes.set_xlim(max(min(paid), 0.9) / 1.25, max(paid) * 1.25)


def _key(e: Estimate) -> tuple:
    return e.attack, e.loss, e.plan, e.encoder, e.defense


def _forest(found: Sequence[Estimate]) -> Figure:
    """Every encoder on a line of its own, with its interval."""
    thieves = sorted((e for e in found if e.role == 'surrogate'), key=lambda e: -e.value)
    labels = _labels([_key(e) for e in thieves])
    every = [e for e in found if e.role in ('victim', 'legitimate')] + thieves
    every += [e for e in found if e.role in ('scratch', 'random')]
    figure = new_figure(7.0, 1.0 + 0.36 * len(every))
    axes = new_axes(figure, 1, 1)[0]
    names = []
    for y, e in enumerate(every):
        name = tables.ROLE_NAMES.get(e.role, e.role)
        if e.role == 'surrogate':
            name = labels[_key(e)]
        elif e.defense:
            name = f'{name}, {e.defense}'
        names.append(wrapped(name, 38))
        color = LINES[0] if e.role == 'surrogate' else INK if e.role == 'victim' else GREY
        marker = 'o' if e.role == 'surrogate' else 'D'
        ends = tables.clipped(e.interval) or (e.value, e.value)
        bars = [[100 * abs(end - e.value)] for end in ends]
        axes.errorbar(
            100 * e.value, y, xerr=bars, color=color, marker=marker, markersize=6, capsize=3
        )
        where = {'xytext': (0, 6), 'textcoords': 'offset points', 'ha': 'center', 'fontsize': 8}
        axes.annotate(tables.percent(e.value), (100 * e.value, y), color=color, **where)
    axes.set_yticks(range(len(every)), names)
    axes.set_ylim(len(every) - 0.5, -0.7)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='x', color='#e4e4e4', linewidth=0.6)
    axes.grid(axis='y', visible=False)
    axes.set_xlabel('linear-probe accuracy, %')
    return figure
