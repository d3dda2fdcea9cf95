"""The report on finished runs, as Markdown and self-contained HTML."""

from ssl_extract.report.figures.accuracy import figure_accuracy
from ssl_extract.report.page import build, html, markdown, summarize, write
from ssl_extract.report.publish import write_from
from ssl_extract.report.results import FinishedRun, read_runs, tidy

__all__ = [
    'FinishedRun',
    'build',
    'figure_accuracy',
    'html',
    'markdown',
    'read_runs',
    'summarize',
    'tidy',
    'write',
    'write_from',
]
