"""The words of the project: titles of modules, spelling, one word for one thing."""

import ast
import inspect
import pathlib
import re

import pytest

from ssl_extract.cli import catalog

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted((ROOT / 'ssl_extract').rglob('*.py'))
RIDDLES = ('What', 'Whatever', 'Whether', 'Which', 'Who', 'Whoever', 'Whose', 'How')
BRITISH = (
    'analysed?|artefact|behaviours?|catalogue|cent(re|red)|colours?|defences?|favour(able)?|'
    'generalised?|grey|honour|initialised?|labell(ed|ing)|licence|metre|minimised?|modell(ed|ing)|'
    'neighbour(s|ing)?|normalised?|optimised?|organisation|penalised?|recognised?|summarised?|'
    'travelled|unlabelled|visualised?'
)
FORBIDDEN = re.compile(rf'\b({BRITISH}|thief|thieves)\b', re.IGNORECASE)
WRITTEN = [
    path
    for pattern in ('*.md', 'docs/**/*', 'experiments/*.py', 'benchmarks/*.py', 'examples/*.py')
    for path in ROOT.glob(pattern)
    if path.suffix in ('.md', '.py')
]

VERB = re.compile(r'[A-Z][a-z]+(-[a-z]+)*s[:,]?$')
# The rooms whose functions are checked; a room joins the list once it is in order.
ROOMS = (
    *('api', 'attacks', 'augment', 'cli', 'data', 'defenses', 'encoders', 'evaluation', 'losses'),
    *('oracle', 'pipeline', 'recovery', 'report', 'runtime', 'serve', 'strategies', 'studies'),
    *('sweeps', 'testing', 'training', 'users', 'victims'),
)
# A metric needs the features of a whole task, which no example of five lines makes.
WITHOUT_EXAMPLES = ('metrics', 'tasks')
REGISTERED = [
    pytest.param(registry[name], id=f'{room}-{name}')
    for room, registry in catalog.registries().items()
    for name in registry
    if room not in WITHOUT_EXAMPLES and registry.module_of(name).startswith('ssl_extract.')
]


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_a_title_that_names_it(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, 'the module has no docstring'
    title, *rest = docstring.split('\n')
    assert len(title) <= 72 and title.endswith(('.', ':')), title
    assert title.split()[0].strip(':,') not in RIDDLES, title
    assert not rest or rest[0] == '', 'an empty line follows the title'


def test_spelling_is_american_and_attackers_are_attackers():
    assert len(MODULES) > 100 and len(WRITTEN) > 20
    tests = [path for path in ROOT.glob('tests/**/*.py') if path != pathlib.Path(__file__)]
    found = {
        f'{path.relative_to(ROOT)}: {match.group()}'
        for path in (*MODULES, *WRITTEN, *tests)
        for match in FORBIDDEN.finditer(path.read_text())
    }
    assert found == set()


@pytest.mark.parametrize('room', ROOMS)
def test_the_docstring_of_a_function_starts_with_a_verb(room):
    functions = [
        node
        for path in sorted((ROOT / 'ssl_extract' / room).rglob('*.py'))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)
    ]
    assert functions
    first = {f'{node.name}: {ast.get_docstring(node).split()[0]}' for node in functions}
    assert {words for words in first if not VERB.fullmatch(words.split(': ', 1)[1])} == set()


@pytest.mark.parametrize('factory', REGISTERED)
def test_every_registered_factory_has_an_example_of_at_most_five_lines(factory):
    lines = (inspect.getdoc(factory) or '').splitlines()
    assert 1 <= sum(line.strip().startswith(('>>>', '...')) for line in lines) <= 5
