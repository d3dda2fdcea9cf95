"""Checks of arguments, by the types and ranges in annotations.

    @losses.register('huber')
    def huber(delta: Annotated[float, Range(above=0)] = 1.0) -> Loss: ...

Every call of a registered factory is checked: numbers for their type and range, texts, lists and
`True or False` for their type. Annotations of other types are not checked.
"""

import contextlib
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import wrapt

from ssl_extract.errors import UserError
from ssl_extract.ranges import Range, accepted, accepts, size_note, written

Function = TypeVar('Function', bound=Callable[..., Any])
_SHOWN = 120  # characters of a value in a message


def check(name: str, value: Any, annotation: Any) -> None:
    """Checks a value against the type and the ranges of an annotation.

    >>> check('stages', (2, 2), tuple[int, ...])

    Raises:
        UserError: the value is another; the message names the argument and what it must be.
    """
    if not accepts(annotation, value):
        note = size_note(annotation, value)
        raise UserError(f'{name} must be {accepted(annotation)}, got {shown(value)}{note}')


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
    check(name, value, Annotated[float, Range(least, most, above, below)])


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Checks that an argument is a whole number from `least` to `most`.

    Raises:
        UserError: the value is another; the message names the argument and the bounds.
    """
    check(name, value, Annotated[int, Range(least, most)])


def machine_memory() -> int:
    """Returns the memory that this process may use, in bytes.

    That is the machine's, or less where a container or a job of Slurm has a limit.
    """
    whole = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    try:
        groups = pathlib.Path('/proc/self/cgroup').read_text()
    except OSError:  # not Linux
        return whole
    return min([whole, *memory_limits(groups, pathlib.Path('/sys/fs/cgroup'))])


def memory_limits(groups: str, root: pathlib.Path) -> list[int]:
    """Returns the limits of memory of control groups, of version 1 and 2, in bytes.

    A group is bound by those that it is part of. A container sees its own group at the root, and
    not where its path says.

    Args:
        groups: of a process, as in /proc/self/cgroup.
        root: the folder of all control groups.
    """
    limits = []
    for line in groups.splitlines():
        _, controllers, path = line.split(':', 2)
        if controllers and 'memory' not in controllers.split(','):
            continue
        top, name = (
            (root / 'memory', 'memory.limit_in_bytes') if controllers else (root, 'memory.max')
        )
        inner = top / path.strip('/')
        for folder in (inner, *inner.parents[: len(inner.parts) - len(top.parts)]):
            with contextlib.suppress(OSError, ValueError):  # not there; 'max'
                limits.append(int((folder / name).read_text()))
    return limits


def check_memory(what: str, num_bytes: int, advice: str = 'write less') -> None:
    """Checks that an array fits into the memory of the machine.

    >>> check_memory('data.size=32: 1,000 images', 1_000 * 32 * 32 * 3)

    Args:
        what: the beginning of the message: the field, its value and the array.
        num_bytes: the size of the array.
        advice: the end of the message: what to write instead.

    Raises:
        UserError: the array is larger than the whole memory.
    """
    memory = machine_memory()
    if num_bytes > memory:
        raise UserError(
            f'{what} would take {num_bytes / 2**30:,.0f} GiB, and this machine has '
            f'{memory / 2**30:,.0f} GiB of memory: {advice}'
        )


def checked(function: Function) -> Function:
    """Makes a function check the arguments of its calls; signature and docstring stay.

    An argument that is left out, or given as its default, is not checked.

    >>> double = checked(lambda x: 2 * x)  # without annotations nothing is checked
    >>> double('a')
    'aa'
    """
    parameters = parameters_of(function)
    if all(accepts(p.annotation, _OTHER) for p in parameters.values()):
        return function

    @wrapt.decorator
    def call(wrapped: Callable, instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        bound = inspect.signature(wrapped).bind(*args, **kwargs)
        check_arguments(parameters, bound.arguments)
        return wrapped(*args, **kwargs)

    return call(function)


def check_arguments(
    parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    """Checks the arguments of a call against the annotations of the parameters.

    Raises:
        UserError: an argument is of another type or out of its range.
    """
    for name, value in arguments.items():
        parameter = parameters[name]
        if value is not parameter.default:
            check(name, value, parameter.annotation)


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a function; annotations written as text are evaluated."""
    try:
        return inspect.signature(function, eval_str=True).parameters
    except NameError:  # of names that are imported for a type checker only
        return inspect.signature(function).parameters


class _Other:
    """A value of a type that no checked annotation accepts."""


_OTHER = _Other()


def written_parameter(parameter: inspect.Parameter) -> str:
    """Writes a parameter with the type that a spec can hold, the range and the default.

    >>> def views(m: Annotated[int, Range(1, 9)], weights: tuple[float, ...], sort=sorted): ...
    >>> ', '.join(map(written_parameter, inspect.signature(views).parameters.values()))
    'm: int from 1 to 9, weights: tuple[float, ...], sort=...'
    """
    kind = written(parameter.annotation)
    typed = parameter.annotation is not parameter.empty and not re.search(r'[a-z_]\.', kind)
    text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
    text += f': {kind}' if typed else ''
    if parameter.default is parameter.empty:
        return text
    default = '...' if callable(parameter.default) else repr(parameter.default)
    return f'{text} = {default}' if typed else f'{text}={default}'


def shown(value: Any) -> str:
    """Writes a value for an error message, on one line and not too long.

    >>> shown('a' * 1000)[-9:]
    "aaa...aa'"
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return 'a number of thousands of digits'
    text = ' '.join(text.splitlines())
    return text if len(text) <= _SHOWN else f'{text[: _SHOWN - 6]}...{text[-3:]}'
