"""The parts of a report, which every format shows."""

import base64
from typing import NamedTuple

from ssl_extract.report.figures import style
from ssl_extract.report.tables import Table


class Picture(NamedTuple):
    """A figure: file name without suffix, PNG and PDF, alternative text, caption."""

    name: str
    png: bytes
    pdf: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        """Encodes the PNG for a data URL."""
        return base64.b64encode(self.png).decode('ascii')


class Section(NamedTuple):
    """A heading of the report and the parts under the heading, in order."""

    title: str
    items: list[Table | Picture]


class Origin(NamedTuple):
    """The runs that a report is of.

    Attributes:
        facts: (name, value) of the dates, the time, the devices and the version.
        studied: a sentence on each victim and on the sizes of its study.
        tables: of the runs and of their stages.
        changes: the fields that differ from their defaults; None where that is not known.
    """

    facts: list[tuple[str, str]]
    studied: list[str]
    tables: list[Table]
    changes: Table | None


class Report(NamedTuple):
    """The content of all formats: all words and numbers of a report.

    Attributes:
        title: the heading.
        facts: (name, value), in a line under the heading.
        summary: paragraphs.
        sections: tables and figures.
        command: the command lines; '' where unknown.
        changes: the fields that differ from their defaults.
        config: the whole config and the versions, as JSON.
        glossary: (term, meaning) of the terms that the report uses.
    """

    title: str
    facts: list[tuple[str, str]]
    summary: list[str]
    sections: list[Section]
    command: str
    changes: Table | None
    config: str
    glossary: list[tuple[str, str]]


def picture(name: str, figure: style.Figure, alt: str, caption: str) -> Picture:
    """Draws a figure in both formats."""
    png = style.png(figure)  # first: it settles the layout
    return Picture(name, png, style.pdf(figure), alt, caption)
