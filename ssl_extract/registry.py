"""Registries of factories with traits, and the spec mini-language."""

import ast
import collections
import difflib
import functools
import inspect
import keyword
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ssl_extract import checks
from ssl_extract.errors import UserError

Factory = TypeVar('Factory', bound=Callable[..., Any])
REGISTRIES: dict[str, 'Registry'] = {}  # by kind
MAX_PARTS = 100  # of a chain; each is compiled

# Of factories, which an experiment of many runs asks for often.
_signature = functools.cache(inspect.signature)
_parameters = functools.cache(checks.parameters_of)


class Entry(NamedTuple):
    """An entry of a registry.

    Attributes:
        factory: the registered function.
        traits: the declared traits; some are functions of the factory's arguments.
        module: the name of the module that registered it.
    """

    factory: Callable[..., Any]
    traits: dict[str, Any]
    module: str


class Registry(Mapping[str, Callable[..., Any]]):
    """Factories by name, with the traits that each declares.

    A trait is what others must know of an object before the factory makes the object.

    >>> SHAPES = Registry('shape', corners=0, needs=())
    >>> @SHAPES.register('square', corners=4)
    ... def square(side: float = 1.0):
    ...     return ('square', side)
    >>> @SHAPES.register('star', corners=lambda tips, **_: 2 * tips, needs=('paper',))
    ... def star(tips: int = 5):
    ...     return ('star', tips)
    >>> SHAPES.make_all('square(side=2.0) | star')
    [('square', 2.0), ('star', 5)]
    >>> SHAPES.traits('star(tips=6)')
    Traits(corners=12, needs=('paper',))

    Attributes:
        kind: the word for an entry in an error message.
        entries: the entries by name.
        defaults: the accepted traits and their values where nothing is declared.
        check: `(name, factory) -> None`, called before a factory is added; raises UserError for an
            unsuitable factory.
        choices: the accepted values of some traits, or of the parts of a trait that is a tuple.
    """

    def __init__(
        self,
        kind: str,
        choices: Mapping[str, tuple] | None = None,
        check: Callable[[str, Callable[..., Any]], None] | None = None,
        **defaults: Any,
    ):
        self.kind, self.choices, self.defaults = kind, choices or {}, defaults
        self.check = check
        self.entries: dict[str, Entry] = {}
        self._traits = collections.namedtuple('Traits', defaults)
        REGISTRIES[kind] = self

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self.entries[name].factory

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def register(self, name: str, **traits: Any) -> Callable[[Factory], Factory]:
        """Registers the decorated factory as `name`; a name can be taken only once.

        The factory's calls are checked from then on: its arguments by its annotations, which hold
        the ranges of numbers (`ssl_extract.checks`).

        Args:
            name: the name in a spec.
            **traits: values for some of `defaults`. A function is called with the arguments of a
                spec, the factory's defaults filled in, and returns the trait of the spec.

        Raises:
            UserError: the name is taken or cannot be written in a spec; a trait is unknown or has
                a wrong value.
        """
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(
                f'{self.kind} {name!r}: a name is made of letters, digits and underscores'
            )
        for trait, value in traits.items():
            if not (trait in self.defaults and callable(value)):
                self._check_trait(name, trait, value)

        def add(factory: Factory) -> Factory:
            if name in self:
                raise UserError(f'{self.kind} {name!r} is already registered; choose another name')
            if self.check is not None:
                self.check(name, factory)
            factory = checks.checked(factory)
            # Of the caller, not of the factory: a module may register another module's function.
            module = sys._getframe(1).f_globals['__name__']
            self.entries[name] = Entry(factory, traits, module)
            return factory

        return add

    def make(self, spec: str, **offered: Any) -> Any:
        """Calls the factory that `spec` names, with the arguments in `spec`.

        Args:
            spec: 'name' or 'name(arg=1)'.
            **offered: values for parameters that `spec` leaves out. The factory gets those that
                are among its parameters.

        Raises:
            UserError: the spec does not parse, the name is unknown, or an argument does not fit.
        """
        name, args, kwargs = self._read(spec)
        factory, written = self[name], self._bind(spec, name, args, kwargs).arguments
        parameters = _signature(factory).parameters
        accepted = {k: v for k, v in offered.items() if k in parameters.keys() - written}
        self._bind(spec, name, args, kwargs, accepted)
        try:
            return factory(*args, **kwargs, **accepted)
        except (TypeError, ValueError, ArithmeticError) as error:  # of a wrong type or value
            raise self._refusal(spec, error) from error

    def make_all(self, chain: str, **offered: Any) -> list[Any]:
        """Makes each part of `'a(...) | b | c(...)'`, in the written order; `''` gives `[]`.

        Args:
            chain: specs with bars between them.
            **offered: see `make`.
        """
        return [self.make(part, **offered) for part in split_chain(chain, self.kind)]

    def names(self, chain: str) -> list[str]:
        """Returns the names of the parts of a chain, in their order.

        Raises:
            UserError: the chain does not parse, or a name is unknown.
        """
        return [self._read(part)[0] for part in split_chain(chain, self.kind)]

    def traits(self, spec: str) -> Any:
        """Returns the traits of `spec`: a named tuple whose fields are those of `defaults`.

        Raises:
            UserError: the spec does not parse, the name is unknown, or an argument does not fit.
        """
        name, args, kwargs = self._read(spec)
        bound = self._bind(spec, name, args, kwargs)
        bound.apply_defaults()
        traits = self.defaults | self.entries[name].traits
        for trait, value in self.entries[name].traits.items():
            if callable(value):
                try:
                    traits[trait] = value(**bound.arguments)
                except (TypeError, ValueError, ArithmeticError) as error:
                    raise self._refusal(spec, error) from error
                self._check_trait(name, trait, traits[trait])
        return self._traits(**traits)

    def traits_of_chain(self, chain: str) -> list[Any]:
        """Returns the traits of each part of a chain, in their order."""
        return [self.traits(part) for part in split_chain(chain, self.kind)]

    def needs(self, chain: str) -> frozenset[str]:
        """Returns the union of the trait `needs` over the parts of a chain."""
        return frozenset(need for part in self.traits_of_chain(chain) for need in part.needs)

    def module_of(self, name: str) -> str:
        """Returns the name of the module that registered `name`."""
        return self.entries[self._read(name)[0]].module

    def _read(self, spec: str) -> tuple[str, tuple, dict[str, Any]]:
        name, args, kwargs = parse_call(spec, self.kind)
        if name not in self:
            near = difflib.get_close_matches(name.lower(), self, n=1)
            hint = f'did you mean {near[0]!r}? ' if near else ''
            raise UserError(
                f'unknown {self.kind} {name!r}: {hint}known are {", ".join(sorted(self))}'
            )
        return name, args, kwargs

    def _bind(
        self, spec: str, name: str, args: tuple, kwargs: dict, accepted: dict | None = None
    ) -> inspect.BoundArguments:
        """Binds and checks the arguments of a spec; with `accepted`, those of the whole call."""
        signature, parameters = _signature(self[name]), _parameters(self[name])
        try:
            if accepted is None:
                bound = signature.bind_partial(*args, **kwargs)
            else:
                bound = signature.bind(*args, **kwargs, **accepted)
        except TypeError as error:
            taken = [p for p in parameters.values() if p.name not in (accepted or {})]
            listed = ', '.join(map(checks.written_parameter, taken))
            raise UserError(
                f'{self.kind} {checks.shown(spec)}: {error}; it takes ({listed})'
            ) from None
        try:
            checks.check_arguments(parameters, bound.arguments)
        except UserError as error:
            raise self._refusal(spec, error) from error
        return bound

    def _refusal(self, spec: str, error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(f'{self.kind} {checks.shown(spec)}: {reason}')

    def _check_trait(self, name: str, trait: str, value: Any) -> None:
        if trait not in self.defaults:
            accepted = f'one of {", ".join(self.defaults)}' if self.defaults else 'none'
            raise UserError(f'{self.kind} {name!r}: unknown trait {trait!r}; write {accepted}')
        default, choices = self.defaults[trait], self.choices.get(trait)
        if default is not None and not isinstance(value, type(default)):
            raise UserError(
                f'{self.kind} {name!r}: {trait}={value!r}: write a {type(default).__name__}'
            )
        for part in value if isinstance(value, tuple) else (value,):
            if choices and part not in choices:
                raise UserError(
                    f'{self.kind} {name!r}: {trait}={value!r}: {part!r} is none of '
                    f'{", ".join(choices)}'
                )


def registered_by(module: str) -> set[str]:
    """Returns the names that a module registered, of any kind.

    >>> sorted(registered_by('ssl_extract.nothing'))
    []
    """
    return {
        name
        for registry in REGISTRIES.values()
        for name, entry in registry.entries.items()
        if entry.module == module
    }


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


def split_chain(spec: str, kind: str = 'chain') -> list[str]:
    """Splits `'a(x="|") | b'` at the top-level bars.

    >>> split_chain('round(decimals=2) | gaussian_noise')
    ['round(decimals=2)', 'gaussian_noise']

    Raises:
        UserError: `spec` does not parse.
    """
    if isinstance(spec, str) and not spec.strip():
        return []
    node = _parse(spec, kind, 'name(arg=1) | name(arg="x")')
    parts: list[str] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts.insert(0, ast.unparse(node.right))
        node = node.left
    if len(parts) >= MAX_PARTS:
        raise UserError(f'{kind} {checks.shown(spec)}: write at most {MAX_PARTS} parts')
    return [ast.unparse(node), *parts]


def parse_call(spec: str, kind: str = 'call') -> tuple[str, tuple, dict[str, Any]]:
    """Parses `'f'` or `'f(1, b=2)'` to (name, args, kwargs); arguments are Python literals.

    >>> parse_call('infonce(temperature=0.1)')
    ('infonce', (), {'temperature': 0.1})

    Raises:
        UserError: `spec` is no call with literal arguments, or names an argument twice.
    """
    usage = 'a name or name(arg=1, other="x")'
    node = _parse(spec, kind, usage)
    if isinstance(node, ast.Name):
        return node.id, (), {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UserError(f'cannot read {kind} {checks.shown(spec)}: write {usage}')
    names = [k.arg for k in node.keywords]
    for name in names:
        if name is None or names.count(name) > 1:
            raise UserError(f'{kind} {checks.shown(spec)}: name each argument once, as in {usage}')
    try:
        args = tuple(ast.literal_eval(arg) for arg in node.args)
        return node.func.id, args, {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    except (ValueError, TypeError):
        raise UserError(
            f'{kind} {checks.shown(spec)}: an argument is a number, True, None, a list, or a '
            '"quoted text"'
        ) from None


def _parse(spec: str, kind: str, usage: str) -> ast.expr:
    """Parses `spec` to a syntax tree."""
    if not isinstance(spec, str):
        raise UserError(f'{kind} must be text, {usage}, got {checks.shown(spec)}')
    try:
        return ast.parse(spec.strip(), mode='eval').body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deep
        raise UserError(f'cannot read {kind} {checks.shown(spec)}: write {usage}') from None
