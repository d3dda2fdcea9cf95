"""The rows of every defense, its users, and the tiny experiment are the kept ones."""

import golden_runs
import pytest


# test_launch.py runs the tiny experiment whole.
@pytest.mark.parametrize('name', ['defenses', pytest.param('tiny', marks=pytest.mark.wide)])
def test_the_rows_are_the_golden_ones(name, tmp_path):
    golden_runs.check(name, tmp_path)
