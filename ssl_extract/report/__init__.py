"""The report on finished runs, as Markdown and self-contained HTML."""

from ssl_extract.report.as_html import html
from ssl_extract.report.as_markdown import markdown
from ssl_extract.report.figures.accuracy import figure_accuracy
from ssl_extract.report.page import build, write
from ssl_extract.report.publish import write_from
from ssl_extract.report.results import FinishedRun, flatten, read_runs, tidy
from ssl_extract.report.summary import summarize

__all__ = [
    'FinishedRun',
    'build',
    'figure_accuracy',
    'flatten',
    'html',
    'markdown',
    'read_runs',
    'summarize',
    'tidy',
    'write',
    'write_from',
]
