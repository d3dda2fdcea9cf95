"""The rows of every attack are the kept ones, and every registered part is in a kept row.

Those of the defenses are in test_golden_rows_defenses.py, for another worker.
"""

import all_attacks
import golden_runs
import pytest
from golden_runs import CLOSE, EXACT, WHO, differences

from ssl_extract import attacks, defenses, users
from ssl_extract.registry import parse_call, split_chain

GOLDEN = golden_runs.read()


@pytest.mark.parametrize('name', ['attacks', pytest.param('more_attacks', marks=pytest.mark.wide)])
def test_the_rows_of_the_attacks_are_the_golden_ones(name, tmp_path):
    golden_runs.check(name, tmp_path)


def test_their_bills_follow_from_plan_and_budget():
    kept = golden_runs.of('attacks') + golden_runs.of('more_attacks')
    surrogates = [row for row in kept if row['role'] == 'surrogate']
    assert len(
        {golden_runs.name_of(row | {'task': '', 'metric': ''}) for row in surrogates}
    ) == len(golden_runs.EACH)
    for row in surrogates:
        billed, unique, repeated, refused = (
            row[f'queries_{kind}'] for kind in ('billed', 'unique', 'repeated', 'refused')
        )
        assert billed == unique + repeated
        if 'rate_limit' in row['defense']:
            assert 0 < billed <= 120 and refused > 0
            continue
        assert billed == all_attacks.BUDGET == row['budget'] and row['dollars'] > 0
        if row['plan'] == 'online':
            continue
        assert refused == 0
        asked_again = {'repeat(m=2)': 68}.get(row['plan'], 0)
        if row['plan'].startswith('near_duplicates'):  # two copies may be changed in one place
            assert repeated < 5
        elif 'orthogonal' in row['defense']:
            assert repeated == golden_runs.SYBILS['attack.overlap']
        else:
            assert repeated == asked_again


def own(registry):
    """The names that the package registers, whatever other tests add."""
    return {name for name, made in registry.items() if made.__module__.startswith('ssl_extract.')}


def parts_of(defense):
    """The names in a chain of defenses, those that a detector turns to included."""
    for part in split_chain(defense):
        name, _, kwargs = parse_call(part)
        yield name
        yield from parts_of(kwargs.get('then', ''))


def test_every_attack_is_in_a_golden_row():
    ran = {parse_call(row['attack'])[0] for row in GOLDEN if 'attack' in row}
    assert own(attacks.ATTACKS) <= ran


def test_every_defense_is_in_a_golden_row():
    ran = {name for row in GOLDEN for name in parts_of(row.get('defense', ''))}
    assert own(defenses.DEFENSES) <= ran


def test_every_kind_of_user_is_in_a_golden_row_of_a_defended_victim():
    ran = {parse_call(row['user'])[0] for row in GOLDEN if 'user' in row and row['defense']}
    assert own(users.USERS) <= ran


@pytest.mark.parametrize('name', golden_runs.EXPERIMENTS)
def test_golden_rows_have_names_of_their_own(name):
    golden = golden_runs.of(name)
    assert golden and len({golden_runs.name_of(row) for row in golden}) == len(golden)


class TestDifferences:
    ROW = {
        'role': 'surrogate',
        'attack': 'direct',
        'task': 'digits',
        'metric': 'knn',
        'value': 0.5,
        'n': 100,
        'queries_billed': 41,
    }

    def found(self, *rows):
        return differences([self.ROW, self.ROW | {'metric': 'cka', 'value': 0.3}], list(rows))

    def changed(self, **columns):
        return self.found(self.ROW | columns, self.ROW | {'metric': 'cka', 'value': 0.3})

    def test_new_columns_and_another_order_are_none(self):
        cka = self.ROW | {'metric': 'cka', 'value': 0.3}
        assert not self.found(cka, self.ROW | {'stage': 'late', 'seconds': 3.0, 'plan': None})

    def test_the_row_and_the_column_are_named(self):
        (line,) = self.changed(queries_billed=42)
        assert line == (
            "role='surrogate', attack='direct', task='digits', metric='knn': "
            'queries_billed was 41 and is 42'
        )

    @pytest.mark.parametrize('column', [*CLOSE, *EXACT])
    def test_every_column_counts(self, column):
        (line,) = self.changed(**{column: 7})
        assert f': {column} was ' in line
        (line,) = self.changed(**{column: None if column in self.ROW else 0})
        assert f': {column} was ' in line

    @pytest.mark.parametrize('column', WHO)
    def test_another_name_is_another_row(self, column):
        gone, new = self.changed(**{column: 'other'})
        assert 'no such row any more' in gone and 'no golden row is called so' in new

    def test_a_row_that_is_there_twice(self):
        cka = self.ROW | {'metric': 'cka', 'value': 0.3}
        (line,) = self.found(self.ROW, self.ROW, cka)
        assert '2 rows are called so, not 1' in line
