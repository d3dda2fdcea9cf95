"""The type of an augmentation and the registry of augmentations."""

from collections.abc import Callable, Sequence

import jax

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

Op = Callable[[jax.Array, jax.Array], jax.Array]

# The trait of an augmentation.
# takes: the inputs whose values it changes: 'images', 'waves' or 'tokens'; '' is any.
AUGMENTATIONS = Registry(
    'augmentation', takes='images', choices={'takes': ('images', 'waves', 'tokens', '')}
)
register = AUGMENTATIONS.register


def make(spec: str) -> Op:
    """Makes the operation that `spec` names; `'a | b'` applies `a`, then `b`, each with a key.

    >>> op, image = make('flip(p=1.0)'), jax.numpy.array([[[0.0] * 3, [1.0] * 3]])
    >>> op(jax.random.key(0), image)[0, :, 0].tolist()
    [1.0, 0.0]

    Raises:
        UserError: an unknown name or a wrong argument.
    """
    return chain(AUGMENTATIONS.make_all(spec))


def takes(spec: str) -> str:
    """Returns what `spec` changes: 'images', 'waves' or 'tokens'; '' where it changes nothing.

    >>> takes('gain | polarity'), takes('simclr'), takes('')
    ('waves', 'images', '')

    Raises:
        UserError: an unknown name, a wrong argument, or operations on inputs of two kinds.
    """
    kinds = {traits.takes for traits in AUGMENTATIONS.traits_of_chain(spec)} - {''}
    if len(kinds) > 1:
        raise UserError(
            f'augmentation {spec!r}: its operations are on {" and on ".join(sorted(kinds))}: write '
            'those of one kind'
        )
    return kinds.pop() if kinds else ''


def fitting(kind: str) -> str:
    """Names the operations that take inputs of a kind, for an error message.

    >>> fitting('tokens')
    'one that takes tokens: span_crop, token_dropout, token_swap'
    """
    names = [name for name in sorted(AUGMENTATIONS) if AUGMENTATIONS.traits(name).takes == kind]
    return f'one that takes {kind}: {", ".join(names)}'


def chain(ops: Sequence[Op]) -> Op:
    """Joins `ops` to one operation that applies them in order; no `ops` give the identity."""
    if len(ops) < 2:
        return ops[0] if ops else lambda key, inputs: inputs

    def apply(key: jax.Array, inputs: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(ops))
        for op, op_key in zip(ops, keys, strict=True):
            inputs = op(op_key, inputs)
        return inputs

    return apply


def draw(key: jax.Array, count: int) -> jax.Array:
    """Draws numbers float32 [count], uniform in [0, 1).

    XLA is kept from drawing them anew for each pixel or sample that depends on them.
    """
    return jax.lax.optimization_barrier(jax.random.uniform(key, (count,)))
