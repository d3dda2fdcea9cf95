"""Names to factories, and the mini-language `name(arg=1) | name` that builds them from a string."""

import ast
import difflib
import inspect
import keyword
from collections.abc import Callable
from typing import Any

from ssl_extract.errors import UserError


class Registry(dict[str, Callable[..., Any]]):
    """A dict of factories that knows what its entries are called in an error message.

    >>> SHAPES = Registry('shape')
    >>> @SHAPES.register('square')
    ... def square(side: float = 1.0):
    ...     return ('square', side)
    >>> SHAPES.make('square(side=2.0)')
    ('square', 2.0)
    >>> SHAPES.make_all('square | square(3)')
    [('square', 1.0), ('square', 3)]
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers the decorated factory as `name`; a name can be taken only once.

        Raises:
            UserError: the name is taken, or cannot be written in a spec.
        """
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(
                f'{self.kind} {name!r}: a name is made of letters, digits and underscores'
            )

        def add(factory: Callable[..., Any]) -> Callable[..., Any]:
            if name in self:
                raise UserError(f'{self.kind} {name!r} is already registered; choose another name')
            self[name] = factory
            return factory

        return add

    def make(self, spec: str, **given: Any) -> Any:
        """Calls the factory that `spec` names with its arguments; `given` fills what it leaves out.

        Only those `given` that the factory has a parameter for are passed on.

        Raises:
            UserError: the spec does not parse, the name is unknown, or an argument does not fit.
        """
        name, args, kwargs = parse_call(spec, self.kind)
        if name not in self:
            near = difflib.get_close_matches(name.lower(), self, n=1)
            hint = f'did you mean {near[0]!r}? ' if near else ''
            raise UserError(
                f'unknown {self.kind} {name!r}: {hint}known are {", ".join(sorted(self))}'
            )
        factory, signature = self[name], inspect.signature(self[name])
        try:
            written = signature.bind_partial(*args, **kwargs).arguments
            given = {k: v for k, v in given.items() if k in signature.parameters.keys() - written}
            signature.bind(*args, **kwargs, **given)
        except TypeError as error:
            shown = [str(p) for p in signature.parameters.values() if p.name not in given]
            raise UserError(
                f'{self.kind} {spec!r}: {error}; it takes ({", ".join(shown)})'
            ) from None
        try:
            return factory(*args, **kwargs, **given)
        except (TypeError, UserError) as error:  # an argument of a wrong type or value
            raise UserError(f'{self.kind} {spec!r}: {error}') from error

    def make_all(self, spec: str, **given: Any) -> list[Any]:
        """Makes each part of `'a(...) | b | c(...)'`, in the written order; `''` is `[]`."""
        return [self.make(part, **given) for part in split_chain(spec, self.kind)]


def split_chain(spec: str, kind: str = 'chain') -> list[str]:
    """Splits `'a(x="|") | b'` at its top-level bars.

    >>> split_chain('round(decimals=2) | gaussian_noise')
    ['round(decimals=2)', 'gaussian_noise']
    """
    if isinstance(spec, str) and not spec.strip():
        return []
    node = _parse(spec, kind, 'name(arg=1) | name(arg="x")')
    parts: list[str] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts.insert(0, ast.unparse(node.right))
        node = node.left
    return [ast.unparse(node), *parts]


def parse_call(spec: str, kind: str = 'call') -> tuple[str, tuple, dict[str, Any]]:
    """Parses `'f'` or `'f(1, b=2)'`, with Python literals only, to (name, args, kwargs).

    >>> parse_call('infonce(temperature=0.1)')
    ('infonce', (), {'temperature': 0.1})
    """
    usage = 'a name or name(arg=1, other="x")'
    node = _parse(spec, kind, usage)
    if isinstance(node, ast.Name):
        return node.id, (), {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UserError(f'cannot read {kind} {spec!r}: write {usage}')
    names = [k.arg for k in node.keywords]
    for name in names:
        if name is None or names.count(name) > 1:
            raise UserError(f'{kind} {spec!r}: name each argument once, as in {usage}')
    try:
        args = tuple(ast.literal_eval(arg) for arg in node.args)
        return node.func.id, args, {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    except (ValueError, TypeError):
        raise UserError(
            f'{kind} {spec!r}: an argument is a number, True, None, a list, or a "quoted text"'
        ) from None


def _parse(spec: str, kind: str, usage: str) -> ast.expr:
    """The syntax tree of `spec`."""
    if not isinstance(spec, str):
        raise UserError(f'{kind} must be text, {usage}, got {spec!r}')
    try:
        return ast.parse(spec.strip(), mode='eval').body
    except (SyntaxError, ValueError):
        raise UserError(f'cannot read {kind} {spec!r}: write {usage}') from None
