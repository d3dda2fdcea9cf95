"""The `Defense` type, its registry and chains of defenses.

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
from ssl_extract.registry import Registry, split_chain


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


# needs: what the victim's owner gives to the factory, by the name of its parameter: 'head', the
#     projection head; 'shadow', the owner's guess of a surrogate (`defenses.poisoning.Shadow`).
# endpoints: those whose answers it can defend; none: any.
# not_after: the names of defenses that must not stand before it.
# moves_answers: whether it takes answers away from where they lie, so that likeness is hidden.
# compares_answers: whether it relies on where answers lie; not after one that moves them.
# because: the reason of the two rules, to end the sentence '... makes no sense: '.
# verify: of a defense that marks answers, `(suspect [N, C], victim [N, C], inputs [N, ...]) ->
#     (statistic, p_value)`, the test for the mark.
DEFENSES = Registry(
    'defense',
    choices={'needs': ('head', 'shadow')},
    needs=(),
    endpoints=(),
    not_after=(),
    moves_answers=False,
    compares_answers=False,
    because='',
    verify=None,
)
register = DEFENSES.register


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
        **given: what the victim's owner gives, see `needs`: `head` (representations [B, D] ->
            projections) and `shadow` (see `defenses.prediction_poisoning`).

    Raises:
        UserError: a part of the chain is unknown, has an argument that does not fit, or makes no
            sense after the parts before it.
    """
    built, names = DEFENSES.make_all(spec, **given), DEFENSES.names(spec)
    _check_order(spec, names)
    mark_of(spec)
    called = [f'{i}_{name}' for i, name in enumerate(names)]
    return chain(*zip(called, built, strict=True))


def needs(spec: str) -> frozenset[str]:
    """Returns what the victim's owner must give to the parts of a chain: 'head', 'shadow'.

    >>> from ssl_extract import defenses
    >>> sorted(defenses.needs('prediction_poisoning | round'))
    ['shadow']
    """
    return DEFENSES.needs(spec)


def mark_of(spec: str) -> tuple[str, Callable[..., Any]] | None:
    """Returns the part of a chain that marks the answers and the test for its mark, if any.

    >>> from ssl_extract import defenses
    >>> part, verify = defenses.mark_of('dynamarks(key=3) | round')
    >>> part
    'dynamarks(key=3)'

    Raises:
        UserError: several parts mark.
    """
    parts = split_chain(spec, DEFENSES.kind)
    tests = [traits.verify for traits in DEFENSES.traits_of_chain(spec)]
    marks = [(part, verify) for part, verify in zip(parts, tests, strict=True) if verify]
    if len(marks) > 1:
        raise UserError(
            f'defense {spec!r}: {" and ".join(part for part, _ in marks)} both mark the answers; '
            'leave one out'
        )
    return marks[0] if marks else None


def check_endpoint(spec: str, endpoint: str) -> None:
    """Raises UserError if a part of the chain cannot defend this endpoint's answers."""
    for name, traits in zip(DEFENSES.names(spec), DEFENSES.traits_of_chain(spec), strict=True):
        if traits.endpoints and endpoint not in traits.endpoints:
            raise UserError(
                f'defense {name!r} changes {" or ".join(traits.endpoints)}, and the attack asks '
                f'for {endpoint}: take another attack, or another defense'
            )


def noticed(state: Any) -> dict[str, float]:
    """What the defenses of a chain noticed: every scalar of their states, as 'defense.field'."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        if leaf.ndim == 0 and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = re.findall(r'\w+', jax.tree_util.keystr(path))
            found['.'.join(re.sub(r'^\d+_', '', word) for word in words)] = float(leaf)
    return found


def _check_order(spec: str, names: list[str]) -> None:
    """Raises UserError if a part of the chain makes no sense after one before it."""
    every = DEFENSES.traits_of_chain(spec)
    for position, (name, traits) in enumerate(zip(names, every, strict=True)):
        for before, earlier in zip(names[:position], every, strict=False):
            moved = traits.compares_answers and earlier.moves_answers
            if moved or before in traits.not_after:
                raise UserError(
                    f'defense {spec!r}: {name} after {before} makes no sense: {traits.because}; '
                    f'put {split_chain(spec, DEFENSES.kind)[position]} before it, or leave one out'
                )


def _example(inputs) -> dict[str, jax.Array]:
    batch = inputs.shape[0]
    return dict(
        inputs=inputs,
        where=jnp.ones(batch, bool),
        keys=jax.random.split(jax.random.key(0), batch),
    )
