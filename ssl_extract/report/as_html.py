"""A report as one self-contained HTML page."""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple

import jinja2
import markupsafe

from ssl_extract.report import export
from ssl_extract.report.parts import Report
from ssl_extract.report.tables import Table

# A number with its unit and its interval, an interval, or a word with its unit: 'Accuracy, %'.
_NUMBER = r'[−+]?\$?\d[\d.,]*\d\*?|[−+]?\$?\d\*?'
_INTERVAL = rf'(?:{_NUMBER})(?:–| to )(?:{_NUMBER})'
_UNBROKEN = re.compile(
    rf'(?<![\w.=])(?:(?:{_NUMBER})(?: %| points)? \({_INTERVAL}[),]|{_INTERVAL}'
    r'|[^\s(]{1,14} (?:[%↑↓]|s(?!\w)))'
)
_WORD = re.compile(r'[^\s(]{15,}')  # breaks behind an underscore or a dot
# The width of a table in a window of 1300 pixels, and the font size of most tables.
_WIDTH, _LARGEST = 1236, 14.4
_MARGIN = 0.8  # of a column, in units of the font size, as all widths below
# How many letters stay together, and the smallest font size for that; the first that fits.
_TOGETHER = ((16, 12.5), (12, 10.0), (9, 10.0), (6, 10.0))


def html(report: Report) -> str:
    """Renders the report as one HTML page with nothing from outside.

    The one script of the page sorts tables; the page says everything without it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('ssl_extract.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {'breakable': _breakable, 'unbroken': _unbroken, 'code': _code}
    names = {id(table): name for name, table in export.named_tables(report)}
    script = environment.get_template('sort.js.j2').render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template('report.html.j2').render(
        report=report,
        slug=export.slug,
        file_of=lambda table: names.get(id(table), ''),
        layout_of=layout,
        pieces_of=pieces,
        script=markupsafe.Markup(script),
        script_hash=f'sha256-{digest}',
    )


def pieces(table: Table) -> list[Table]:
    """Splits the columns of a table that is too wide; each piece has the columns that are keys.

    A table whose keys alone are too wide stays whole.
    """
    columns = range(table.keys, len(table.header))
    for count in range(1, len(columns) + 1):
        most = -(-len(columns) // count)
        parts = [
            _part(table, [*range(table.keys), *columns[start : start + most]])
            for start in range(0, len(columns), most)
        ]
        if not any(layout(part).tight for part in parts):
            return parts
    return [table]


def _part(table: Table, columns: list[int]) -> Table:
    return table._replace(
        header=[table.header[i] for i in columns],
        rows=[[row[i] for i in columns] for row in table.rows],
        numeric=[table.numeric[i] for i in columns],
    )


class Layout(NamedTuple):
    """The measures of a table: font size in pixels, smallest width of each column in font sizes.

    A table is `tight` where even short words must break.
    """

    size: float
    widths: list[float]
    tight: bool


def layout(table: Table) -> Layout:
    """Returns the measures with which a table fits in a window of 1300 pixels.

    Long words may break, a number and its interval never do. A table that does not fit even so
    scrolls in its frame.
    """
    for most, smallest in _TOGETHER:
        widths = []
        for name, numeric, *cells in zip(table.header, table.numeric, *table.rows, strict=True):
            words = [1.1 * _width(part) for part in _UNBROKEN.findall(name)]
            words += [1.1 * _width(word[:most]) for word in _UNBROKEN.sub(' ', name).split()]
            whole = [[cell] if len(cell) <= most else cell.split() for cell in cells]
            words += [_width(word[:most]) for part in whole for word in part]
            words += [_width(part) for cell in cells if numeric for part in _parts(cell)]
            widths.append(round(max(words, default=0), 2))
        size = _WIDTH / (sum(widths) + _MARGIN * len(widths))
        if size >= smallest:
            break
    return Layout(min(max(size, smallest), _LARGEST), widths, tight=most < 12)


def _width(text: str) -> float:
    """Estimates the width of a text in the widest usual font."""
    return sum(0.4 if letter in " .,:;|()-'" else 0.65 for letter in text)


def _parts(cell: str) -> list[str]:
    """Lists the parts of a number's cell that do not break."""
    return [*_UNBROKEN.findall(cell), *_UNBROKEN.sub(' ', cell).split()]


def _breakable(text: str) -> markupsafe.Markup:
    """Escapes text in which a spec such as `noise(stddev=1.0)` may break where a reader would."""
    return _unbroken(text, _break)


def _break(escaped: str) -> str:
    escaped = _WORD.sub(lambda word: re.sub(r'(_|\.(?=[a-z]))', r'\1<wbr>', word.group()), escaped)
    return escaped.replace('(', '(<wbr>')


def _unbroken(text: str, change: Callable[[str], str] = str) -> markupsafe.Markup:
    """Escapes text in which a number and its interval stay on one line.

    `change` changes the escaped parts between.
    """
    parts, last = [], 0
    for match in _UNBROKEN.finditer(text):
        parts.append(change(str(markupsafe.escape(text[last : match.start()]))))
        parts.append(f'<span class="one">{markupsafe.escape(match.group())}</span>')
        last = match.end()
    return markupsafe.Markup(''.join([*parts, change(str(markupsafe.escape(text[last:])))]))


def _code(text: str) -> markupsafe.Markup:
    """Escapes text with `code` in it."""
    return markupsafe.Markup(re.sub('`(.+?)`', r'<code>\1</code>', str(markupsafe.escape(text))))
