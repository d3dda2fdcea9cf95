"""The user's own modules: their import and their source."""

import ast
import hashlib
import importlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

from ssl_extract.errors import UserError, told_with_place
from ssl_extract.identity import content_of, is_ours
from ssl_extract.registry import REGISTRIES, registered_by


class OwnModules(NamedTuple):
    """The modules that the user wrote for an experiment.

    Attributes:
        sources: (module, hash of its source and of the local modules that it imports).
        names: the names that the modules registered, in any registry.
        effects: modules that registered nothing: they are imported for another effect.
        unlisted: (kind and name, hash of factory and traits) of what was registered elsewhere, as
            in the experiment file or a notebook.
    """

    sources: tuple[tuple[str, str], ...] = ()
    names: frozenset[str] = frozenset()
    effects: frozenset[str] = frozenset()
    unlisted: tuple[tuple[str, str], ...] = ()

    def used_in(self, spec: dict[str, Any]) -> dict[str, str]:
        """Returns the sources that a stage's description depends on.

        A stage depends on the user's modules if its description names one of the modules, or a
        name that one of them registered. Then the stage depends on all of the modules, for modules
        may use each other. Every stage depends on modules that registered nothing. A stage whose
        description names a factory registered elsewhere depends on all such factories.

        Args:
            spec: the stage's description, as JSON.

        Returns:
            The hash of each source, by the module's name.
        """
        registered = self.names.union(name.rpartition('.')[2] for name, _ in self.sources)
        words = set(re.findall(r'\w+', json.dumps(spec)))
        uses = not registered.isdisjoint(words)
        used = {name: source for name, source in self.sources if uses or name in self.effects}
        named = any(name.split()[-1] in words for name, _ in self.unlisted)
        return used | (dict(self.unlisted) if named else {})


NO_MODULES = OwnModules()
_imported: dict[str, tuple[ModuleType, str]] = {}  # modules and their sources as first seen


def import_modules(names: tuple[str, ...]) -> OwnModules:
    """Imports the user's modules, from the working directory too.

    Args:
        names: the modules' names, without .py.

    Raises:
        UserError: there is no such module, its import fails, its source cannot be read, or its
            source was edited since this process imported it.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sources, registered, effects, listed = [], set(), set(), set()
    for name in names:
        module = _import(name)
        parts = _local_parts(module)
        listed |= parts.keys()
        sources.append((name, _source_of(module, parts)))
        entries = {entry for part in parts for entry in registered_by(part)}
        registered |= entries
        effects |= set() if entries else {name}
    unlisted = tuple(sorted(_unlisted(listed)))
    return OwnModules(tuple(sources), frozenset(registered), frozenset(effects), unlisted)


def _unlisted(listed: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the names that users registered outside of the listed modules, with contents."""
    for registry in REGISTRIES.values():
        for name, entry in registry.entries.items():
            if not is_ours(entry.module) and entry.module not in listed:
                yield f'{registry.kind} {name}', content_of((entry.factory, entry.traits))


def _import(name: str) -> ModuleType:
    if not (isinstance(name, str) and all(name.split('.'))):
        raise UserError(f'modules: {name!r}: write the name of a module, without .py')
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        lost = error.name if isinstance(error, ModuleNotFoundError) else None
        if lost and f'{name}.'.startswith(f'{lost}.'):
            raise UserError(
                f'modules: there is no module {name!r} in {os.getcwd()} or on PYTHONPATH; write '
                'its name without .py'
            ) from None
        raise UserError(f'modules: {name!r}: {told_with_place(error)}') from error


def _source_of(module: ModuleType, parts: dict[str, pathlib.Path]) -> str:
    """Returns the hash of a module's source, which must be the source that was imported."""
    root, digest = _root_of(module), hashlib.sha256()
    for file in sorted(parts.values()):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    source = digest.hexdigest()[:16]
    first, before = _imported.setdefault(module.__name__, (module, source))
    if first is not module:
        _imported[module.__name__] = module, source
    elif before != source:
        raise UserError(
            f'modules: {module.__name__!r} was edited since this process imported it; start a new '
            'process'
        )
    return source


def _root_of(module: ModuleType) -> pathlib.Path:
    """Returns the folder from which a module is imported."""
    if not (getattr(module, '__file__', None) or '').endswith('.py'):
        raise UserError(f'modules: {module.__name__!r} has no source file; name a .py module')
    file = pathlib.Path(module.__file__)
    return file.parents[module.__name__.count('.') + (file.name == '__init__.py')]


def _local_parts(module: ModuleType) -> dict[str, pathlib.Path]:
    """Returns the files of a module and of all local modules that it imports, by name."""
    root, top = _root_of(module), module.__name__.split('.')[0]
    parts: dict[str, pathlib.Path] = {}
    waiting = [module.__name__]
    while waiting:
        name = waiting.pop()
        file = _local_file(name, root, top)
        if name not in parts and file is not None:
            parts[name] = file
            waiting += _imports_of(name, file)
    return parts


def _local_file(name: str, root: pathlib.Path, top: str) -> pathlib.Path | None:
    """Returns the source of a module that the user wrote; None of any other module.

    The module need not be loaded. The user wrote all modules in the folder of the listed module,
    this package and the standard library apart. Of a listed module that is installed, the user
    wrote the module's package alone.
    """
    first = name.split('.')[0]
    foreign = first in sys.stdlib_module_names or first == __name__.split('.')[0]
    if first != top and (foreign or root.name in ('site-packages', 'dist-packages')):
        return None
    path = root.joinpath(*name.split('.'))
    files = (path / '__init__.py', path.with_name(f'{path.name}.py'))
    return next((file for file in files if name and file.is_file()), None)


def _imports_of(name: str, file: pathlib.Path) -> Iterator[str]:
    """Yields the names that a module's source may import, with the packages around them."""
    is_package = file.name == '__init__.py'
    package = name if is_package else name.rpartition('.')[0]
    parts = package.split('.')
    yield package
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UserError(f'modules: {told_with_place(error)}') from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_with_parents(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(parts[: len(parts) - node.level + 1]) if node.level else ''
            start = '.'.join(filter(None, [base, node.module or '']))
            yield from _with_parents([start, *(f'{start}.{alias.name}' for alias in node.names)])


def _with_parents(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        parts = name.split('.')
        yield from ('.'.join(parts[:count]) for count in range(1, len(parts) + 1))
