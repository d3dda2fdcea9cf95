"""Checks of arguments, made in a factory before any work."""

import math
import numbers
from typing import Any

from ssl_extract.errors import UserError


def check_number(name: str, value: Any, least: float = -math.inf) -> None:
    """Stops an argument that is not a finite number of at least `least`.

    Raises:
        UserError: names the argument, its value, and what to write instead.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and value >= least):
        bound = f' of at least {least:g}' if least > -math.inf else ''
        raise UserError(f'{name} must be a finite number{bound}, got {value!r}')


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Stops an argument that is not a whole number from `least` to `most`.

    Raises:
        UserError: names the argument, its value, and what to write instead.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= least and (most is None or value <= most)):
        bound = f'of at least {least}' if most is None else f'from {least} to {most}'
        raise UserError(f'{name} must be a whole number {bound}, got {value!r}')
