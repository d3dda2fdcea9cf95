"""The structure of the package: who reads a config, who knows titles, who imports whom."""

import ast
import pathlib
import re

import pytest

from ssl_extract.report import columns

PACKAGE = pathlib.Path(__file__).parent.parent / 'ssl_extract'
MODULES = sorted(PACKAGE.rglob('*.py'))
IMPORTS = ast.Import | ast.ImportFrom
# Rooms from the ground up: a room imports from those before it, and from none after it.
ROOMS = (
    *('errors', 'fingerprint', 'numerics', 'padding', 'ranges'),
    *('checks', 'registry', 'contract', 'identity'),
    'runtime',
    *('augment', 'data', 'losses', 'defenses', 'encoders', 'report'),
    *('training', 'evaluation', 'strategies', 'recovery'),
    *('attacks', 'victims', 'users', 'ownership'),
    *('oracle', 'config'),
    *('serve', 'sweeps'),
    *('pipeline', 'studies', 'api', 'testing'),
    'cli',
)


def name_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def room_of(module: str) -> str:
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else ''


def imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == 'ssl_extract':
            yield from (f'ssl_extract.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('ssl_extract.'):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith('ssl_extract.'))


@pytest.mark.parametrize('path', MODULES, ids=name_of)
def test_a_room_imports_from_the_rooms_below_it(path):
    own = name_of(path).removesuffix('.py').split('/')[1]
    if own == '__init__':
        return  # the facade, which imports nothing before it is used
    for module in imports(path):
        other = room_of(module)
        assert other == own or ROOMS.index(other) < ROOMS.index(own), (name_of(path), module)


def functions_of_a_config():
    """(module, function) of all that take a whole config."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                notes = [ast.unparse(a.annotation) for a in taken if a.annotation is not None]
                if any('ConfigDict' in note for note in notes):
                    yield name_of(path), node.name


def test_only_the_pipeline_and_the_command_read_a_config():
    readers = {name_of(path) for path in MODULES if 'ConfigDict' in path.read_text()}
    allowed = ('ssl_extract/pipeline/', 'ssl_extract/cli', 'ssl_extract/config.py')
    assert readers and all(name.startswith(allowed) for name in readers), readers
    assert len(list(functions_of_a_config())) < 20


def test_only_encoders_know_flax_and_only_checkpoints_know_orbax():
    for word, allowed in {
        'flax.linen': 'ssl_extract/encoders/',
        'orbax': 'ssl_extract/runtime/checkpoint.py',
    }.items():
        for path in MODULES:
            code = '\n'.join(
                ast.unparse(node)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, IMPORTS)
            )
            assert word not in code or name_of(path).startswith(allowed), name_of(path)


def test_nothing_slow_is_imported_when_the_command_starts():
    """Each of these takes a second, and scikit-learn brings pandas; functions import them."""
    slow = (
        'sklearn',
        'scipy.stats',
        'pandas',
        'matplotlib',
        'grain',
        'onnx',
        'torch',
        'tensorflow',
    )
    for path in MODULES:
        if 'figures' not in name_of(path):
            nodes = [n for n in ast.parse(path.read_text()).body if isinstance(n, IMPORTS)]
            code = '\n'.join(map(ast.unparse, nodes))
            found = [word for word in slow if re.search(rf'(import|from) {word}\b(?!_)', code)]
            assert not found, (name_of(path), found)


def test_no_module_is_longer_than_an_afternoon():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_only_the_report_knows_titles_of_columns():
    titles = {title for title in columns.TITLES.values() if ' ' in title}
    assert len(titles) > 5
    for path in MODULES:
        if '/report/' not in name_of(path):
            texts = {n.value for n in ast.walk(ast.parse(path.read_text())) if is_text(n)}
            assert not titles & texts, name_of(path)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_spec_is_taken_apart_for_its_name():
    """What others must know of a name is a trait of its registry."""
    for path in MODULES:
        if path.name not in ('registry.py', 'loading.py') and '/report/' not in name_of(path):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    called = node.func.attr in ('partition', 'split', 'startswith')
                    first = node.args[0].value if node.args and is_text(node.args[0]) else ''
                    assert not (called and first.endswith('(')), (name_of(path), node.lineno)
