"""The report of an experiment: rows in, `report.md` and a self-contained `report.html` out."""

from ssl_extract.report.figures.accuracy import figure_accuracy
from ssl_extract.report.page import build, html, markdown, summarize, write

__all__ = ['build', 'figure_accuracy', 'html', 'markdown', 'summarize', 'write']
