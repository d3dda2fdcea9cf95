"""The tables of a report as CSV and LaTeX."""

import re
from collections.abc import Iterator

from ssl_extract.report.parts import Picture, Report
from ssl_extract.report.tables import Table
from ssl_extract.runtime import files

_LATEX = {
    **{mark: f'\\{mark}' for mark in '&%$#_{}'},
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    **{mark: f'${mark}$' for mark in '<>|'},
    "'": r'\textquotesingle{}',
    '`': r'\textasciigrave{}',
    '[': '{[}',  # behind the end of a row, an argument or a star of the end
    '*': '{*}',
    '-': '-{}',
    '–': '--',
    '−': '$-$',
    '↑': r'$\uparrow$',
    '↓': r'$\downarrow$',
}
# Of two hyphens in a row the first is marked: LaTeX would make a dash of them.
_MARK = re.compile('|'.join(['-(?=-)', *(re.escape(mark) for mark in _LATEX if mark != '-')]))


def named_tables(report: Report) -> Iterator[tuple[str, Table]]:
    """Yields each table with a file name of its own, without suffix, from its two titles."""
    names: set[str] = set()
    for section in report.sections:
        for item in section.items:
            if not isinstance(item, Picture):
                name = slug(f'{section.title} {item.title}')
                same = sum(other == name or other.startswith(f'{name}_no_') for other in names)
                names.add(name := f'{name}_no_{same + 1}' if same else name)
                yield name, item


def as_csv(table: Table) -> str:
    """Writes a table as CSV, its cells as the report shows them.

    >>> as_csv(Table('', ['Defense', 'Accuracy, %'], [['none', '81.0']], [False, True], [''], ''))
    'Defense,"Accuracy, %"\\nnone,81.0\\n'
    """
    return files.as_csv([table.header, *table.rows])


def as_latex(table: Table) -> str:
    """Writes a table as a LaTeX `tabular` for the packages fontenc (T1), booktabs and textcomp.

    The title and the caption are comments before it.
    """
    alignment = ''.join('r' if numeric else 'l' for numeric in table.numeric)
    about = [f'% {" ".join(words.split())}' for words in (table.title, table.caption) if words]
    lines = [*about, r'% \usepackage[T1]{fontenc} \usepackage{booktabs,textcomp}']
    lines += [rf'\begin{{tabular}}{{{alignment}}}', r'\toprule', _line(table.header), r'\midrule']
    for row, kind in zip(table.rows, table.kinds, strict=True):
        lines += [r'\midrule'] if kind == 'total' else []
        lines.append(_line(row))
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', ''])


def latex(text: str) -> str:
    r"""Writes plain text as LaTeX, with all marks escaped.

    >>> latex('50 % of a_b')
    '50 \\% of a\\_b'
    """
    return _MARK.sub(lambda mark: _LATEX[mark.group()], ' '.join(text.split()))


def slug(text: str) -> str:
    """Writes a text in the letters of a file name.

    >>> slug('What was stolen: On digits')
    'what_was_stolen_on_digits'
    """
    return re.sub('[^a-z0-9]+', '_', text.lower()).strip('_')


def _line(cells: list[str]) -> str:
    return ' & '.join(map(latex, cells)) + r' \\'
