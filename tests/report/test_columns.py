"""The schema of columns: what it says of itself, and that no other room repeats it."""

import ast
import pathlib

import ssl_extract
from ssl_extract import config
from ssl_extract.report import columns, estimates, results

PACKAGE = pathlib.Path(ssl_extract.__file__).parent
MODULES = [p for p in PACKAGE.rglob('*.py') if p.parts[len(PACKAGE.parts)] != 'report']


def test_names_and_titles_are_unique_and_every_field_exists():
    assert len(set(columns.NAMES)) == len(set(columns.TITLES.values())) == len(columns.COLUMNS)
    fields = [field for column in columns.COLUMNS for field in column.fields]
    assert len(set(fields)) == len(fields)
    assert {*fields, *columns.SEEDS} <= results.flatten(config.base().to_dict()).keys()


def test_an_estimate_has_every_condition():
    assert {*estimates.CONDITION} == {*columns.CONDITIONS, 'fields'}


def test_no_other_module_has_a_title_or_a_list_of_the_columns():
    titles = {column.title for column in columns.COLUMNS if len(column.title.split()) > 1}
    assert len(MODULES) > 50
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                assert node.value not in titles, f'{path}:{node.lineno} {node.value!r}'
            if isinstance(node, ast.List | ast.Tuple | ast.Set):
                texts = {e.value for e in node.elts if isinstance(e, ast.Constant)}
                assert len(texts & {*columns.NAMES}) < 5, f'{path}:{node.lineno}'


def test_a_field_that_follows_from_the_budget_is_said_once():
    rows = [
        {'role': 'surrogate', 'budget': budget, 'attack.epochs': epochs, 'attack.loss_scale': scale}
        for budget, epochs in ((500, 40), (1_000, 25))
        for scale in (1, 2)
    ]
    rows += [{'role': 'victim', 'budget': None, 'attack.epochs': None, 'victim.epochs': 5}]
    kept, followers = columns.split_followers(rows)
    assert followers == {'attack.epochs': {500: 40, 1_000: 25}}
    assert [row.get('attack.loss_scale') for row in kept] == [1, 2, 1, 2, None]
    assert all('attack.epochs' not in row for row in kept)
    victims = [row | {'victim.epochs': row['budget']} for row in rows[:4]]
    assert 'victim.epochs' not in columns.split_followers(victims)[1]
    rows[1]['attack.epochs'] = 41
    assert columns.split_followers(rows) == (rows, {})
