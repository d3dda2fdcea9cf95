"""The figure of clips: log-mel spectrograms of queries and of their views."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_extract.report.figures.style import FAINT, GRAY, INK, new_axes, new_figure

_TICKS = (200, 500, 1000, 2000, 4000, 8000, 16_000)  # Hz

_KNOWN = 'Frames of 25 ms, 10 ms apart; of a longer clip the first 10 seconds.'
_UNKNOWN = (
    'The sampling rate is not known: frames of 400 samples, 160 apart; of a longer clip the first '
    '160,000 samples.'
)


def figure_clips(clips: dict[str, np.ndarray] | None) -> tuple[Figure, str] | None:
    """Draws a row for each clip, a column for the clip as it is and for each of its views.

    Args:
        clips: `'spectrograms'` [V, N, F, M], of V views of N clips, F frames of M mel bands, NaN
            for padding; `'fields'` [V], the field of each view, '' of the clips as they are;
            `'hop'`, seconds from one frame to the next; `'hertz'` [M], the center of each band.
            Where `'hertz'` is empty the rate is not known, and `'hop'` is in samples.

    Returns:
        (figure, note), or None where there is nothing to draw.
    """
    if clips is None:
        return None
    values = clips['spectrograms'].astype(np.float32)
    views, count = values.shape[:2]
    figure = new_figure(7.0, 0.9 + 1.3 * count)
    panels = new_axes(figure, views * count, views)
    low, high = np.nanmin(values), np.nanmax(values)
    for number, axes in enumerate(panels):
        row, column = divmod(number, views)
        image = _spectrogram(axes, values[column, row], float(clips['hop']), (low, high))
        _name_bands(axes, clips['hertz'], first=column == 0)
        axes.tick_params(labelbottom=row + 1 == count)
        if row == 0:
            field = str(clips['fields'][column])
            title = f'view under\n{field}' if field else 'clip as it is'
            axes.set_title(title, fontsize=8.5, color=INK)
    known = len(clips['hertz']) > 0
    figure.supxlabel('seconds' if known else 'samples', fontsize=9.5, color=INK)
    figure.supylabel('frequency in Hz, on the mel scale' if known else 'mel band', fontsize=9.5)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.01)
    bar.set_label('logarithm of power', fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, color=GRAY)
    return figure, _KNOWN if known else _UNKNOWN


def _spectrogram(axes: Axes, values: np.ndarray, hop: float, limits: tuple[float, float]):
    """Draws one spectrogram [F, M]; a frame lies around its center, and padding stays gray."""
    frames, bands = values.shape
    extent = (-hop / 2, (frames - 0.5) * hop, -0.5, bands - 0.5)
    axes.grid(False)
    axes.patch.set_facecolor(FAINT)
    return axes.imshow(
        values.T,
        origin='lower',
        aspect='auto',
        extent=extent,
        vmin=limits[0],
        vmax=limits[1],
        cmap='magma',
        interpolation='nearest',
    )


def _name_bands(axes: Axes, hertz: np.ndarray, first: bool) -> None:
    if len(hertz):
        ticks = [tick for tick in _TICKS if hertz[0] <= tick <= hertz[-1]]
        axes.set_yticks(np.interp(ticks, hertz, np.arange(len(hertz))), map(str, ticks))
    axes.tick_params(labelleft=first)
