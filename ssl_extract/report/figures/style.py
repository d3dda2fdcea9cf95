"""The style of figures, training curves and views of representations.

Matplotlib's object-oriented API only: no pyplot, no global state.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_extract.report import estimates

# Okabe and Ito 2008 without black and yellow: lines that the color-blind tell apart too.
LINES = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
# Petroff 2021 (arXiv 2107.02270), ten colors for scatter plots.
CLASSES = (
    *('#3f90da', '#ffa90e', '#bd1f01', '#94a4a2', '#832db6'),
    *('#a96b59', '#e76300', '#b9ac70', '#717581', '#92dadd'),
)
INK, GRAY, FAINT = '#222222', '#6b6b6b', '#d9d9d9'
MAX_PANELS, MAX_LINES, MAX_POINTS, MAX_STEPS = 12, 6, 2000, 200


def figure_curves(curves: dict[str, list[dict[str, Any]]]) -> tuple[Figure, str] | None:
    """Draws loss against step, a panel per curve.

    Names `'panel: line'` share a panel; names that differ only in `seed 0`, `seed=1` are averaged.

    Args:
        curves: name -> records with `'step'` and `'loss'`; records without a loss are passed over.
            A training of one step has no curve.

    Returns:
        (figure, note), or None where there is nothing to draw.
    """
    panels: dict[str, dict[str, list[np.ndarray]]] = {}
    broken, short = 0, 0
    for name, records in curves.items():
        pairs = [(record['step'], record['loss']) for record in records if 'loss' in record]
        finite = [pair for pair in pairs if estimates.is_finite(pair[1])]
        broken += len(pairs) - len(finite)
        short += len(finite) == 1
        if len(finite) > 1:
            family = re.sub(r'[\s,;/_-]*\bseed[ =_-]*\d+', '', name).strip() or name
            panel, _, line = family.partition(': ')
            lines = panels.setdefault(panel, {})
            lines.setdefault(line, []).append(np.array(sorted(finite), dtype=float))
    if not panels:
        return None
    shown = dict(list(panels.items())[:MAX_PANELS])
    columns = min(3, len(shown))
    height = -(-len(shown) // columns)
    titles = [wrapped(panel, 64 // columns) for panel in shown]
    panel = (2.2 if columns > 1 else 2.7) + 0.16 * max(title.count('\n') for title in titles)
    figure = new_figure(7.0, 0.5 + panel * height)
    panel_axes = new_axes(figure, len(shown), columns)
    for axes, title, lines in zip(panel_axes, titles, shown.values(), strict=True):
        for i, (line, runs) in enumerate(list(lines.items())[:MAX_LINES]):
            _curve(axes, runs, LINES[i], wrapped(line, 40 if columns == 1 else 54 // columns))
        axes.set_title(title, fontsize=9.5, color=INK)
        if any(lines):
            axes.legend(fontsize=8, frameon=False, handlelength=1.2, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(3 if columns > 1 else 6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel('training step', fontsize=9.5, color=INK)
    figure.supylabel('loss', fontsize=9.5, color=INK)
    left_out = sum(len(lines) for lines in panels.values())
    left_out -= sum(min(len(lines), MAX_LINES) for lines in shown.values())
    notes = [f'Curves not drawn: {left_out}.'] if left_out else []
    notes += [f'Losses not finite, not drawn: {broken}.'] if broken else []
    notes += [f'Trainings of one step, not drawn: {short}.'] if short else []
    return figure, ' '.join(notes)


def figure_views(views: Sequence[dict[str, Any]]) -> tuple[Figure, str] | None:
    """Draws 2-D projections of representations side by side, one color per class in all.

    Args:
        views: `{'title': str, 'points': [N, 2], 'labels': int [N], 'class_names': optional list}`.

    Returns:
        (figure, note), or None where there is nothing to draw.
    """
    views = [view for view in views if len(view['points']) > 1]
    if not views:
        return None
    columns = 2 if len(views) == 4 else min(3, len(views))
    height = -(-len(views) // columns)
    titles = [wrapped(view['title'], 72 // columns) for view in views]
    lines = 1 + max(title.count('\n') for title in titles)
    panel = (4.6 if columns == 1 else 7.0 / columns) + 0.2 * lines
    figure = new_figure(7.0, panel * height + 0.5)
    classes = np.unique(np.concatenate([np.ravel(view['labels']) for view in views])).tolist()
    colors = np.array([_class_color(i, len(classes)) for i in range(len(classes))])
    notes = []
    panels = new_axes(figure, len(views), columns)
    for axes, view, title in zip(panels, views, titles, strict=True):
        index = np.searchsorted(classes, np.ravel(view['labels']))
        notes += _scatter(axes, np.asarray(view['points'], dtype=float), colors[index], view)
        axes.set_title(title, fontsize=10, color=INK)
    if 1 < len(classes) <= len(CLASSES):
        class_names = next((view['class_names'] for view in views if view.get('class_names')), None)
        names = [
            str(class_names[c]) if class_names and 0 <= c < len(class_names) else str(c)
            for c in classes
        ]
        names = [wrapped(name, 20) for name in names]
        for color, name in zip(colors, names, strict=True):
            figure.axes[0].scatter([], [], c=color, s=28, label=name)
        legend_below(figure, figure.axes[0], most=10)
    elif len(classes) > 1:
        notes.append(f'{len(classes)} classes, each in the same color in every picture.')
    return figure, ' '.join(notes)


def wrapped(text: str, width: int) -> str:
    """Breaks text into lines of `width` for a figure, where a dollar sign is a dollar sign."""
    return '\n'.join(textwrap.wrap(text, width)).replace('$', r'\$')


def png(figure: Figure) -> bytes:
    """Returns the figure as PNG, the same bytes for the same figure.

    The figure grows until its labels leave room for its panels.
    """
    figure.dpi = 180
    for _ in range(8):
        buffer = io.BytesIO()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')  # `savefig` would draw twice
            FigureCanvasAgg(figure).print_png(buffer, metadata={'Software': None})
        if not any('constrained_layout not applied' in str(w.message) for w in caught):
            break
        figure.set_size_inches(1.25 * figure.get_size_inches())
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """Returns the figure as PDF, in the layout that `png` gave it, the same bytes again."""
    figure.set_layout_engine('none')
    buffer, nothing = io.BytesIO(), dict.fromkeys(('Creator', 'Producer', 'CreationDate'))
    with rc_context({'pdf.fonttype': 42}):  # text stays text
        FigureCanvasPdf(figure).print_pdf(buffer, metadata=nothing)
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty white figure, in inches."""
    return Figure(figsize=(width, height), layout='constrained', facecolor='white')


