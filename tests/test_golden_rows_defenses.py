"""The rows of every defense, its users, and the tiny experiment are the kept ones."""

import golden_runs
import pytest

# test_launch.py runs the tiny experiment whole.
WIDE = [pytest.param(name, marks=pytest.mark.wide) for name in ('simple_defenses', 'tiny')]


@pytest.mark.parametrize('name', ['defenses', *WIDE])
def test_the_rows_are_the_golden_ones(name, tmp_path):
    golden_runs.check(name, tmp_path)
