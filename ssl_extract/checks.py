"""Checks of a factory's arguments."""

import math
import numbers
from typing import Any

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry


def check_number(
    name: str,
    value: Any,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Checks that an argument is a finite number within bounds.

    >>> check_number('rate', 0.5, above=0, most=1)

    Raises:
        UserError: the value is another; the message names the argument and the bounds.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (
        real
        and math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        bounds = (('of at least', least), ('above', above), ('at most', most), ('below', below))
        words = ' and '.join(f'{word} {bound:g}' for word, bound in bounds if bound is not None)
        raise UserError(f'{name} must be a finite number{words and " " + words}, got {value!r}')


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Checks that an argument is a whole number from `least` to `most`.

    Raises:
        UserError: the value is another; the message names the argument and the bounds.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= least and (most is None or value <= most)):
        bound = f'of at least {least}' if most is None else f'from {least} to {most}'
        raise UserError(f'{name} must be a whole number {bound}, got {value!r}')


def check_least_batch(field: str, batch_size: int, *parts: tuple[Registry, str]) -> None:
    """Checks that a batch is large enough for parts that compare the inputs of a batch.

    A contrastive loss of one input is a constant: nothing would be trained, and the queries billed.

    Args:
        field: the name of the batch size in an error message.
        batch_size: inputs in a batch, over all devices.
        *parts: registries with the trait `least_batch`, and a spec of each.

    Raises:
        UserError: the batch is smaller than the `least_batch` of a part.
    """
    for registry, spec in parts:
        least = registry.traits(spec).least_batch
        if batch_size < least:
            raise UserError(
                f'{field}={batch_size}: {registry.kind} {spec!r} compares the inputs of a batch, '
                f'and learns nothing from {batch_size}; write at least {least}'
            )