def new_axes(figure: Figure, count: int, columns: int) -> list[Axes]:
    """Makes `count` quiet panels in rows of `columns`."""
    panels = list(figure.subplots(-(-count // columns), columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.spines[['top', 'right']].set_visible(False)
        axes.spines[['left', 'bottom']].set_color(GRAY)
        axes.tick_params(color=GRAY, labelcolor=INK, labelsize=9)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.grid(axis='y', color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
    return panels[:count]


def legend_below(figure: Figure, axes: Axes, most: int = 3) -> None:
    """Draws one legend under the figure, in `most` columns or as many as its labels leave."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        style = {
            'fontsize': 9,
            'frameon': False,
            'labelcolor': INK,
            'columnspacing': 1.4,
            'handletextpad': 0.5,
        }
        longest = max(len(line) for label in labels for line in label.split('\n'))
        columns = max(1, min(most, len(handles), 104 // (longest + 8)))
        figure.legend(handles, labels, loc='outside lower center', ncols=columns, **style)


def _curve(axes: Axes, runs: Sequence[np.ndarray], color: str, label: str) -> None:
    """Draws mean and range over runs with the same steps; else each run."""
    runs = [_binned(run) for run in runs]
    alike = all(np.array_equal(run[:, 0], runs[0][:, 0]) for run in runs)
    if alike:
        losses = np.stack([run[:, 1] for run in runs])
        axes.plot(runs[0][:, 0], losses.mean(axis=0), color=color, linewidth=1.4, label=label)
        if len(runs) > 1:
            ends = losses.min(axis=0), losses.max(axis=0)
            axes.fill_between(runs[0][:, 0], *ends, color=color, alpha=0.2, linewidth=0)
    else:
        for i, run in enumerate(runs):
            axes.plot(*run.T, color=color, linewidth=1, alpha=0.7, label=label if not i else None)


def _binned(run: np.ndarray) -> np.ndarray:
    """Returns at most MAX_STEPS points: means of neighboring steps."""
    if len(run) <= MAX_STEPS:
        return run
    return np.array([part.mean(axis=0) for part in np.array_split(run, MAX_STEPS)])


def _scatter(axes: Axes, points: np.ndarray, colors: np.ndarray, view: dict[str, Any]) -> list[str]:
    """Draws the finite ones of the points [N, 2], at most MAX_POINTS; returns what was left out."""
    notes = []
    keep = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(keep) < len(points):
        notes.append(
            f'{view["title"]}: {len(points) - len(keep)} of {len(points)} points not finite.'
        )
    if len(keep) > MAX_POINTS:
        notes.append(f'{view["title"]}: {MAX_POINTS:,} of {len(keep):,} points drawn.')
        keep = np.random.default_rng(0).permutation(keep)[:MAX_POINTS]
    size = float(np.clip(6000 / max(len(keep), 1), 4, 22))
    axes.scatter(*points[keep].T, c=colors[keep], s=size, linewidths=0, alpha=0.75)
    axes.set(xticks=[], yticks=[])
    axes.set_box_aspect(1)
    axes.grid(False)
    axes.spines[['left', 'bottom']].set_visible(False)
    axes.patch.set_facecolor('#f6f6f6')
    return notes


def _class_color(index: int, count: int) -> Any:
    return CLASSES[index] if count <= len(CLASSES) else colormaps['turbo'](index / (count - 1))
