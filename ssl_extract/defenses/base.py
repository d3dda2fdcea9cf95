"""What a defense is: two pure functions on the oracle's output, and how several make a chain.

The shape is optax's: a factory closes over the hyper-parameters and returns `Defense(init, apply)`.

    @DEFENSES.register('clip')
    def clip(limit: float = 1.0) -> Defense:
        return stateless(lambda outputs, keys: jnp.clip(outputs, -limit, limit))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.registry import Registry, parse_call, split_chain


class Defense(NamedTuple):
    """A pair of pure functions that transforms what an oracle answers.

    Attributes:
        init: `(outputs, inputs) -> state`, from ShapeDtypeStructs or arrays `[B, D]`, `[B, ...]`.
        apply: `(outputs [B, D], state, *, inputs [B, ...], where bool[B], keys key[B]) -> (outputs,
            state)`. `where` marks the queries that are answered: a stateful defense counts only
            those. `keys` holds a fresh key for every query, made from the account's key and the
            number of the query, so that what a defense draws does not depend on how the queries
            were batched. A defense that must answer the same image alike draws from `inputs`
            instead.
    """

    init: Callable[..., Any]
    apply: Callable[..., tuple[jax.Array, Any]]


class EmptyState(NamedTuple):
    """The state of a stateless defense."""


DEFENSES = Registry('defense')


def stateless(fn: Callable[[jax.Array, jax.Array], jax.Array]) -> Defense:
    """Makes a defense of `fn(outputs [B, D], keys key[B]) -> outputs`."""
    return Defense(
        init=lambda outputs, inputs: EmptyState(),
        apply=lambda outputs, state, *, inputs, where, keys: (fn(outputs, keys), state),
    )


def chain(*defenses: tuple[str, Defense]) -> Defense:
    """Applies named defenses in the written order; the state is a dict of their states by name."""

    def init(outputs, inputs):
        state = {}
        for name, defense in defenses:
            state[name] = defense.init(outputs, inputs)
            outputs = jax.eval_shape(  # a defense may change D
                lambda y, x, s, d=defense: d.apply(y, s, **_example(x))[0],
                outputs,
                inputs,
                state[name],
            )
        return state

    def apply(outputs, state, *, inputs, where, keys):
        state = dict(state)
        for position, (name, defense) in enumerate(defenses):
            folded = jax.vmap(lambda key, i=position: jax.random.fold_in(key, i))(keys)
            outputs, state[name] = defense.apply(
                outputs, state[name], inputs=inputs, where=where, keys=folded
            )
        return outputs, state

    return Defense(init, apply)


def make(spec: str) -> Defense:
    """Builds the defense that `spec` writes down; `''` is the identity.

    >>> import jax, jax.numpy as jnp
    >>> defense = make('round(decimals=1)')
    >>> state = defense.init(jnp.zeros((1, 2)), jnp.zeros((1, 3)))
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> defense.apply(jnp.array([[0.26, 1.0]]), state, inputs=None, where=None, keys=keys)[0]
    Array([[0.3, 1. ]], dtype=float32)

    Raises:
        UserError: a part of the chain is unknown or has an argument that does not fit.
    """
    parts = split_chain(spec)
    built = DEFENSES.make_all(spec)
    names = [f'{i}_{parse_call(part)[0]}' for i, part in enumerate(parts)]
    return chain(*zip(names, built, strict=True))


def _example(inputs) -> dict[str, jax.Array]:
    batch = inputs.shape[0]
    return dict(
        inputs=inputs,
        where=jnp.ones(batch, bool),
        keys=jax.random.split(jax.random.key(0), batch),
    )
