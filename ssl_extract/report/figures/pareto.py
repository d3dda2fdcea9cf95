"""The figure of defenses: attackers' losses against users' losses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from ssl_extract.errors import UserError
from ssl_extract.registry import parse_call, split_chain
from ssl_extract.report import headroom, labels, settings
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
from ssl_extract.report.headroom import Floors
from ssl_extract.report.settings import Change, Setting

MARKERS = 'osD^vPX'
# Where a label may stand beside its point: the side, and how far away in points.
_SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
_REACHES = (6, 12, 20, 30, 42, 56)


class Point(NamedTuple):
    """A defense in the figure: `lost` by users, `taken` from the attacker; in points or shares."""

    defense: str
    lost: float
    lost_bounds: tuple[float, float]
    taken: float
    taken_bounds: tuple[float, float]
    usual: float | None  # taken from the best attacker that does not adapt


def figure_defenses(
    rows: Sequence[Row], task: str | None, *, shares: bool = False
) -> tuple[Figure, str] | None:
    """Draws a point per defense: x what users lost, y what the attacker lost, worst case of both.

    At one endpoint and budget: see `settings.chief`.

    Args:
        rows: rows of `results.jsonl`.
        task: the task to show.
        shares: draws shares of the headroom over an untrained encoder, else points of accuracy.

    Returns:
        (figure, what it leaves out, in words), or None where fewer than two defenses have both
        numbers: the table shows one point better.
    """
    every, among = settings.settings(rows, task), headroom.floors(rows, task)
    chief = settings.chief(every)
    shown = [point for s in chief if (point := _shares(s, among) if shares else _point(s))]
    if len(shown) < 2:
        return None
    families: dict[str, list[Point]] = {}
    for point in shown:
        families.setdefault(settings.family(point.defense), []).append(point)
    figure = new_figure(7.0, 5.0 + 0.12 * len(families))
    axes = new_axes(figure, 1, 1)[0]
    axes.grid(False)
    names = []
    for i, (name, alike) in enumerate(families.items()):
        look = {'color': LINES[i % len(LINES)], 'marker': MARKERS[i % len(MARKERS)]}
        _family(
            axes, alike, label=wrapped(name if len(alike) > 1 else alike[0].defense, 40), **look
        )
        names += _names(name, alike)
    _frontier(axes, shown)
    cut = _limits(axes, shown)
    unit = '% of headroom over untrained' if shares else 'points'
    axes.set_xlabel(f'lost by the legitimate user that loses most,\n{unit} (less is better)')
    axes.set_ylabel(f'taken from the attacker,\n{unit} (more is better)')
    legend_below(figure, axes, most=2)
    points = [point for alike in families.values() for point in alike]
    _place(figure, axes, points, names)
    return figure, ' '.join(_notes(every, chief, shown, cut))


def _point(s: Setting) -> Point | None:
    user, attacker, usual = s.worst_user, s.change(s.worst), s.change(s.usual)
    if user is None or attacker is None:
        return None
    lost, taken = _fall(user.change), _fall(attacker)
    return Point(s.defense, *lost, *taken, None if usual is None else _fall(usual)[0])


def _shares(s: Setting, among: Floors) -> Point | None:
    """Returns the point of a defense in shares of the headroom over an untrained encoder."""
    losses = [headroom.of_user(user, among) for user in s.users.values()]
    users = [share for loss in losses if loss and (share := loss.shares['untrained'])]
    attackers = [headroom.of_attacker(s, attacker, among) for attacker in (s.worst, s.usual)]
    worst, usual = (loss and loss.shares['untrained'] for loss in attackers)
    if worst is None or not users:
        return None
    user = max(users, key=lambda share: share.value)
    numbers = ((100 * r.value, (100 * r.interval[0], 100 * r.interval[1])) for r in (user, worst))
    (lost, lost_bounds), (taken, taken_bounds) = numbers
    hollow = None if usual is None else 100 * usual.value
    return Point(s.defense, lost, lost_bounds, taken, taken_bounds, hollow)


def _fall(change: Change) -> tuple[float, tuple[float, float]]:
    """Returns a change as a loss in percentage points with its interval (a point where none)."""
    low, high = change.interval or (change.delta, change.delta)
    return -100 * change.delta, (-100 * high, -100 * low)


def _family(axes: Axes, alike: Sequence[Point], *, color: str, marker: str, label: str) -> None:
    """Draws the strengths of one defense, joined in the order of their numbers."""
    x, y = (np.array([getattr(p, name) for p in alike]) for name in ('lost', 'taken'))
    axes.plot(x, y, color=color, linewidth=1, alpha=0.6, zorder=2)
    bars = {'color': color, 'linewidth': 0.7, 'alpha': 0.4, 'zorder': 1}
    axes.hlines(y, *np.array([p.lost_bounds for p in alike]).T, **bars)
    axes.vlines(x, *np.array([p.taken_bounds for p in alike]).T, **bars)
    for p in alike:
        if p.usual is not None and p.usual != p.taken:
            axes.plot([p.lost] * 2, [p.taken, p.usual], color=color, linewidth=1.3, zorder=2)
            face = {'facecolors': 'white', 'edgecolors': color, 'linewidths': 1.2}
            axes.scatter([p.lost], [p.usual], marker=marker, s=26, zorder=3, **face)
    edge = {'edgecolors': 'white', 'linewidths': 0.6}
    axes.scatter(x, y, color=color, marker=marker, s=44, zorder=4, label=label, **edge)


def _frontier(axes: Axes, shown: Sequence[Point]) -> None:
    """Draws steps through the unbeaten defenses; the origin is no defense."""
    points = [(0.0, 0.0), *((p.lost, p.taken) for p in shown)]
    best = np.array([points[i] for i in settings.frontier(points)])
    style = {'color': INK, 'linestyle': (0, (4, 2.5)), 'linewidth': 1, 'alpha': 0.7, 'zorder': 1.5}
    axes.plot(*best.T, drawstyle='steps-post', label='frontier', **style)
    axes.scatter([0], [0], marker='+', s=60, color=INK, zorder=4, label='no defense')
    axes.axhline(0, color='#e4e4e4', linewidth=1, zorder=0)
    axes.axvline(0, color='#e4e4e4', linewidth=1, zorder=0)


def _limits(axes: Axes, shown: Sequence[Point]) -> bool:
    """Sets limits for the points; returns whether long intervals are cut there."""
    x = [0.0, *(p.lost for p in shown)]
    y = [0.0, *(p.taken for p in shown), *(p.usual for p in shown if p.usual is not None)]
    bars = [p.lost_bounds for p in shown], [p.taken_bounds for p in shown]
    cut = False
    for values, bounds, set_limits in zip(
        (x, y), bars, (axes.set_xlim, axes.set_ylim), strict=True
    ):
        room = 0.25 * max(max(values) - min(values), 1.0)
        ends = min(low for low, _ in bounds), max(high for _, high in bounds)
        low, high = min(values) - room, max(values) + room
        cut |= ends[0] < low or ends[1] > high
        pad = 0.35 * room
        set_limits(
            max(low, min(ends[0], min(values)) - pad), min(high, max(ends[1], max(values)) + pad)
        )
    return bool(cut)


def _notes(
    every: Sequence[Setting], chief: Sequence[Setting], shown: Sequence[Point], cut: bool
) -> list[str]:
    notes = []
    if len(every) > len(chief):
        queries = '' if chief[0].budget is None else f'{chief[0].budget:,} queries'
        victim = labels.fields_text(chief[0].fields)
        which = ', '.join(filter(None, (victim, chief[0].endpoint, queries)))
        notes.append(f'Shown: {which}; the rest is in the table.' if which else '')
    drawn = {p.defense for p in shown}
    lacking = [s.defense for s in chief if s.defense and s.defense not in drawn]
    if lacking:
        notes.append(f'Not drawn, without an attacker or a user to compare: {", ".join(lacking)}.')
    if cut:
        notes.append('Longer intervals are cut at the edge.')
    return [note for note in notes if note]


def _names(name: str, alike: Sequence[Point]) -> list[str]:
    """Names the strengths of a defense by the arguments that vary."""
    if len(alike) == 1:
        return [name]
    try:
        specs = [_arguments(p.defense) for p in alike]
    except UserError:  # not a spec
        return [p.defense for p in alike]
    keys = dict.fromkeys(key for arguments in specs for key in arguments)
    varied = [key for key in keys if len({repr(arguments.get(key)) for arguments in specs}) > 1]
    words = [', '.join(f'{k[1]}={f[k]}' for k in varied if k in f) for f in specs]
    return [text or 'default' for text in words]


def _arguments(spec: str) -> dict[tuple, Any]:
    arguments = {}
    for i, part in enumerate(split_chain(spec)):
        _, positional, named = parse_call(part)
        arguments |= {
            (i, str(key)): value for key, value in (dict(enumerate(positional)) | named).items()
        }
    return arguments


def _place(figure: Figure, axes: Axes, shown: Sequence[Point], names: Sequence[str]) -> None:
    """Writes each name beside its point where it covers least, with a hair to it if far away."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # the layout is final from here on
    pixel = figure.dpi / 72
    frame = axes.get_window_extent(renderer).extents[None]
    covered = []
    for p in shown:
        top = p.taken if p.usual is None else p.usual
        (x, low), (_, high) = axes.transData.transform([(p.lost, p.taken), (p.lost, top)])
        covered += [_box(x, low, 12 * pixel, 12 * pixel), _box(x, high, 9 * pixel, 9 * pixel)]
        covered += [_box(x, (low + high) / 2, 2 * pixel, abs(high - low))]
    for p, name in zip(shown, names, strict=True):
        text = axes.annotate(
            wrapped(name, 18),
            (p.lost, p.taken),
            **{'xytext': (0, 0), 'textcoords': 'offset points', 'fontsize': 7.5, 'color': INK},
            **{'zorder': 5, 'ha': 'center', 'va': 'center'},
            arrowprops={'arrowstyle': '-', 'color': GRAY, 'linewidth': 0.6, 'shrinkA': 0},
        )
        text.set_in_layout(False)
        text.set_path_effects([withStroke(linewidth=2, foreground='white')])
        size = Text.get_window_extent(text, renderer)
        x, y = axes.transData.transform((p.lost, p.taken))
        tried = []
        for reach in _REACHES:
            for side in _SIDES:
                dx = side[0] * (reach * pixel + size.width / 2)
                dy = side[1] * (reach * pixel / (1 + abs(side[0])) + size.height / 2)
                box = _box(x + dx, y + dy, size.width, size.height)
                hidden = _overlap(box, np.array(covered))
                hidden += 4 * (size.width * size.height - _overlap(box, frame))
                tried.append((hidden + 3 * pixel * reach * pixel, reach, (dx, dy), box))
        _, reach, (dx, dy), box = min(tried, key=lambda t: t[0])
        covered.append(box)
        text.set_position((dx / pixel, dy / pixel))
        text.arrow_patch.set_visible(reach > _REACHES[1])


def _box(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Returns left, bottom, right and top."""
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """Adds up the area that `box` [4] shares with each of the others [N, 4]."""
    both = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float(both.clip(0).prod(axis=1).sum())
