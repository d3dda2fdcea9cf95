"""The `Defense` type, its registry and chains of defenses.

The shape is optax's: a factory closes over the hyper-parameters and returns `Defense(init, apply)`.

    @register('clip')
    def clip(limit: float = 1.0) -> Defense:
        return stateless(lambda outputs, keys: jnp.clip(outputs, -limit, limit))
"""

import functools
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry, split_chain


class Defense(NamedTuple):
    """A pair of pure functions that transforms the answers of an oracle.

    Attributes:
        init: `(key, outputs, inputs) -> state`, from ShapeDtypeStructs or arrays `[B, D]`,
            `[B, ...]`. `key` is the account's secret: a map or salt of the account is drawn from
            the key and put into the state.
        apply: `(outputs [B, D], state, *, inputs [B, ...], where bool[B], keys key[B]) -> (outputs,
            where, state)`. `where` marks the queries that are answered so far: a stateful defense
            counts those alone, and refuses a query by returning False for the row. `keys` holds a
            fresh key for each query, made from the account's key and the number of the query, so
            that the draws of a defense do not depend on how the queries were batched.
    """

    init: Callable[..., Any]
    apply: Callable[..., tuple[jax.Array, jax.Array, Any]]


class EmptyState(NamedTuple):
    """The state of a stateless defense."""


# The traits of a defense.
# needs: the parameters of the factory that the victim's owner fills: 'head', the projection head;
#     'shadow', the owner's guess of a surrogate (`defenses.poisoning.Shadow`).
# shadow_epochs: of the owner's training of the shadow; 0 leaves it untrained.
# endpoints: the endpoints whose answers the defense can change; none: any.
# not_after: the names of defenses that must not stand before the defense.
# moves_answers: whether answers are moved in the space, so that likeness is hidden.
# compares_answers: whether the places of answers matter; not after a defense that moves answers.
# because: the reason of the two rules, to end the sentence '... makes no sense: '.
# marks: whether answers get a mark, for which an ownership test of the same name and the same
#     parameters looks.
DEFENSES = Registry(
    'defense',
    choices={'needs': ('head', 'shadow')},
    needs=(),
    shadow_epochs=10,
    endpoints=(),
    not_after=(),
    moves_answers=False,
    compares_answers=False,
    because='',
    marks=False,
)
register = DEFENSES.register


def stateless(fn: Callable[[jax.Array, jax.Array], jax.Array]) -> Defense:
    """Makes a defense of `fn(outputs [B, D], keys key[B]) -> outputs`."""
    return Defense(
        init=lambda key, outputs, inputs: EmptyState(),
        apply=lambda outputs, state, *, inputs, where, keys: (fn(outputs, keys), where, state),
    )


def chain(*defenses: tuple[str, Defense]) -> Defense:
    """Joins named defenses in the written order; the state is a dict of their states by name."""

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
    """Applies `then` to the flagged queries only; a detector acts on its findings so.

    Args:
        flagged: bool[B].
        then: a defense that keeps the width of the answers.
        outputs, state, inputs, where, keys: as of `then.apply`.

    Returns:
        As `then.apply` does.
    """
    acted, answered, state = then.apply(
        outputs, state, inputs=inputs, where=where & flagged, keys=keys
    )
    outputs = jnp.where(flagged[:, None], acted, outputs)
    return outputs, where & (answered | ~flagged), state


# Cached, so that all oracles with the same spec share one Defense and one compiled program.
@functools.lru_cache(maxsize=512)
def make(spec: str, **owner: Any) -> Defense:
    """Makes the defense that `spec` names; `''` is the identity.

    >>> defense = make('top_k(k=1) | round(decimals=0)')
    >>> outputs, where, state = apply_once(defense, [[0.3, 1.8]])
    >>> outputs.tolist()
    [[0.0, 2.0]]

    Args:
        spec: such as 'round(decimals=2)', or several parts with bars between them.
        **owner: arguments of the victim's owner, see `needs`: `head` (representations [B, D] ->
            projections) and `shadow` (see `defenses.prediction_poisoning`).

    Raises:
        UserError: a part of the chain is unknown, has an argument that does not fit, or makes no
            sense after the parts before it.
    """
    parts, names = DEFENSES.make_all(spec, **owner), DEFENSES.names(spec)
    _check_order(spec, names)
    mark_of(spec)
    numbered = [f'{i}_{name}' for i, name in enumerate(names)]
    return chain(*zip(numbered, parts, strict=True))


