"""Identity of arguments by content.

A spec identifies a factory of the package. Of a user's factory the code counts too. A function is
identified by its code, closure, defaults and the globals that it names: an edited loss, or a loss
with another temperature, is another loss.
"""

import dataclasses
import functools
import hashlib
import os
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ssl_extract.registry import Registry

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...), np.generic, np.dtype)
_ABSENT = object()


def content_of(value: Any) -> str:
    """Hashes a value by content: 16 hexadecimal digits.

    Arrays, containers and functions are read to the bottom. A function's globals count too. Of the
    user's functions and classes the code counts; of an installed module's function the name counts.

    >>> scaled = lambda factor: lambda x: factor * x
    >>> content_of(scaled(2.0)) == content_of(scaled(2.0))
    True
    >>> content_of(scaled(2.0)) == content_of(scaled(3.0))
    False
    """
    digest = hashlib.sha256()
    for part in _parts(value, {}):
        digest.update(part + b'\0')
    return digest.hexdigest()[:16]


def spec_content(registry: Registry, spec: str) -> str:
    """Returns a spec or chain with the content of the factories that users registered.

    Raises:
        UserError: the spec does not parse, or a name is unknown.
    """
    foreign = [name for name in registry.names(spec) if not is_ours(registry.module_of(name))]
    return ' '.join([spec, *(content_of(registry[name]) for name in foreign)])


def name_of(fn: Any) -> str:
    """Returns 'module:name' of a function, or of an object's type; of a module the name."""
    if isinstance(fn, types.ModuleType):
        return fn.__name__
    name = getattr(fn, '__qualname__', type(fn).__qualname__)
    return f'{getattr(fn, "__module__", None) or type(fn).__module__}:{name}'


def is_ours(module: str) -> bool:
    """Returns whether a module is of this package."""
    return module.split('.')[0] == 'ssl_extract'


def _is_users(module: str) -> bool:
    """Returns whether the user wrote a module: neither installed, nor ours, nor Python's."""
    first = module.split('.')[0]
    file = getattr(sys.modules.get(module), '__file__', None) or ''
    installed = any(part in ('site-packages', 'dist-packages') for part in file.split(os.sep))
    return not (installed or is_ours(module) or first in sys.stdlib_module_names)


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Yields the bytes that identify a value; an object that is met again is read once."""
    if isinstance(value, _PLAIN):
        yield f'{type(value).__name__} {value!r}'.encode()
        return
    if isinstance(value, np.ndarray) and value.dtype == object:  # its bytes are addresses
        yield f'objects{value.shape}'.encode()
        value = value.ravel().tolist()
    if isinstance(value, np.ndarray | jax.Array):
        yield from _array(value)
        return
    if id(value) in seen:
        yield f'again {list(seen).index(id(value))}'.encode()
        return
    if not isinstance(value, tuple):  # the same constants may or may not be one object
        seen[id(value)] = value  # holds the object, so that no other object gets the same id
    yield name_of(value).encode()
    for part in _inner(value):
        yield from _parts(part, seen)


def _array(value: Any) -> Iterator[bytes]:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    yield f'{array.dtype.str}{array.shape}'.encode()
    yield array.tobytes()


def _inner(value: Any) -> Iterator[Any]:
    """Yields the values that a container, a function or an object is made of."""
    if isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.CodeType):
        yield from (value.co_code, value.co_consts, value.co_names)
    elif isinstance(value, Mapping):
        yield from sorted(value.items(), key=lambda item: str(item[0]))
    elif isinstance(value, set | frozenset):
        yield from sorted(value, key=repr)
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, type):
        yield from _of_class(value)
    elif hasattr(value, '__wrapped__'):  # jit and other decorators
        yield value.__wrapped__
    elif not isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        yield from _of_object(value)


def _of_function(fn: types.FunctionType) -> Iterator[Any]:
    if is_ours(fn.__module__ or '') and fn.__closure__ is None:
        return  # of the package: the name identifies it
    yield from (fn.__code__, fn.__defaults__, fn.__kwdefaults__)
    for cell in fn.__closure__ or ():
        yield _contents(cell)
    home = fn.__globals__.get('__name__', '')
    if not _is_users(home):
        return
    for name in sorted(_names(fn.__code__)):
        used = fn.__globals__.get(name, _ABSENT)
        if used is not _ABSENT:
            yield (name, name_of(used) if _is_foreign(used) else used)


def _is_foreign(used: Any) -> bool:
    """Returns whether a global counts by its name: a module, or an installed object."""
    if isinstance(used, types.ModuleType | types.BuiltinFunctionType):
        return True
    defined = isinstance(used, types.FunctionType | type) or hasattr(used, '__wrapped__')
    return defined and not _is_users(getattr(used, '__module__', None) or '')


def _of_class(cls: type) -> Iterator[Any]:
    """Yields the parts of a class that the user wrote; any other class counts by its name."""
    if not _is_users(cls.__module__):
        return
    yield cls.__bases__
    for name, part in sorted(vars(cls).items()):
        part = getattr(part, '__func__', getattr(part, 'fget', part))  # of methods, properties
        written = isinstance(part, _PLAIN) and not name.startswith('__')
        if written or isinstance(part, types.FunctionType):
            yield (name, part)


def _of_object(value: Any) -> Iterator[Any]:
    """Yields the class and the attributes of an object; of Python's objects the class alone."""
    yield type(value)
    if dataclasses.is_dataclass(value):  # not what it keeps beside its fields, such as a number
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        yield from ((name, getattr(value, name)) for name in names)
    elif type(value).__module__.split('.')[0] not in sys.stdlib_module_names:
        yield from sorted(getattr(value, '__dict__', {}).items())


def _names(code: types.CodeType) -> set[str]:
    nested = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(_names, nested))


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is bound later
        return None
