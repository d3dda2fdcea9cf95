"""The command `list`: all registered names with their signatures."""

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ssl_extract import checks
from ssl_extract.cli import arguments, experiments
from ssl_extract.errors import UserError
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.registry import Registry


def main(argv: list[str]) -> int:
    """Prints the named rooms, or all rooms.

    Args:
        argv: the program's name, rooms and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: there is no such room, module or flag.
    """
    values = arguments.new_values('list')
    wanted = arguments.parse(values, argv)
    import_modules(tuple(values.modules))
    available = rooms()
    for name in wanted:
        if name not in available:
            raise UserError(f'list {name}: there is no such room; write {", ".join(available)}')
    print('\n\n'.join(f'{name}\n{_indented(available[name])}' for name in wanted or available))
    return 0


def rooms() -> dict[str, list[tuple[str, str]]]:
    """Returns the entries of each registry and of the experiments: (signature, description)."""
    described = {name: _described(registry) for name, registry in registries().items()}
    return described | {'experiments': list(experiments.names().items())}


def registries() -> dict[str, Registry]:
    """Returns all registries in alphabetical order, `LOSSES` under the name 'losses'."""
    importlib.import_module('ssl_extract.pipeline.run')  # imports all that a config can name
    importlib.import_module('ssl_extract.ownership')
    modules = [m for name, m in sorted(sys.modules.items()) if name.startswith('ssl_extract.')]
    named = {
        name.lower(): registry
        for module in modules
        for name, registry in vars(module).items()
        if isinstance(registry, Registry)
    }
    return dict(sorted(named.items()))


def _described(registry: Mapping[str, Callable[..., Any]]) -> list[tuple[str, str]]:
    return [
        (f'{name}({signature(registry[name])})', (inspect.getdoc(registry[name]) or ''))
        for name in sorted(registry)
    ]


def signature(factory: Callable[..., Any]) -> str:
    """Writes the arguments of a factory, with the types and ranges that a spec can hold.

    >>> def views(m: int, weights: tuple[float, ...] = (1.0,), sort: Callable = sorted): ...
    >>> signature(views)
    'm: int, weights: tuple[float, ...] = (1.0,), sort=...'
    """
    return ', '.join(parameters(factory))


def parameters(factory: Callable[..., Any]) -> list[str]:
    """Writes the arguments of a factory, one by one; see `signature`."""
    return [checks.written_parameter(p) for p in checks.parameters_of(factory).values()]


def _indented(entries: list[tuple[str, str]]) -> str:
    lines = [] if entries else ['  (nothing is registered)']
    for written, description in entries:
        lines += textwrap.wrap(written, 100, initial_indent='  ', subsequent_indent='      ')
        summary = description.split('\n\n')[0]
        lines += textwrap.wrap(summary, 100, initial_indent='      ', subsequent_indent='      ')
    return '\n'.join(lines)
