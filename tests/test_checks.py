import math

import pytest

from ssl_extract.checks import check_number
from ssl_extract.errors import UserError


@pytest.mark.parametrize(
    ('value', 'bounds'),
    [
        (-1e9, {}),
        (0, {'least': 0}),
        (1, {'most': 1}),
        (1e-9, {'above': 0}),
        (0.999, {'below': 1}),
        (0.5, {'least': 0, 'above': 0, 'most': 1, 'below': 1}),
    ],
)
def test_numbers_within_their_bounds(value, bounds):
    check_number('x', value, **bounds)


@pytest.mark.parametrize(
    ('value', 'bounds', 'said'),
    [
        (math.nan, {}, 'x must be a finite number, got nan'),
        (math.inf, {'above': 0}, 'x must be a finite number above 0, got inf'),
        (True, {}, 'x must be a finite number, got True'),
        ('1', {'least': 0}, "x must be a finite number of at least 0, got '1'"),
        (0, {'above': 0}, 'x must be a finite number above 0, got 0'),
        (1, {'below': 1}, 'x must be a finite number below 1, got 1'),
        (-0.1, {'least': 0}, 'x must be a finite number of at least 0, got -0.1'),
        (2, {'above': 0, 'most': 1}, 'x must be a finite number above 0 and at most 1, got 2'),
    ],
)
def test_other_values(value, bounds, said):
    with pytest.raises(UserError) as caught:
        check_number('x', value, **bounds)
    assert str(caught.value) == said
