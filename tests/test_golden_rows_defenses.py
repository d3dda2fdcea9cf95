"""The rows of every defense, its users, and the tiny experiment are the kept ones."""

import golden_runs
import pytest


@pytest.mark.parametrize('name', ['defenses', 'tiny'])
def test_the_rows_are_the_golden_ones(name, tmp_path):
    golden_runs.check(name, tmp_path)
