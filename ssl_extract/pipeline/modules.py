"""The user's own modules: their import, and their source as a part of what results depend on."""

import ast
import hashlib
import importlib
import json
import os
import pathlib
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

from ssl_extract.errors import UserError
from ssl_extract.registry import registered_by


class OwnModules(NamedTuple):
    """Own modules of an experiment.

    Attributes:
        sources: (module, hash of its source and of the local modules that it imports).
        names: what the modules registered, in any registry.
        effects: modules that registered nothing, and so are imported for some other effect.
    """

    sources: tuple[tuple[str, str], ...] = ()
    names: frozenset[str] = frozenset()
    effects: frozenset[str] = frozenset()

    def used_in(self, spec: dict[str, Any]) -> dict[str, str]:
        """The sources that a stage's description depends on.

        A stage depends on own modules if its description names what one of them registered. Then it
        depends on all of them, for they may use each other. On modules that registered nothing
        every stage depends.
        """
        uses = not self.names.isdisjoint(re.findall(r'\w+', json.dumps(spec)))
        return {name: source for name, source in self.sources if uses or name in self.effects}


NO_MODULES = OwnModules()


def import_modules(names: tuple[str, ...]) -> OwnModules:
    """Imports the user's own modules, from the working directory too.

    Raises:
        UserError: there is no such module, or its source cannot be read.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sources, registered, effects = [], set(), set()
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise UserError(
                f'modules: there is no module {name!r} in {os.getcwd()} or on PYTHONPATH; write '
                'its name without .py'
            ) from None
        parts = _local_parts(module)
        digest = hashlib.sha256()
        for path in sorted({path for _, path in parts}):
            digest.update(path.name.encode() + path.read_bytes())
        sources.append((name, digest.hexdigest()[:16]))
        own = set().union(*(registered_by(part) for part, _ in parts))
        registered |= own
        effects |= set() if own else {name}
    return OwnModules(tuple(sources), frozenset(registered), frozenset(effects))


def _local_parts(module: ModuleType) -> list[tuple[str, pathlib.Path]]:
    """(name, file) of a module and of the modules beside it that it imports, directly or not."""
    if not getattr(module, '__file__', None):
        raise UserError(f'modules: {module.__name__!r} has no source file; name a .py module')
    root = pathlib.Path(module.__file__).parent
    parts: dict[str, pathlib.Path] = {}
    waiting = [module.__name__]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), '__file__', None)
        if name in parts or not file or not pathlib.Path(file).is_relative_to(root):
            continue
        parts[name] = pathlib.Path(file)
        waiting.append(name.rpartition('.')[0])  # its package, which was imported before it
        if pathlib.Path(file).name == '__init__.py':
            waiting += [m for m in sys.modules if m.startswith(f'{name}.')]
        for node in ast.walk(ast.parse(pathlib.Path(file).read_bytes())):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = (
                    name if pathlib.Path(file).name == '__init__.py' else name.rpartition('.')[0]
                )
                base = '.'.join(package.split('.')[: len(package.split('.')) - node.level + 1])
                start = '.'.join(filter(None, [base if node.level else '', node.module or '']))
                waiting += [start, *(f'{start}.{alias.name}' for alias in node.names)]
    return list(parts.items())
