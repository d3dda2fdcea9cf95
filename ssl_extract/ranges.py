"""Ranges of numbers in annotations, and their words.

A parameter states its range beside its type, by one of the names below or by a `Range`:

    def tail(width: Annotated[int, Range(1, 64)] = 8, delta: Positive = 1.0) -> Head: ...
"""

import dataclasses
import inspect
import math
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

# Sizes of a number that is not 0: float32 holds its square, also summed over a million values.
SMALLEST, LARGEST = 1e-15, 1e15


@dataclasses.dataclass(frozen=True)
class Range:
    """The accepted values of a number; None is no bound.

    >>> 0.5 in Range(0, 1), 1 in Range(below=1), 2 in Range(above=0, most=1)
    (True, False, False)

    Attributes:
        least, most: the bounds that are accepted themselves.
        above, below: the bounds that are not.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: Any) -> bool:
        """Checks a number, which float32 must tell from the bounds that are not accepted."""
        strict = value if isinstance(value, int) else float(np.float32(value))
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or strict > self.above)
            and (self.below is None or strict < self.below)
        )

    def __str__(self) -> str:
        """Writes the range: 'from 0 to 1', 'above 0 and at most 1'; '' without bounds."""
        if self.least is not None and self.most is not None:
            return f'from {_plain(self.least)} to {_plain(self.most)}'
        bounds = (
            ('of at least', self.least),
            ('above', self.above),
            ('at most', self.most),
            ('below', self.below),
        )
        return ' and '.join(f'{word} {_plain(b)}' for word, b in bounds if b is not None)


Real = Annotated[float, Range()]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(0, 1)]  # a probability too
PositiveShare = Annotated[float, Range(above=0, most=1)]
Decay = Annotated[float, Range(least=0, below=1)]  # of a running mean
Count = Annotated[int, Range(1, 2**31 - 1)]
Whole = Annotated[int, Range(0, 2**31 - 1)]
Width = Annotated[int, Range(1, 2**16)]  # of a layer or an answer


def accepts(annotation: Any, value: Any) -> bool:
    """Returns whether a value is of the type of an annotation, and in its ranges.

    >>> accepts(float, 3), accepts(int, 3.0), accepts(int | None, None), accepts(str, 3)
    (True, False, True, False)
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        ranges = [part for part in annotation.__metadata__ if isinstance(part, Range)]
        return accepts(parts[0], value) and all(value in part for part in ranges)
    if origin in (typing.Union, types.UnionType):
        return any(accepts(part, value) for part in parts)
    if origin in (tuple, list, Sequence):
        return isinstance(value, tuple | list) and _accepts_items(origin, parts, value)
    if annotation is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return real and (value == 0 or SMALLEST <= abs(value) <= LARGEST)
    if annotation is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if annotation in (None, types.NoneType):
        return value is None
    return isinstance(value, annotation) if annotation in (bool, str) else True


def _accepts_items(origin: Any, parts: tuple, values: Sequence[Any]) -> bool:
    if origin is tuple and parts[-1] is not ...:
        return len(values) == len(parts) and all(map(accepts, parts, values))
    return all(accepts(parts[0], value) for value in values)


def accepted(annotation: Any) -> str:
    """Writes what an annotation accepts, for an error message.

    >>> accepted(Count | None)
    'a whole number from 1 to 2147483647 or None'
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return f'{accepted(parts[0])} {ranges_of(annotation)}'.rstrip()
    if origin in (typing.Union, types.UnionType):
        return ' or '.join(map(accepted, parts))
    if origin is tuple and parts[-1] is not ...:
        return f'a list of {len(parts)}: {", ".join(map(accepted, parts))}'
    if origin in (tuple, list, Sequence):
        return f'a list, each item {accepted(parts[0])}'
    words = {float: 'a finite number', int: 'a whole number', bool: 'True or False', str: 'a text'}
    return words.get(annotation) or written(annotation)


def written(annotation: Any) -> str:
    """Writes an annotation with its ranges, as the command `list` and the reference show it.

    >>> written(Annotated[float, Range(above=0)] | None), written(tuple[Width, ...])
    ('float above 0 | None', 'tuple[int from 1 to 65536, ...]')
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return f'{written(parts[0])} {ranges_of(annotation)}'.rstrip()
    if origin in (typing.Union, types.UnionType):
        return ' | '.join(map(written, parts))
    if origin in (tuple, list):
        items = ('...' if part is ... else written(part) for part in parts)
        return f'{origin.__name__}[{", ".join(items)}]'
    return 'None' if annotation is types.NoneType else inspect.formatannotation(annotation)


def ranges_of(annotation: Any) -> str:
    """Writes the ranges in an `Annotated` type; '' where there is none."""
    ranges = [part for part in annotation.__metadata__ if isinstance(part, Range)]
    return ' and '.join(filter(None, map(str, ranges)))


def size_note(annotation: Any, value: Any) -> str:
    """Explains the refusal of a number that is too large or too small; '' of any other value."""
    real = isinstance(value, numbers.Real) and value != 0 and abs(value) != math.inf
    if not real or value != value or not _holds_floats(annotation):
        return ''
    fits = SMALLEST <= abs(value) <= LARGEST
    return '' if fits else f'; a number is 0, or from {SMALLEST:g} to {LARGEST:g} in size'


def _holds_floats(annotation: Any) -> bool:
    return annotation is float or any(map(_holds_floats, typing.get_args(annotation)))


def _plain(bound: float) -> str:
    return f'{bound:g}' if isinstance(bound, float) else str(bound)
