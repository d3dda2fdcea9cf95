"""The type of an augmentation and the registry of augmentations."""

from collections.abc import Callable, Sequence

import jax

from ssl_extract.registry import Registry

Op = Callable[[jax.Array, jax.Array], jax.Array]

# The trait of an augmentation.
# takes: the inputs whose values it changes: 'images' or 'waves'.
AUGMENTATIONS = Registry('augmentation', takes='images', choices={'takes': ('images', 'waves')})
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


def takes_waves(spec: str) -> bool:
    """Returns whether `spec` names an operation on waveforms.

    >>> takes_waves('gain | polarity'), takes_waves('simclr'), takes_waves('')
    (True, False, False)

    Raises:
        UserError: an unknown name or a wrong argument.
    """
    return any(traits.takes == 'waves' for traits in AUGMENTATIONS.traits_of_chain(spec))


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
