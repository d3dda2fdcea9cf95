"""The oracle: charge, encode and defend under an exact budget.

    oracle = make_oracle(encode, 'gaussian_noise(stddev=1.0)', budget=9_000)
    account = oracle.init(jax.random.key(0), inputs)            # one account
    answer, account = oracle.query(inputs, account)             # bills the granted rows

A query has three parts, on one ledger. *Charge* finds the rows that the budget pays for, and the
keys of the rows. *Encode* is the victim. *Defend* transforms the answers, refuses some perhaps, and
bills the rest. For a victim that is a JAX function all three are one pure function, and the oracle
is a pytree: it is an argument of compiled steps, and the victim's parameters are not part of the
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
from ssl_extract.victims.service import Service

MAX_BUDGET = 2**30  # num_queries is an int32, and needs room for one more batch


class OracleState(NamedTuple):
    """An account: the billed queries and the state of the defense.

    Attributes:
        num_queries: int32[], granted rows so far, over all devices.
        num_refused: int32[], rows that were sent and not answered.
        num_withheld: int32[], refused rows that the budget paid for and the defense refused.
        key: key[], the account's key; constant, since each query folds the query's number in.
        defense: the state of the defense.
    """

    num_queries: jax.Array
    num_refused: jax.Array
    num_withheld: jax.Array
    key: jax.Array
    defense: Any


class Answer(NamedTuple):
    """Answers to a batch: representations float[B, D] (zeros where refused) and granted bool[B]."""

    representations: jax.Array
    granted: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class About:
    """The description of an oracle. All descriptions are equal, so that oracles share programs.

    Attributes:
        victim: the victim's address.
        defense: the defense's spec; '(a function)' of a defense without a spec.
        budget: number of queries that an account may send.
        answers: the kind of an answer; see `Victim`.
        input_shape: of one input; None where the victim takes any, or where it is unknown.
        dim: width of the victim's answers; 0 where it is unknown.
        encoder: the spec of the victim's network; '' where it is unknown.
        knows, service: see `Victim`.
    """

    victim: str = ''
    defense: str = ''
    budget: int = 0
    answers: str = 'representation'
    input_shape: tuple[int, ...] | None = None
    dim: int = 0
    encoder: str = ''
    knows: Callable[[np.ndarray], np.ndarray] | None = None
    service: Service | None = None

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
    """Access to a victim by two functions, which are pure where the victim is a JAX function.

    Attributes:
        init: `(key, inputs) -> OracleState`, a new account. Of `inputs` only the shape matters.
        query: `(inputs [B, ...], state, where=None) -> (Answer, OracleState)`. Rows with
            `where == False` are padding, which is neither sent nor counted. No gradient passes.
        traced: whether both functions may be called under `jit`.
        about: victim, defense and budget.
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
    """Makes black-box access to a victim ([B, ...] -> [B, D]), for `budget` queries an account.

    The first `budget` rows sent are granted, whatever the batches, devices and restarts. Later rows
    are answered with zeros and `granted == False`. A row that the defense refuses is answered
    likewise: it takes a place in the budget, because it was sent, but it is not billed.

    >>> inputs = jnp.ones((4, 2))
    >>> oracle = make_oracle(lambda x: 2 * x, 'round(decimals=1)', budget=3)
    >>> answer, account = oracle.query(inputs, oracle.init(jax.random.key(0), inputs))
    >>> answer.granted.tolist(), int(account.num_queries)
    ([True, True, True, False], 3)

    Args:
        victim: a `Victim`, or a JAX function. A `jax.tree_util.Partial(apply, variables)` keeps
            the function's parameters out of compiled programs; a plain function becomes part of
            the programs.
        defense: of the answers, or the spec of a defense; None is the identity.
        budget: number of queries that an account may send, in [1, 2**30].

    Raises:
        UserError: the budget is not a whole number in [1, 2**30], or the defense's spec is wrong.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 < budget <= MAX_BUDGET:
        raise UserError(f'budget must be a whole number from 1 to {MAX_BUDGET}, got {budget!r}')
    is_spec = isinstance(defense, str)
    about = About('', defense if is_spec else '(a function)' if defense else '', budget)
    if isinstance(victim, Victim):
        about = dataclasses.replace(
            about,
            victim=victim.address,
            answers=victim.answers,
            input_shape=victim.input_shape,
            dim=victim.dim,
            encoder=victim.encoder.spec if victim.encoder else '',
            knows=victim.knows,
            service=victim.service,
        )
    defense = defenses.make(defense) if is_spec else defense or defenses.make('')
    if isinstance(victim, Victim) and not victim.traced:
        from ssl_extract.oracle import remote  # which imports this module

        return Oracle(*remote.functions(victim, defense, budget), traced=False, about=about)
    encode = victim.answer if isinstance(victim, Victim) else victim
    if not isinstance(encode, jax.tree_util.Partial):
        encode = jax.tree_util.Partial(encode)
    init, query = _functions(defense)
    query = jax.tree_util.Partial(query, encode, np.int32(budget))
    return Oracle(jax.tree_util.Partial(init, encode), query, about=about)


def open_account(defense: Defense, key: jax.Array, outputs: Any, inputs: Any) -> OracleState:
    """Opens an account; of `outputs [B, D]` and `inputs [B, ...]` only the shapes matter."""
    zero = lambda: jnp.zeros([], jnp.int32)  # noqa: E731  (a new array each, for donation)
    return OracleState(
        num_queries=zero(),
        num_refused=zero(),
        num_withheld=zero(),
        key=jnp.copy(key),  # a copy, so that the caller's key survives the donation of the state
        defense=defense.init(jax.random.fold_in(key, MAX_BUDGET), outputs, inputs),
    )


def charge(
    state: OracleState, sent: jax.Array, budget: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Finds the rows that the budget pays for, and the keys of all rows.

    Queries are numbered over the life of an account. A number is a place in the budget and the seed
    of the query's key, so that neither depends on the batches.

    Args:
        state: the account before the rows.
        sent: bool[B], False for padding.
        budget: of the oracle.

    Returns:
        (bool[B], the rows to encode; key[B], made from the account's key and the query's number).
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
    served: jax.Array | None = None,
) -> tuple[Answer, OracleState]:
    """Transforms the victim's outputs [B, D] into answers, and bills the granted rows.

    Args:
        defense: of the outputs.
        outputs: float[B, D], of the rows in `paid`; other rows may hold anything.
        state: the account before the rows.
        inputs: [B, ...], the queries.
        sent, paid, keys: of `charge`.
        served: bool[B], the rows that the victim answered; it is a service with a defense of its
            own where some are missing, which count as refused. None is all.

    Returns:
        The answers and the account after the rows.
    """
    encoded = paid if served is None else paid & served
    outputs, answered, defense_state = defense.apply(
        outputs, state.defense, inputs=inputs, where=encoded, keys=keys
    )
    granted = encoded & answered
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


# Cached, so that oracles with the same defense share one compiled program.
@functools.lru_cache(maxsize=64)
def _functions(defense: Defense) -> tuple[Callable, Callable]:
    def init(encode: Callable, key: jax.Array, inputs: Any) -> OracleState:
        return open_account(defense, key, jax.eval_shape(encode, inputs), inputs)

    def query(
        encode: Callable,
        budget: jax.typing.ArrayLike,
        inputs: jax.Array,
        state: OracleState,
        where: jax.Array | None = None,
    ) -> tuple[Answer, OracleState]:
        sent = jnp.ones(inputs.shape[:1], bool) if where is None else where
        paid, keys = charge(state, sent, budget)
        outputs = jax.lax.stop_gradient(encode(jax.lax.stop_gradient(inputs)))
        return defend(defense, outputs, state, inputs=inputs, sent=sent, paid=paid, keys=keys)

    return init, query
