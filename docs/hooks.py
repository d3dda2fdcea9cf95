"""The pages of the site that are made at its build: home, contributing, changelog, reference.

The reference is read from the registries, the facade, `ssl_extract.config` and the schema of
results, so that it names exactly what a config can name. `mkdocs.yml` calls the two hooks below.
"""

import ast
import inspect
import io
import pathlib
import re
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

from mkdocs.structure.files import File

import ssl_extract
from ssl_extract import config as fields
from ssl_extract import encoders, oracle, ranges, testing, victims
from ssl_extract.api import Answers
from ssl_extract.cli import catalog, experiments
from ssl_extract.encoders.trained import Encoder
from ssl_extract.registry import Registry
from ssl_extract.report import columns
from ssl_extract.runtime import places

ROOT = pathlib.Path(__file__).parent.parent
COPIED = {
    'index.md': 'README.md',
    'contributing.md': 'CONTRIBUTING.md',
    'changelog.md': 'CHANGELOG.md',
}
FUNCTIONS = (
    *('make_oracle', 'collect', 'steal', 'pretrain', 'train_shadows'),
    *('evaluate', 'load', 'results', 'score'),
)
TYPES = (Answers, Encoder, victims.Victim, victims.stored.Stored, oracle.Oracle, encoders.Network)
_SECTION = re.compile(r'(Args|Attributes|Returns|Raises|Yields):$')
_CODE = re.compile(r'(`+[^`]+`+)')
_LINK = re.compile(r'(https?://[^\s)>,]+[^\s)>,.;:])|arXiv[: ](\d{4}\.\d{5})')


