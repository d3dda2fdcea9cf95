"""The figures of an ownership report: what survives, and ROC curves."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ssl_extract.ownership.known_truth import Group, Rates, named
from ssl_extract.ownership.verdict import hits
from ssl_extract.report.figures.style import GRAY, INK, LINES, new_axes, new_figure

_SHOWN = 26  # characters of a test's arguments
_FOUND, _ACCUSED = colormaps['Blues'], colormaps['Reds']  # of stolen encoders, of independent ones


def figure_survival(groups: Sequence[Group]) -> Figure:
    """Draws the share of suspects that each test finds: a row of suspects, a column per test.

    Args:
        groups: see `known_truth.groups`.
    """
    tests = list(dict.fromkeys(group.test for group in groups))
    truths = list(dict.fromkeys(group.truth for group in groups))
    figure = new_figure(2.2 + 0.75 * len(tests), 1.4 + 0.21 * len(truths))
    (axes,) = new_axes(figure, 1, 1)
    colors = np.ones((len(truths), len(tests), 3))
    for group in groups:
        row, column = truths.index(group.truth), tests.index(group.test)
        words, ink = 'refused', GRAY
        if group.found is not None:
            shade = _FOUND if group.truth.stolen else _ACCUSED
            colors[row, column] = shade(group.found.value)[:3]
            words = f'{hits(group.found)}/{group.found.n}'
            ink = 'white' if group.found.value > 0.6 else INK
        axes.text(column, row, words, ha='center', va='center', fontsize=7, color=ink)
    axes.imshow(colors, aspect='auto')
    axes.set_xticks(range(len(tests)), map(_two_lines, tests), rotation=40, ha='left')
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(truths)), [named(truth) for truth in truths])
    axes.tick_params(length=0, labelsize=8)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


def figure_roc(rates: Sequence[Rates]) -> Figure:
    """Draws the ROC curve of each test, a panel each.

    Args:
        rates: of the tests that have a curve.
    """
    columns = min(4, len(rates))
    rows = -(-len(rates) // columns)
    figure = new_figure(7.0, 0.4 + rows * (7.0 / columns + 0.25))
    for axes, row in zip(new_axes(figure, len(rates), columns), rates, strict=True):
        axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=':')
        axes.plot(row.curve.fpr, row.curve.tpr, color=LINES[0], linewidth=1.6)
        auc = row.curve.auc
        words = f'{_two_lines(row.test)}\n{auc.value:.2f} ({auc.ci_low:.2f}–{auc.ci_high:.2f})'
        axes.set_title(words, fontsize=8, color=INK)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_box_aspect(1)
    figure.supxlabel('false positives: independent encoders', fontsize=9, color=INK)
    figure.supylabel('true positives: stolen encoders', fontsize=9, color=INK)
    return figure


def _two_lines(test: str) -> str:
    """Writes the arguments of a long spec below its name, and the end of very long ones as '…'.

    >>> _two_lines('shadow_score(probes="noise")'), _two_lines(f'name_of_a_test(view={"x" * 99})')
    ('shadow_score\\n(probes="noise")', 'name_of_a_test\\n(view=xxxxxxxxxxxxxxxxxxx…)')
    """
    if len(test) <= 20 or '(' not in test:
        return test
    place = test.index('(')
    name, arguments = test[:place], test[place + 1 :]
    shown = arguments if len(arguments) <= _SHOWN else f'{arguments[: _SHOWN - 2]}…)'
    return f'{name}\n({shown}'
