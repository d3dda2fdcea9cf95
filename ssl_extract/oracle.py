"""The oracle: black-box access to an encoder that counts every query against an exact budget.

    oracle = make_oracle(encode, defenses.make('gaussian_noise(stddev=1.0)'), budget=9_000)
    account = oracle.init(jax.random.key(0), images)            # one account
    answer, account = oracle.query(images, account)             # bills the granted rows

Both are pure functions and pytrees (`jax.tree_util.Partial`), so an oracle goes into a compiled
step as an argument, and the victim's parameters are not baked into the program. Several accounts
are a stack of states under `jax.vmap(oracle.query)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, chain
from ssl_extract.errors import UserError

MAX_BUDGET = 2**30  # num_queries is an int32, and needs room for one more batch


class OracleState(NamedTuple):
    """An account: what was billed to it and what the defense remembers of it.

    Attributes:
        num_queries: int32[], granted rows so far, over all devices.
        num_refused: int32[], rows sent after the budget was spent.
        key: key[], the account's key; constant, each query folds its number in.
        defense: the state of the defense.
    """

    num_queries: jax.Array
    num_refused: jax.Array
    key: jax.Array
    defense: Any


class Answer(NamedTuple):
    """What comes back: representations float[B, D] (zeros where refused) and granted bool[B]."""

    representations: jax.Array
    granted: jax.Array


class Oracle(NamedTuple):
    """Two pure functions.

    Attributes:
        init: `(key, inputs) -> OracleState`; a new account. Of `inputs` only the shape matters.
        query: `(inputs [B, ...], state, where=None) -> (Answer, OracleState)`. Rows with
            `where == False` are padding: they are neither sent nor counted. No gradient passes.
    """

    init: Callable[..., OracleState]
    query: Callable[..., tuple[Answer, OracleState]]


def make_oracle(
    encode: Callable[[jax.Array], jax.Array], defense: Defense | None = None, *, budget: int
) -> Oracle:
    """Black-box access to `encode` ([B, ...] -> [B, D]) behind `defense`, for `budget` queries.

    The first `budget` rows sent are granted, whatever the batches, devices and restarts; later rows
    are answered with zeros and `granted == False`.

    Args:
        encode: the victim. To keep its parameters out of compiled programs, give a
            `jax.tree_util.Partial(apply, variables)`; a plain function is closed over.
        defense: what is done to the answers; None is the identity.
        budget: how many queries an account may have answered, in [1, 2**30].

    Raises:
        UserError: the budget is not a whole number in that range.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 < budget <= MAX_BUDGET:
        raise UserError(f'budget must be a whole number from 1 to {MAX_BUDGET}, got {budget!r}')
    defense = defense or chain()
    if not isinstance(encode, jax.tree_util.Partial):
        encode = jax.tree_util.Partial(encode)

    def init(encode, key, inputs):
        outputs = jax.eval_shape(encode, inputs)
        return OracleState(
            num_queries=jnp.zeros([], jnp.int32),
            num_refused=jnp.zeros([], jnp.int32),
            key=jnp.copy(key),  # the caller's key must survive the donation of this state
            defense=defense.init(outputs, inputs),
        )

    def query(encode, inputs, state, where=None):
        sent = jnp.ones(inputs.shape[:1], bool) if where is None else where
        number = state.num_queries + jnp.cumsum(sent, dtype=jnp.int32) - 1
        granted = sent & (number < budget)
        keys = jax.vmap(lambda n: jax.random.fold_in(state.key, n))(number)
        outputs, defense_state = defense.apply(
            jax.lax.stop_gradient(encode(jax.lax.stop_gradient(inputs))),
            state.defense,
            inputs=inputs,
            where=granted,
            keys=keys,
        )
        num_granted = jnp.sum(granted, dtype=jnp.int32)
        state = state._replace(
            num_queries=state.num_queries + num_granted,
            num_refused=state.num_refused + jnp.sum(sent, dtype=jnp.int32) - num_granted,
            defense=defense_state,
        )
        outputs = jax.lax.stop_gradient(jnp.where(granted[:, None], outputs, 0))
        return Answer(outputs, granted), state

    return Oracle(jax.tree_util.Partial(init, encode), jax.tree_util.Partial(query, encode))
