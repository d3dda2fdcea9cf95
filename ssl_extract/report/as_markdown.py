"""A report as GitHub-flavored Markdown."""

import re
from collections.abc import Iterator

from ssl_extract.report.parts import Picture, Report
from ssl_extract.report.tables import Table


def markdown(report: Report) -> str:
    """Renders the report as GitHub-flavored Markdown; pictures are links to `figures/`."""
    lines = [f'# {_escape(report.title)}', '']
    if report.facts:
        lines += [' · '.join(f'{name}: {_escape(value)}' for name, value in report.facts), '']
    for sentence in report.summary:
        lines += [_escape(sentence), '']
    for section in report.sections:
        lines += [f'## {_escape(section.title)}', '']
        for item in section.items:
            if isinstance(item, Picture):
                lines += [f'![{_escape(item.alt)}](figures/{item.name}.png)', '']
                lines += [_escape(item.caption), '']
            else:
                lines += _table(item)
    if report.config:
        lines += ['## Configuration', '']
        lines += [_fenced(report.command, 'sh'), ''] if report.command else []
        lines += _table(report.changes) if report.changes else []
        title = 'Everything this report was made with'
        lines += _folded(title, [_fenced(report.config, 'json')])
    if report.glossary:
        terms = [f'- **{term}**: {meaning}' for term, meaning in report.glossary]
        lines += _folded('Glossary', terms)
    return '\n'.join(lines)


def _escape(text: str) -> str:
    """Writes plain text as Markdown, with all marks and HTML escaped."""
    text = re.sub(r'([\\`*|\[\]])', r'\\\1', ' '.join(text.split()))
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield from (f'### {_escape(table.title)}', '')
    rules = ['---:' if numeric else '---' for numeric in table.numeric]
    rows = ([_cell(cell, table) for cell in row] for row in table.rows)
    for cells in (map(_escape, table.header), rules, *rows):
        yield f'| {" | ".join(cells)} |'
    yield ''
    if table.caption:
        yield from (_escape(table.caption), '')


def _cell(cell: str, table: Table) -> str:
    address = table.links.get(cell)
    return f'[{_escape(cell)}](<{address}>)' if address else _escape(cell)


def _folded(title: str, lines: list[str]) -> list[str]:
    return ['<details>', f'<summary>{title}</summary>', '', *lines, '', '</details>', '']


def _fenced(text: str, language: str) -> str:
    fence = '`' * max([3, *(len(run) + 1 for run in re.findall('`{3,}', text))])
    return f'{fence}{language}\n{text}\n{fence}'