def apply_once(
    defense: Defense | str, outputs: Any, inputs: Any = None, seed: int = 0
) -> tuple[jax.Array, jax.Array, Any]:
    """Applies a defense to the first answers of a new account, to look at the effect.

    >>> outputs, where, state = apply_once('refuse', [[1.0, 2.0]])
    >>> where.tolist()
    [False]

    Args:
        defense: a defense or a spec.
        outputs: float [B, D], answers before the defense.
        inputs: float [B, ...], the queries; `outputs` where the defense does not look at queries.
        seed: of the account's secret.

    Returns:
        (outputs [B, E], where bool[B], state) after the defense.
    """
    defense = make(defense) if isinstance(defense, str) else defense
    outputs = jnp.asarray(outputs, jnp.float32)
    inputs = outputs if inputs is None else jnp.asarray(inputs, jnp.float32)
    secret, stream = jax.random.split(jax.random.key(seed))
    state = defense.init(secret, outputs, inputs)
    keys = jax.random.split(stream, len(outputs))
    where = jnp.ones(len(outputs), bool)
    return jax.jit(defense.apply)(outputs, state, inputs=inputs, where=where, keys=keys)


def needs(spec: str) -> frozenset[str]:
    """Returns the arguments that the victim's owner must give to a chain: 'head', 'shadow'.

    >>> from ssl_extract import defenses
    >>> sorted(defenses.needs('prediction_poisoning | round'))
    ['shadow']
    """
    return DEFENSES.needs(spec)


def shadow_epochs(spec: str) -> int:
    """Returns the epochs for which the victim's owner trains the shadow of a chain.

    >>> from ssl_extract import defenses
    >>> defenses.shadow_epochs('prediction_poisoning(epochs=3) | round')
    3
    """
    all_traits = DEFENSES.traits_of_chain(spec)
    return max((t.shadow_epochs for t in all_traits if 'shadow' in t.needs), default=0)


def mark_of(spec: str) -> str | None:
    """Returns the part of a chain that marks the answers, or None.

    The part is the spec of the ownership test for the mark too (`ownership.test`).

    >>> from ssl_extract import defenses
    >>> defenses.mark_of('dynamarks(key=3) | round')
    'dynamarks(key=3)'

    Raises:
        UserError: several parts mark the answers.
    """
    parts = split_chain(spec, DEFENSES.kind)
    all_traits = DEFENSES.traits_of_chain(spec)
    marks = [part for part, traits in zip(parts, all_traits, strict=True) if traits.marks]
    if len(marks) > 1:
        raise UserError(
            f'defense {spec!r}: {" and ".join(marks)} both mark the answers; leave one out'
        )
    return marks[0] if marks else None


def check_endpoint(spec: str, endpoint: str) -> None:
    """Raises UserError if a part of the chain cannot defend the answers of `endpoint`."""
    for name, traits in zip(DEFENSES.names(spec), DEFENSES.traits_of_chain(spec), strict=True):
        if traits.endpoints and endpoint not in traits.endpoints:
            raise UserError(
                f'defense {name!r} changes {" or ".join(traits.endpoints)}, and the attack asks '
                f'for {endpoint}: take another attack, or another defense'
            )


def noticed(state: Any) -> dict[str, float]:
    """Reads the counters of a chain's defenses: every scalar of the states, as 'defense.field'.

    A scalar that is not finite is no result: it is left out, with a warning.

    >>> _, _, state = apply_once('rate_limit(queries=1, seconds=60.0)', [[1.0], [2.0]])
    >>> noticed(state)
    {'rate_limit.num_answered': 2.0, 'rate_limit.seconds': 60.0}
    """
    counters = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        if leaf.ndim == 0 and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = re.findall(r'\w+', jax.tree_util.keystr(path))
            counters['.'.join(re.sub(r'^\d+_', '', word) for word in words)] = float(leaf)
    for name in [name for name, value in counters.items() if not math.isfinite(value)]:
        value = counters.pop(name)
        warnings.warn(f'the state of a defense holds {name}={value}: left out', stacklevel=2)
    return counters


def _check_order(spec: str, names: list[str]) -> None:
    """Raises UserError if a part of the chain makes no sense after an earlier part."""
    all_traits = DEFENSES.traits_of_chain(spec)
    for position, (name, traits) in enumerate(zip(names, all_traits, strict=True)):
        for before, earlier in zip(names[:position], all_traits, strict=False):
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
