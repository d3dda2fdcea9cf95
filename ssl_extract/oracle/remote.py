"""Oracles of victims that are no JAX functions.

The victim sees the granted rows only, unpadded, as NumPy arrays. Answers are not stored here:
`ssl_extract.oracle.store` writes each batch to disk before the next is sent.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract.defenses import Defense
from ssl_extract.errors import UserError
from ssl_extract.oracle import oracle
from ssl_extract.runtime import hosts
from ssl_extract.victims.answers import check_answers
from ssl_extract.victims.model import Victim


def functions(victim: Victim, defense: Defense, budget: int) -> tuple[Callable, Callable]:
    """Makes `init` and `query` of an `Oracle` for a victim that takes and returns NumPy arrays.

    `query` takes the folder of the account too, in which a service's client keeps its books.
    """
    charge, defend = _compiled(defense)

    def init(key: jax.Array, inputs: Any) -> oracle.OracleState:
        outputs = jax.ShapeDtypeStruct((inputs.shape[0], victim.dim), jnp.float32)
        return oracle.open_account(defense, key, outputs, inputs)

    def query(
        inputs: Any,
        state: oracle.OracleState,
        where: Any = None,
        folder: epath.Path | None = None,
    ) -> tuple[oracle.Answer, oracle.OracleState]:
        inputs = np.asarray(inputs)
        sent = np.ones(len(inputs), bool) if where is None else np.asarray(where, bool)
        paid, keys = charge(state, sent, np.int32(budget))
        rows = np.flatnonzero(paid)
        outputs, served = np.zeros((len(inputs), victim.dim), np.float32), np.array(paid)
        if len(rows) and victim.service:
            number = int(state.num_queries + state.num_refused)
            outputs[rows], served[rows] = hosts.agreed_arrays(
                lambda: victim.service.send(inputs[rows], folder, number)
            )
        elif len(rows):
            outputs[rows] = answers_of(victim, inputs[rows])
        return defend(outputs, state, inputs=inputs, sent=sent, paid=paid, keys=keys, served=served)

    return init, query


def answers_of(victim: Victim, inputs: np.ndarray) -> np.ndarray:
    """Calls the victim once with `inputs` [n, ...] and checks the answers, float32 [n, dim].

    Of several processes the first one calls it, and tells the others.

    Raises:
        UserError: the answers have another shape, or are not finite numbers; or the victim ends the
            process.
    """
    return hosts.agreed_arrays(lambda: (_call(victim, inputs),))[0]


def _call(victim: Victim, inputs: np.ndarray) -> np.ndarray:
    try:
        answers = victim.answer(inputs)
    except SystemExit as error:
        raise UserError(
            f'victim {victim.address}: it calls sys.exit({error.code!r}): let it raise an error'
        ) from error
    return check_answers(victim.address, answers, len(inputs), victim.dim)


# Cached, so that victims with the same defense and width share one compiled program.
@functools.lru_cache(maxsize=64)
def _compiled(defense: Defense) -> tuple[Callable, Callable]:
    return jax.jit(oracle.charge), jax.jit(functools.partial(oracle.defend, defense))
