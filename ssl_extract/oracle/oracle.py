"""The oracle: charge, encode and defend under an exact budget.

    oracle = make_oracle(encode, 'gaussian_noise(stddev=1.0)', budget=9_000)
    account = oracle.init(jax.random.key(0), inputs)            # one account
    answer, account = oracle.query(inputs, account)             # bills the granted rows

A query has three parts, on one ledger. *Charge* finds the rows that the budget pays for, and their
keys. *Encode* is the victim. *Defend* transforms the answers, may refuse some, and books the rest.
For a victim that is a JAX function all three are one pure function, and the oracle is a pytree:
it goes into a compiled step as an argument, and the victim's parameters are not part of the
program. Several accounts are a stack of states under `jax.vmap(oracle.query)`. For any other victim
`ssl_extract.oracle.remote` runs the same charge and defend around a call from the host.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import defenses
from ssl_extract.defenses import Defense
from ssl_extract.errors import UserError
from ssl_extract.victims.model import Victim

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


@dataclasses.dataclass(frozen=True, eq=False)
class About:
    """What an oracle is, in words. It is equal to any other, so that oracles share programs.

    Attributes:
        victim: the victim's address.
        defense: the defense's spec; '(a function)' where it was given as one.
        budget: queries that an account may send.
        answers: what an answer is; see `Victim`.
        input_shape: of one input; None where the victim takes any, or does not say.
        dim: width of the victim's answers; 0 where only its outputs tell.
    """

    victim: str = ''
    defense: str = ''
    budget: int = 0
    answers: str = 'representation'
    input_shape: tuple[int, ...] | None = None
    dim: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, About)

    def __hash__(self) -> int:
        return 0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['init', 'query'],
    meta_fields=['traced', 'about'],
)
@dataclasses.dataclass(frozen=True)
class Oracle:
    """Two functions; pure ones, where the victim is a JAX function.

    Attributes:
        init: `(key, inputs) -> OracleState`; a new account. Of `inputs` only the shape matters.
        query: `(inputs [B, ...], state, where=None) -> (Answer, OracleState)`. Rows with
            `where == False` are padding: they are neither sent nor counted. No gradient passes.
        traced: whether both may be called under `jit`.
        about: victim, defense and budget, in words.
    """

    init: Callable[..., OracleState]
    query: Callable[..., tuple[Answer, OracleState]]
    traced: bool = True
    about: About = About()


def make_oracle(
    victim: Victim | Callable[[jax.Array], jax.Array],
    defense: Defense | str | None = None,
    *,
    budget: int,
) -> Oracle:
    """Black-box access to a victim ([B, ...] -> [B, D]) behind `defense`, for `budget` queries.

    The first `budget` rows sent are granted, whatever the batches, devices and restarts; later rows
    are answered with zeros and `granted == False`. So is a row that the defense refuses: it uses up
    its place in the budget, for it was sent, but it is not billed.

    >>> inputs = jnp.ones((4, 2))
    >>> oracle = make_oracle(lambda x: 2 * x, 'round(decimals=1)', budget=3)
    >>> answer, account = oracle.query(inputs, oracle.init(jax.random.key(0), inputs))
    >>> answer.granted.tolist(), int(account.num_queries)
    ([True, True, True, False], 3)

    Args:
        victim: a `Victim`, or a JAX function. To keep a function's parameters out of compiled
            programs, give a `jax.tree_util.Partial(apply, variables)`; a plain function is closed
            over.
        defense: what is done to the answers, or its spec; None is the identity.
        budget: how many queries an account may send, in [1, 2**30].

    Raises:
        UserError: the budget is not a whole number in that range, or the defense's spec is wrong.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 < budget <= MAX_BUDGET:
        raise UserError(f'budget must be a whole number from 1 to {MAX_BUDGET}, got {budget!r}')
    written = isinstance(defense, str)
    about = About('', defense if written else '(a function)' if defense else '', budget)
    if isinstance(victim, Victim):
        about = dataclasses.replace(
            about,
            victim=victim.address,
            answers=victim.answers,
            input_shape=victim.input_shape,
            dim=victim.dim,
        )
    made = defenses.make(defense) if written else defense or defenses.make('')
    if isinstance(victim, Victim) and not victim.traced:
        from ssl_extract.oracle import remote  # it needs the parts below

        return Oracle(*remote.functions(victim, made, budget), traced=False, about=about)
    encode = victim.answer if isinstance(victim, Victim) else victim
    if not isinstance(encode, jax.tree_util.Partial):
        encode = jax.tree_util.Partial(encode)
    init, query = _functions(made)
    query = jax.tree_util.Partial(query, encode, np.int32(budget))
    return Oracle(jax.tree_util.Partial(init, encode), query, about=about)


def open_account(defense: Defense, key: jax.Array, outputs: Any, inputs: Any) -> OracleState:
    """A new account; of `outputs [B, D]` and `inputs [B, ...]` only the shapes matter."""
    zero = lambda: jnp.zeros([], jnp.int32)  # noqa: E731  (each its own: they are donated)
    return OracleState(
        num_queries=zero(),
        num_refused=zero(),
        num_withheld=zero(),
        key=jnp.copy(key),  # the caller's key must survive the donation of this state
        defense=defense.init(jax.random.fold_in(key, MAX_BUDGET), outputs, inputs),
    )


def charge(
    state: OracleState, sent: jax.Array, budget: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Finds the rows that the budget pays for, and every row's key.

    Args:
        state: the account before the rows.
        sent: bool[B], False for padding.
        budget: of the oracle.

    Returns:
        bool[B] of the rows to encode, and key[B], made from the account's key and the number of
        the query, whatever the batch.
    """
    number = state.num_queries + state.num_withheld + jnp.cumsum(sent, dtype=jnp.int32) - 1
    keys = jax.vmap(lambda n: jax.random.fold_in(state.key, n))(number)
    return sent & (number < budget), keys


def defend(
    defense: Defense,
    outputs: jax.Array,
    state: OracleState,
    *,
    inputs: jax.Array,
    sent: jax.Array,
    paid: jax.Array,
    keys: jax.Array,
) -> tuple[Answer, OracleState]:
    """Transforms the victim's outputs [B, D] into answers and books them.

    Args:
        defense: what is done to the outputs.
        outputs: float[B, D], of the rows in `paid`; other rows hold anything.
        state: the account before the rows.
        inputs: [B, ...], what was sent.
        sent, paid, keys: of `charge`.
    """
    outputs, answered, defense_state = defense.apply(
        outputs, state.defense, inputs=inputs, where=paid, keys=keys
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


@functools.lru_cache(maxsize=64)  # the same functions, so that one program serves several oracles
def _functions(defense: Defense) -> tuple[Callable, Callable]:
    def init(encode, key, inputs):
        return open_account(defense, key, jax.eval_shape(encode, inputs), inputs)

    def query(encode, budget, inputs, state, where=None):
        sent = jnp.ones(inputs.shape[:1], bool) if where is None else where
        paid, keys = charge(state, sent, budget)
        outputs = jax.lax.stop_gradient(encode(jax.lax.stop_gradient(inputs)))
        return defend(defense, outputs, state, inputs=inputs, sent=sent, paid=paid, keys=keys)

    return init, query
