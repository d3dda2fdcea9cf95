"""The break-even figure: cost of stealing over the price of a query."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ssl_extract.report import costs, estimates, tables
from ssl_extract.report.costs import Cost, Prices
from ssl_extract.report.estimates import Row
from ssl_extract.report.figures.style import (
    GRAY,
    INK,
    LINES,
    legend_below,
    new_axes,
    new_figure,
    wrapped,
)
from ssl_extract.report.labels import labels, series

MAX_THEFTS = 10
_DASHES = ('-', (0, (5, 2)))


class Theft(NamedTuple):
    """A line of the figure.

    Attributes:
        cost: of the surrogate.
        victim_dollars: for training its victim.
        share: its linear-probe accuracy as a share of the victim's, or None.
        price: the break-even price of 1,000 queries, or None: never cheaper.
    """

    cost: Cost
    victim_dollars: float
    share: float | None
    price: float | None

    def dollars(self, per_1000_queries: np.ndarray) -> np.ndarray:
        """Returns dollars for queries and training at these prices of 1,000 queries."""
        queries = self.cost.amounts['queries_billed']
        return queries / 1000 * per_1000_queries + self.cost.training_dollars


def figure_break_even(
    rows: Sequence[Row], task: str | None, price: Prices
) -> tuple[Figure, str] | None:
    """Draws dollars in all against the price of a query, a line per undefended attack.

    Each attack is shown at its largest budget; where its line crosses its victim's, stealing costs
    as much as training. At most MAX_THEFTS lines, the most accurate ones.

    Args:
        rows: rows of `results.jsonl`.
        task: whose linear-probe accuracy the legend gives.
        price: what is paid in this experiment.

    Returns:
        (figure, what it leaves out, in words), or None where there is nothing to draw.
    """
    attacks = thefts(rows, task, price)
    shown = attacks[:MAX_THEFTS]
    if not shown:
        return None
    legend = [wrapped(label, 96) for label in _legend(shown)]
    lines = sum(label.count('\n') + 1 for label in legend)
    figure = new_figure(7.0, 4.2 + 0.19 * lines)
    axes = new_axes(figure, 1, 1)[0]
    axes.set(xscale='log', yscale='log')
    x = np.geomspace(*_span(shown, price), 200)
    for i, (theft, label) in enumerate(zip(shown, legend, strict=True)):
        color, dash = LINES[i % len(LINES)], _DASHES[i // len(LINES) % len(_DASHES)]
        style = {'color': color, 'linestyle': dash, 'linewidth': 1.6, 'zorder': 3 - 0.01 * i}
        axes.plot(x, theft.dollars(x), label=label, **style)
        if theft.price is not None:
            style = {'color': color, 's': 26, 'zorder': 4 - 0.01 * i, 'edgecolors': 'white'}
            axes.scatter([theft.price], [theft.victim_dollars], **style)
    axes.set_xlim(x[0], x[-1])
    _references(axes, shown, price)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 20 * low else (1,), numticks=9))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel('price of 1,000 queries')
    axes.set_ylabel('dollars in all')
    legend_below(figure, axes, most=1)
    left_out = f'The {MAX_THEFTS} most accurate of {len(attacks)} attacks are shown.'
    return figure, left_out if len(attacks) > MAX_THEFTS else ''


def thefts(rows: Sequence[Row], task: str | None, price: Prices) -> list[Theft]:
    """Lists the undefended attacks at their largest budgets, the most accurate first.

    An attack is left out that asked nothing, or whose training time or victim's is not known.
    """
    encoders = costs.costs(rows, price)
    trained = [c for c in encoders if c.estimate.role == 'victim' and c.training_dollars]
    victims = {c.estimate.condition: c.training_dollars for c in trained}
    probed = [e for e in estimates.aggregate(rows, task, tables.PROBE) if e.value is not None]
    accuracy = {e.condition: e.value for e in probed}
    largest: dict[tuple, Cost] = {}
    for c in encoders:
        queries_paid = c.estimate.role == 'surrogate' and c.amounts['queries_billed']
        if queries_paid and not c.estimate.defense and c.training_dollars is not None:
            key = series(c.estimate)
            largest[key] = max(c, largest.get(key, c), key=lambda c: c.amounts['queries_billed'])
    lines = []
    for c in largest.values():
        e = c.estimate
        victim = estimates.reference([v.estimate for v in trained], 'victim', e)
        if victim:
            dollars = victims[victim.condition]
            best, reached = accuracy.get(victim.condition), accuracy.get(e.condition)
            share = reached / best if best and reached is not None else None
            queries = c.amounts['queries_billed']
            even = costs.break_even(dollars, c.training_dollars, queries)
            lines.append(Theft(c, dollars, share, even))
    return sorted(lines, key=lambda theft: -1.0 if theft.share is None else -theft.share)


def _span(shown: Sequence[Theft], price: Prices) -> tuple[float, float]:
    """Returns the range of prices, up to ten times the largest; training dominates at the left."""
    worth = [theft.price for theft in shown if theft.price]
    worth += [price.per_1000_queries] if price.per_1000_queries else []
    low, high = min(worth, default=1.0) / 10, max(worth, default=1.0) * 10
    query_thousands = [theft.cost.amounts['queries_billed'] / 1000 for theft in shown]
    paid = [theft.cost.training_dollars for theft in shown]
    alike = min(
        dollars / thousands for dollars, thousands in zip(paid, query_thousands, strict=True)
    )
    return max(low / 100, min(low, alike / 3)), high


def _legend(shown: Sequence[Theft]) -> list[str]:
    names = labels([theft.cost.estimate for theft in shown], always=('attack', 'loss'))
    legend = []
    for name, theft in zip(names, shown, strict=True):
        parts = [f'{theft.cost.amounts["queries_billed"]:,.0f} queries']
        if theft.share is not None:
            parts.append(f'{tables.percent(theft.share, 0)} % of the victim')
        parts.append('never cheaper' if theft.price is None else f'even at {_dollars(theft.price)}')
        legend.append(f'{name}: {", ".join(parts)}')
    return legend


def _references(axes: Axes, shown: Sequence[Theft], price: Prices) -> None:
    """Draws the cost of training as horizontal lines, the price paid here as a vertical."""
    for dollars in sorted({theft.victim_dollars for theft in shown}):
        axes.axhline(dollars, color=INK, linewidth=1.2, zorder=2)
        text = wrapped(f'training the victim {_dollars(dollars)}', 12)
        where = {'transform': axes.get_yaxis_transform(), 'va': 'center', 'fontsize': 9}
        axes.text(1.015, dollars, text, color=INK, **where)
    if price.per_1000_queries:
        axes.axvline(price.per_1000_queries, color=GRAY, linestyle='--', linewidth=1.2, zorder=2)
        text = wrapped(f'price here {_dollars(price.per_1000_queries)}', 40)
        where = {'transform': axes.get_xaxis_transform(), 'ha': 'center', 'fontsize': 9}
        axes.text(price.per_1000_queries, 1.015, text, color=GRAY, **where)


def _dollars(value: float) -> str:
    return f'${costs.dollars(value)}'


def _tick(value: float, _: int | None = None) -> str:
    """Writes a round number as money: '$0.01', '$1,000'."""
    return f'${value:,.{max(0, -math.floor(math.log10(value) + 1e-9))}f}'
