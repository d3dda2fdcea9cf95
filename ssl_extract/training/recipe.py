"""The `Recipe`, `TrainState` and `Fit` types."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax


class Recipe(NamedTuple):
    """A training as three pure functions.

    Attributes:
        init: `(key, inputs float[1, ...]) -> variables`, a dict of `params` and `batch_stats`.
        prepare: `(batch, key, ask, account) -> (batch, account, queries)`. `batch` holds the rows
            of the training arrays; `prepare` draws views and, online, asks queries:
            `ask(inputs [Q, ...], account) -> (Answer, account)` is all that an attack sees of a
            victim. `queries` is None, or (fingerprints uint32[Q, 2], granted bool[Q]) for the
            ledger.
        objective: `(params, batch_stats, batch) -> (loss f32[], (batch_stats, metrics))`.
        heads: (name, spec) of the networks that may stand behind `encoder`, in order; those among
            the params are saved with the encoder.
    """

    init: Callable[..., Any]
    prepare: Callable[..., Any]
    objective: Callable[..., Any]
    heads: tuple[tuple[str, str], ...] = ()


class TrainState(NamedTuple):
    """The state that changes from step to step; a checkpoint holds exactly this state."""

    step: jax.Array  # int32[]
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    oracle: Any  # the attacker's account (OracleState), or () where nothing is asked
    key: jax.Array  # key[], constant; each step folds the step number in


class Fit(NamedTuple):
    """A finished training: the last state, the cost and the queries."""

    state: TrainState
    seconds: float
    flops: float  # floating-point operations of all steps, as XLA counts them
    queries: np.ndarray  # uint32[Q, 2], fingerprints of the granted queries, in order
