"""The words of the project: titles of modules, spelling, one word for one thing."""

import ast
import pathlib
import re

import pytest

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
