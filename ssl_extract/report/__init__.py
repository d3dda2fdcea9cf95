"""The report on finished runs, as Markdown and self-contained HTML."""

import importlib
from typing import Any

from ssl_extract.report.results import FinishedRun, flatten, read_runs, tidy

_DRAWING = {  # imported when first used: matplotlib takes a second
    'build': 'page',
    'figure_accuracy': 'figures.accuracy',
    'html': 'as_html',
    'markdown': 'as_markdown',
    'summarize': 'summary',
    'write': 'page',
    'write_from': 'publish',
}
__all__ = ['FinishedRun', 'flatten', 'read_runs', 'tidy', *_DRAWING]


def __getattr__(name: str) -> Any:
    """Imports a function that draws (PEP 562).

    Raises:
        AttributeError: the room has no such name.
    """
    if name not in _DRAWING:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_DRAWING[name]}'), name)
