"""What a defense is: two pure functions on the oracle's output, and how several make a chain.

The shape is optax's: a factory closes over the hyper-parameters and returns `Defense(init, apply)`.

    @register('clip')
    def clip(limit: float = 1.0) -> Defense:
        return stateless(lambda outputs, keys: jnp.clip(outputs, -limit, limit))
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry, parse_call, split_chain


class Defense(NamedTuple):
    """A pair of pure functions that transforms what an oracle answers.

    Attributes:
        init: `(key, outputs, inputs) -> state`, from ShapeDtypeStructs or arrays `[B, D]`,
            `[B, ...]`. `key` is the account's secret: what an account keeps to itself (a map, a
            salt) is drawn from it and put into the state.
        apply: `(outputs [B, D], state, *, inputs [B, ...], where bool[B], keys key[B]) -> (outputs,
            where, state)`. `where` marks the queries that are answered so far: a stateful defense
            counts only those, and refuses one by answering False for it. `keys` holds a fresh key
            for every query, made from the account's key and the number of the query, so that what a
            defense draws does not depend on how the queries were batched.
    """

    init: Callable[..., Any]
    apply: Callable[..., tuple[jax.Array, jax.Array, Any]]


class EmptyState(NamedTuple):
    """The state of a stateless defense."""


class Rule(NamedTuple):
    """Where a defense makes no sense, and why.

    Attributes:
        not_after: names of defenses that must not stand before it.
        because: the reason, to end the sentence '... makes no sense: '.
        endpoints: those whose answers it can defend; empty: any.
    """

    not_after: tuple[str, ...] = ()
    because: str = ''
    endpoints: tuple[str, ...] = ()


DEFENSES = Registry('defense')
RULES: dict[str, Rule] = {}
NOISY = (
    'gaussian_noise',
    'replace',
    'prediction_poisoning',
    'bucket_coverage',
)  # they hide likeness


def register(name: str, **rule: Any) -> Callable:
    """Registers the decorated factory as a defense; `rule` are the fields of its `Rule`."""
    add = DEFENSES.register(name)
    RULES[name] = Rule(**rule)
    return add


def stateless(fn: Callable[[jax.Array, jax.Array], jax.Array]) -> Defense:
    """Makes a defense of `fn(outputs [B, D], keys key[B]) -> outputs`."""
    return Defense(
        init=lambda key, outputs, inputs: EmptyState(),
        apply=lambda outputs, state, *, inputs, where, keys: (fn(outputs, keys), where, state),
    )


def chain(*defenses: tuple[str, Defense]) -> Defense:
    """Applies named defenses in the written order; the state is a dict of their states by name."""

    def init(key, outputs, inputs):
        state = {}
        for position, (name, defense) in enumerate(defenses):
            state[name] = defense.init(jax.random.fold_in(key, position), outputs, inputs)
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
            outputs, where, state[name] = defense.apply(
                outputs, state[name], inputs=inputs, where=where, keys=folded
            )
        return outputs, where, state

    return Defense(init, apply)


def apply_where(
    flagged: jax.Array, then: Defense, outputs: jax.Array, state: Any, *, inputs, where, keys
) -> tuple[jax.Array, jax.Array, Any]:
    """Applies `then` to the flagged queries only: how a detector acts on what it noticed.

    Args:
        flagged: bool[B].
        then: a defense that keeps the width of the answers.
        outputs, state, inputs, where, keys: as of `then.apply`.
    """
    acted, answered, state = then.apply(
        outputs, state, inputs=inputs, where=where & flagged, keys=keys
    )
    outputs = jnp.where(flagged[:, None], acted, outputs)
    return outputs, where & (answered | ~flagged), state


@functools.lru_cache(maxsize=512)  # one Defense a spec, so that one program serves all its oracles
def make(spec: str, **given: Any) -> Defense:
    """Builds the defense that `spec` writes down; `''` is the identity.

    >>> import jax, jax.numpy as jnp
    >>> key = jax.random.key(0)
    >>> defense = make('round(decimals=1)')
    >>> state = defense.init(key, jnp.zeros((1, 2)), jnp.zeros((1, 3)))
    >>> given = dict(inputs=None, where=jnp.ones(1, bool), keys=jax.random.split(key, 1))
    >>> defense.apply(jnp.array([[0.26, 1.0]]), state, **given)[0]
    Array([[0.3, 1. ]], dtype=float32)

    Args:
        spec: as above, or several parts with bars between them.
        **given: what the victim's owner knows and a factory may ask for by the parameter's name:
            `head` (representations [B, D] -> projections) and `shadow` (see
            `defenses.prediction_poisoning`).

    Raises:
        UserError: a part of the chain is unknown, has an argument that does not fit, or makes no
            sense after the parts before it.
    """
    parts, names = split_chain(spec, 'defense'), names_of(spec)
    built = DEFENSES.make_all(spec, **given)
    for position, name in enumerate(names):
        rule = RULES.get(name, Rule())
        wrong = [before for before in names[:position] if before in rule.not_after]
        if wrong:
            raise UserError(
                f'defense {spec!r}: {name} after {wrong[0]} makes no sense: {rule.because}; '
                f'put {parts[position]} before it, or leave one out'
            )
    called = [f'{i}_{name}' for i, name in enumerate(names)]
    return chain(*zip(called, built, strict=True))


def names_of(spec: str) -> list[str]:
    """The names of the parts of a chain, in their order.

    Raises:
        UserError: one of them is unknown.
    """
    parts = split_chain(spec, 'defense')
    names = [parse_call(part, 'defense')[0] for part in parts]
    for part, name in zip(parts, names, strict=True):
        if name not in DEFENSES:
            DEFENSES.make(part)  # says which there are
    return names


def check_endpoint(spec: str, endpoint: str) -> None:
    """Raises UserError if a part of the chain cannot defend this endpoint's answers."""
    for name in names_of(spec):
        known = RULES.get(name, Rule()).endpoints
        if known and endpoint not in known:
            raise UserError(
                f'defense {name!r} changes {" or ".join(known)}, and the attack asks for '
                f'{endpoint}: take another attack, or another defense'
            )


def noticed(state: Any) -> dict[str, float]:
    """What the defenses of a chain noticed: every scalar of their states, as 'defense.field'."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        if leaf.ndim == 0 and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = re.findall(r'\w+', jax.tree_util.keystr(path))
            found['.'.join(re.sub(r'^\d+_', '', word) for word in words)] = float(leaf)
    return found


def _example(inputs) -> dict[str, jax.Array]:
    batch = inputs.shape[0]
    return dict(
        inputs=inputs,
        where=jnp.ones(batch, bool),
        keys=jax.random.split(jax.random.key(0), batch),
    )