def on_config(config: Any) -> Any:
    """Puts the pages of the reference into the navigation."""
    reference = [{title: path} for path, (title, _) in _reference().items()]
    config.nav = [{'Reference': reference} if 'Reference' in item else item for item in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages to those of `docs/`."""
    for page, source in COPIED.items():
        text = (ROOT / source).read_text().replace('](docs/', '](')
        files.append(File.generated(config, page, content=text))
    for path, (_, text) in _reference().items():
        files.append(File.generated(config, path, content=text))
    return files


def _reference() -> dict[str, tuple[str, str]]:
    """Path -> (title in the navigation, Markdown) of each page of the reference."""
    pages = {
        'reference/facade.md': ('The facade', facade()),
        'reference/config.md': ('Fields of an experiment', config_fields()),
        'reference/columns.md': ('Columns of results', result_columns()),
        'reference/experiments.md': ('Experiments', experiment_files()),
    }
    for room, registry in catalog.registries().items():
        pages[f'reference/{room}.md'] = (room.capitalize(), registry_page(room, registry))
    return pages


def registry_page(room: str, registry: Registry) -> str:
    """All names of a registry, by the module that registers them."""
    lines = [f'# {room.capitalize()}', '']
    lines += [f'Every registered {registry.kind}. `ssl-extract list {room}` lists yours too.', '']
    if not registry:
        return '\n'.join([*lines, 'The package registers none; your own modules may.'])
    lines += ['| name | |', '| --- | --- |']
    for name in sorted(registry):
        first = (inspect.getdoc(registry[name]) or '').split('\n\n')[0]
        lines.append(f'| [`{name}`](#{name}) | {_inline(" ".join(first.split()))} |')
    for module in dict.fromkeys(registry.module_of(name) for name in registry):
        lines += ['', f'## `{module}` {{ #{module.replace(".", "-")} }}', '']
        lines += [markdown(inspect.getdoc(sys.modules[module]) or '')]
        for name in sorted(n for n in registry if registry.module_of(n) == module):
            lines += ['', *_entry(name, registry)]
    return '\n'.join(lines)


def _entry(name: str, registry: Registry) -> list[str]:
    factory = registry[name]
    lines = [f'### `{name}` {{ #{name} }}', '', *_call(name, factory), '']
    lines.append(markdown(inspect.getdoc(factory) or ''))
    traits = registry.entries[name].traits
    if traits:
        declared = (
            f'`{trait}` by its arguments' if callable(value) else f'`{trait}={value!r}`'
            for trait, value in traits.items()
        )
        lines += ['', f'Declared: {", ".join(declared)}.']
    return lines


def facade() -> str:
    """The functions of `ssl_extract` for notebooks, and their types."""
    lines = ['# The facade', '', markdown(inspect.getdoc(ssl_extract.api) or '')]
    for name in FUNCTIONS:
        lines += ['', *_object(name, getattr(ssl_extract, name))]
    for name in ('from_function', 'from_flax', 'from_encoder'):
        lines += ['', *_object(f'victims.{name}', getattr(victims, name))]
    lines += ['', *_object('victims.stored.read', victims.stored.read)]
    for name in testing.__all__:
        lines += ['', *_object(f'testing.{name}', getattr(testing, name))]
    lines += ['', '## Types']
    for one in TYPES:
        lines += ['', f'### `{one.__name__}`', '', markdown(inspect.getdoc(one) or '')]
    return '\n'.join(lines)


def _object(name: str, function: Callable) -> list[str]:
    """Its heading, signature as it is written, and docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    signature = source.split('\n')[node.lineno - 1 : node.body[0].lineno - 1]
    documented = markdown(inspect.getdoc(function) or '')
    heading = f'## `{name}` {{ #{name} }}'
    return [heading, '', '```python', *signature, '```', '', documented]


def config_fields() -> str:
    """The fields of `ssl_extract.config.base`, their defaults and their comments."""
    lines = ['# Fields of an experiment', '']
    lines += [
        "An experiment's `get_config()` starts from `ssl_extract.config.base()`, which has",
        '',
    ]
    lines += ['| field | default | numbers | meaning |', '| --- | --- | --- | --- |']
    for field, default, meaning in read_fields(inspect.getsource(fields.base)):
        numbers = ranges.written(fields.RANGES[field]) if field in fields.RANGES else ''
        cells = (f'`{field}`', f'`{default}`' if default else '', numbers, _inline(meaning))
        lines.append(f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |')
    return '\n'.join(lines)


def read_fields(source: str) -> Iterator[tuple[str, str, str]]:
    """(dotted field, default, comment) of each assignment in the source of `config.base`."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string[2:] for t in tokens if t.type == tokenize.COMMENT}
    last = 0
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.Assign):
            field, value = ast.unparse(node.targets[0]).partition('.')[2], ast.unparse(node.value)
            about = [comments[n] for n in range(last + 1, node.end_lineno + 1) if n in comments]
            if field:
                yield field, '' if 'ConfigDict' in value else value, ' '.join(about)
        last = node.end_lineno


def result_columns() -> str:
    """The schema of `results.jsonl`."""
    lines = ['# Columns of results', '', markdown(inspect.getdoc(columns) or ''), '']
    lines += ['| column | title | kind | of |', '| --- | --- | --- | --- |']
    for column in columns.COLUMNS:
        roles = 'all' if column.roles == columns.ROLES else ', '.join(column.roles)
        lines.append(f'| `{column.name}` | {column.title} | {column.kind} | {roles} |')
    return '\n'.join([*lines, '', markdown(inspect.getdoc(columns.Column) or '')])


def experiment_files() -> str:
    """The docstrings of the experiments that come with the package."""
    lines = ['# Experiments', '', 'Each is a name for `--config`, as in `--config=quickstart`.']
    for name in experiments.names():
        source = (places.experiments() / f'{name}.py').read_text()
        lines += ['', f'## `{name}`', '', markdown(ast.get_docstring(ast.parse(source)) or '')]
    return '\n'.join(lines)


def markdown(docstring: str) -> str:
    """A Google-style docstring as Markdown: sections become lists, doctests code."""
    blocks, section = [], ''
    for block in re.split(r'\n\n+', docstring):
        heading, _, rest = block.partition('\n')
        if match := _SECTION.match(heading):
            section = match.group(1)
            blocks += [f'**{section}**', _items(textwrap.dedent(rest), section)]
        elif block.startswith('>>>'):
            blocks.append(f'```pycon\n{block}\n```')
        elif block.startswith('    '):
            blocks.append(_items(textwrap.dedent(block), section) if section else block)
        else:
            section = ''
            blocks.append(_inline(block))
    return '\n\n'.join(blocks)


def _items(text: str, section: str) -> str:
    """The lines of a section as a list; 'Returns' is a paragraph."""
    if section in ('Returns', 'Yields'):
        return _inline(text)
    items = re.split(r'\n(?=\S)', text)
    shown = []
    for item in items:
        name, colon, meaning = ' '.join(item.split()).partition(': ')
        shown.append(f'- `{name}`: {_inline(meaning)}' if colon else f'- {_inline(name)}')
    return '\n'.join(shown)


def _inline(text: str) -> str:
    """Text as Markdown reads it: no HTML outside of code, addresses as links."""
    parts = _CODE.split(text)
    for n in range(0, len(parts), 2):
        plain = parts[n].replace('&', '&amp;').replace('<', '&lt;')
        parts[n] = _LINK.sub(_link, plain)
    return ''.join(parts)


def _link(match: re.Match) -> str:
    address, number = match.groups()
    return f'<{address}>' if address else f'[arXiv {number}](https://arxiv.org/abs/{number})'


def _call(name: str, function: Callable) -> list[str]:
    """A function's signature as code, with one argument a line where it is long."""
    arguments = catalog.parameters(function)
    written = f'{name}({", ".join(arguments)})'
    if len(written) > 80:
        written = '\n'.join([f'{name}(', *(f'    {argument},' for argument in arguments), ')'])
    return ['```python', written, '```']
