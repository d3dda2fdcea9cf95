"""The oracle: black-box access to an encoder that counts every query against an exact budget.

    oracle = make_oracle(encode, defenses.make('gaussian_noise(stddev=1.0)'), budget=9_000)
    account = oracle.init(jax.random.key(0), images)            # one account
    answer, account = oracle.query(images, account)             # bills the granted rows

Both are pure functions and pytrees (`jax.tree_util.Partial`), so an oracle goes into a compiled
step as an argument, and the victim's parameters are not baked into the program. Several accounts
are a stack of states under `jax.vmap(oracle.query)`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import defenses
from ssl_extract.defenses import Defense
from ssl_extract.errors import UserError

MAX_BUDGET = 2**30  # num_queries is an int32, and needs room for one more batch


class OracleState(NamedTuple):
    """An account: what was billed to it and what the defense remembers of it.

    Attributes:
        num_queries: int32[], granted rows so far, over all devices.
        num_refused: int32[], rows that were sent and not answered.
        num_withheld: int32[], those of them that the budget paid for and the defense refused.
        key: key[], the account's key; constant, each query folds its number in.
        defense: the state of the defense.
    """

    num_queries: jax.Array
    num_refused: jax.Array
    num_withheld: jax.Array
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
    are answered with zeros and `granted == False`. So is a row that the defense refuses: it uses up
    its place in the budget, for it was sent, but it is not billed.

    Args:
        encode: the victim. To keep its parameters out of compiled programs, give a
            `jax.tree_util.Partial(apply, variables)`; a plain function is closed over.
        defense: what is done to the answers; None is the identity.
        budget: how many queries an account may send, in [1, 2**30].

    Raises:
        UserError: the budget is not a whole number in that range.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 < budget <= MAX_BUDGET:
        raise UserError(f'budget must be a whole number from 1 to {MAX_BUDGET}, got {budget!r}')
    defense = defense or defenses.make('')
    if not isinstance(encode, jax.tree_util.Partial):
        encode = jax.tree_util.Partial(encode)
    init, query = _functions(defense)
    query = jax.tree_util.Partial(query, encode, np.int32(budget))
    return Oracle(jax.tree_util.Partial(init, encode), query)


@functools.lru_cache(maxsize=64)  # the same functions, so that one program serves several oracles
def _functions(defense: Defense) -> tuple[Callable, Callable]:
    def init(encode, key, inputs):
        outputs = jax.eval_shape(encode, inputs)
        zero = lambda: jnp.zeros([], jnp.int32)  # noqa: E731  (each its own: they are donated)
        return OracleState(
            num_queries=zero(),
            num_refused=zero(),
            num_withheld=zero(),
            key=jnp.copy(key),  # the caller's key must survive the donation of this state
            defense=defense.init(jax.random.fold_in(key, MAX_BUDGET), outputs, inputs),
        )

    def query(encode, budget, inputs, state, where=None):
        sent = jnp.ones(inputs.shape[:1], bool) if where is None else where
        number = state.num_queries + state.num_withheld + jnp.cumsum(sent, dtype=jnp.int32) - 1
        paid = sent & (number < budget)
        keys = jax.vmap(lambda n: jax.random.fold_in(state.key, n))(number)
        outputs, answered, defense_state = defense.apply(
            jax.lax.stop_gradient(encode(jax.lax.stop_gradient(inputs))),
            state.defense,
            inputs=inputs,
            where=paid,
            keys=keys,
        )
        granted = paid & answered
        num_sent, num_paid, num_granted = (
            jnp.sum(rows, dtype=jnp.int32) for rows in (sent, paid, granted)
        )
        state = state._replace(
            num_queries=state.num_queries + num_granted,
            num_refused=state.num_refused + num_sent - num_granted,
            num_withheld=state.num_withheld + num_paid - num_granted,
            defense=defense_state,
        )
        outputs = jax.lax.stop_gradient(jnp.where(granted[:, None], outputs, 0))
        return Answer(outputs, granted), state

    return init, query
