"""Experiment files, by name or path."""

import ast
import contextlib
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from ssl_extract import config as config_lib
from ssl_extract.errors import UserError, place_of, told_with_place
from ssl_extract.runtime import places


class Experiment(NamedTuple):
    """The title and the config of a loaded experiment file.

    Attributes:
        title: the file's name, with the argument where there is one.
        config: the result of the file's `get_config()`.
    """

    title: str
    config: ml_collections.ConfigDict


def names() -> dict[str, str]:
    """Returns the names that `--config` resolves, each with the title of its file.

    >>> names()['quickstart']
    'Steal a small SimCLR encoder of handwritten digits, with and without a defense.'
    """
    return {
        path.stem: _title(path)
        for path in sorted(places.experiments().glob('*.py'))
        if not path.stem.startswith('_')
    }


def _title(path: pathlib.Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes(), str(path)))
    except SyntaxError as error:
        return told_with_place(error)
    return (docstring or '').split('\n')[0]


def find(text: str) -> tuple[pathlib.Path, str]:
    """Finds the file of `'quickstart'`, `'paper:rda'` or `'my/file.py:argument'`.

    Returns:
        The file, and the argument behind the colon or ''.

    Raises:
        UserError: there is no such name or file.
    """
    name, _, argument = text.partition(':')
    is_path = name.endswith('.py') or '/' in name
    path = (
        pathlib.Path(os.path.expanduser(name)) if is_path else places.experiments() / f'{name}.py'
    )
    if path.suffix != '.py' or not path.is_file():
        is_folder = bool(name) and pathlib.Path(name).is_dir()
        what = 'file' if is_path else 'experiment'
        wrong = 'this is a folder' if is_folder else f'there is no such {what}'
        raise UserError(
            f'--config={name}: {wrong}; write the path of a .py file, or one of '
            f'{", ".join(names())}'
        )
    return path.absolute(), argument


def load(text: str) -> Experiment:
    """Loads an experiment by its name or path; its file may import its neighbors.

    Raises:
        UserError: there is no such experiment, or its file does not give a config.
    """
    path, argument = find(text)
    with _neighbors(path.parent):
        try:
            get_config = getattr(_module(path), 'get_config', None)
            config = _call(get_config, argument, f'--config={text}')
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            _check_fields(error)
            raise UserError(f'--config={text}: {told_with_place(error)}') from error
    _check_config(config, f'--config={text}')
    return Experiment(f'{path.stem}_{argument}' if argument else path.stem, config)


def _check_config(config: Any, where: str) -> None:
    """Raises UserError if an experiment's result is not made from `config.base()`."""
    frozen = ml_collections.FrozenConfigDict
    if isinstance(config, ml_collections.ConfigDict) and not isinstance(config, frozen):
        names = config_lib.field_names(config)
        missing = [n for n in config_lib.field_names(config_lib.base()) if n not in names]
        wrong = f'a config without {missing[0]}' if missing else ''
    else:
        wrong = f'{type(config).__name__} {config!r:.40}'
    if wrong:
        raise UserError(
            f'{where}: its get_config() returned {wrong}; start it from '
            'ssl_extract.config.base() and return that'
        )


def _check_fields(error: BaseException) -> None:
    """Raises UserError if an experiment's file names a field that its config does not have."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names = frame.f_locals
        group, name = names.get('self'), names.get('attribute', names.get('key'))
        if isinstance(group, ml_collections.ConfigDict) and isinstance(name, str):
            config_lib.check_field(group, name, f'{place_of(error)}{name}')


@contextlib.contextmanager
def _neighbors(folder: pathlib.Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may change the path itself
            sys.path.remove(str(folder))


def _module(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'experiment_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def _call(get_config: Callable | None, argument: str, where: str) -> Any:
    if not callable(get_config):
        raise UserError(
            f'{where}: this file has no function get_config(); write one that starts from '
            'ssl_extract.config.base()'
        )
    arguments = [argument] if argument else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        what = f"takes no argument: leave out ':{argument}'" if argument else 'needs an argument'
        raise UserError(f'{where}: its get_config() {what}') from None
    return get_config(*arguments)
