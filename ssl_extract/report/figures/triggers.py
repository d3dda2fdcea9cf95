"""The figure of triggers: images without, images with, the difference."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssl_extract.report.figures.style import INK, new_axes, new_figure

_ROWS = ('as it is', 'with the trigger', 'difference')


def figure_triggers(pictures: dict[str, Any] | None) -> tuple[Figure, str] | None:
    """Draws three rows for each task: images as they are, with the trigger, and the difference.

    Args:
        pictures: `'before'` and `'after'`, uint8 [T, P, H, W, 3], of P images of T tasks;
            `'tasks'` [T], their names.

    Returns:
        (figure, note), or None where there is nothing to draw.
    """
    if pictures is None:
        return None
    before, after = (pictures[name].astype(int) for name in ('before', 'after'))
    moved = after - before
    factor = 127 / max(1, np.abs(moved).max())
    gray = np.rint(127.5 + factor * moved).astype(int)
    rows = np.stack([before, after, gray], axis=1).reshape(-1, *before.shape[1:])
    count, columns = rows.shape[:2]
    figure = new_figure(1.1 + 1.2 * columns, 0.4 + 1.2 * count)
    for number, axes in enumerate(new_axes(figure, count * columns, columns)):
        row, column = divmod(number, columns)
        axes.grid(False)
        axes.set(xticks=[], yticks=[])
        axes.imshow(rows[row, column], vmin=0, vmax=255, interpolation='nearest')
        if column == 0:
            name = pictures['tasks'][row // 3]
            label = _ROWS[row % 3] if len(before) == 1 else f'{name}:\n{_ROWS[row % 3]}'
            axes.set_ylabel(label, fontsize=8.5, color=INK)
    return figure, f'Differences are drawn {factor:.1f} times as large.'
