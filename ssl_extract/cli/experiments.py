"""Experiment files, by name or path."""

import ast
import contextlib
import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import ml_collections

from ssl_extract.errors import UserError


class Experiment(NamedTuple):
    """The title and the config of a loaded experiment file.

    Attributes:
        title: the file's name, with the argument where there is one.
        config: the result of the file's `get_config()`.
    """

    title: str
    config: ml_collections.ConfigDict


def folder() -> pathlib.Path:
    """Returns the folder of the experiments that come with the package.

    An installed package holds the folder; in a checkout the folder lies beside the package.
    """
    package = pathlib.Path(__file__).parents[1]
    installed = package / 'experiments'
    return installed if installed.is_dir() else package.parent / 'experiments'


def names() -> dict[str, str]:
    """Returns the names that `--config` resolves, each with the title of its file.

    >>> names()['quickstart']
    'Steal a small SimCLR encoder of handwritten digits, with and without a defense.'
    """
    return {
        path.stem: (ast.get_docstring(ast.parse(path.read_text())) or '').split('\n')[0]
        for path in sorted(folder().glob('*.py'))
        if not path.stem.startswith('_')
    }


def find(text: str) -> tuple[pathlib.Path, str]:
    """Finds the file of `'quickstart'`, `'paper:rda'` or `'my/file.py:argument'`.

    Returns:
        The file, and the argument behind the colon or ''.

    Raises:
        UserError: there is no such name or file.
    """
    name, _, argument = text.partition(':')
    is_path = name.endswith('.py') or '/' in name
    path = pathlib.Path(name).expanduser() if is_path else folder() / f'{name}.py'
    if not path.is_file():
        what = 'file' if is_path else 'experiment'
        raise UserError(
            f'--config={name}: there is no such {what}; write the path of one, or one of '
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
            get_config = _module(path).get_config
            config = _call(get_config, argument, f'--config={text}')
        except UserError:
            raise
        except Exception as error:
            raise UserError(_where(error, path)) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f'--config={text}: get_config() returned {type(config).__name__}; start it from '
            'ssl_extract.config.base() and return that'
        )
    return Experiment(f'{path.stem}_{argument}' if argument else path.stem, config)


@contextlib.contextmanager
def _neighbors(folder: pathlib.Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _module(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'experiment_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def _call(get_config: Callable, argument: str, where: str) -> ml_collections.ConfigDict:
    arguments = [argument] if argument else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        what = f"takes no argument: leave out ':{argument}'" if argument else 'needs an argument'
        raise UserError(f'{where}: its get_config() {what}') from None
    return get_config(*arguments)


def _where(error: Exception, path: pathlib.Path) -> str:
    """Writes an error with the last line of the experiment, or of its neighbors, that led to it."""
    if isinstance(error, SyntaxError):
        return f'{error.filename}, line {error.lineno}: {error.msg}'
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if pathlib.Path(f.filename).parent == path.parent]
    place = f'{inside[-1].filename}, line {inside[-1].lineno}' if inside else str(path)
    return f'{place}: {type(error).__name__}: {error}'
