"""The `Recipe`, `TrainState` and `Fit` types."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax


class Recipe(NamedTuple):
    """What is trained: three pure functions.

    Attributes:
        init: `(key, inputs float[1, ...]) -> variables`, a dict of `params` and `batch_stats`.
        prepare: `(batch, key, ask, account) -> (batch, account, asked)`. `batch` holds the rows of
            the training arrays; here views are drawn and, online, queries are asked:
            `ask(queries [Q, ...], account) -> (Answer, account)` is all that an attack sees of
            a victim. `asked` is None, or (queries' fingerprints uint32[Q, 2], granted bool[Q]) for
            the ledger.
        objective: `(params, batch_stats, batch) -> (loss f32[], (batch_stats, metrics))`.
        heads: (name, spec) of the networks that may stand behind `encoder`, in their order; those
            that are among the params are saved with it.
    """

    init: Callable[..., Any]
    prepare: Callable[..., Any]
    objective: Callable[..., Any]
    heads: tuple[tuple[str, str], ...] = ()


class TrainState(NamedTuple):
    """All that changes from step to step; a checkpoint holds exactly this."""

    step: jax.Array  # int32[]
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    oracle: Any  # the attacker's account (OracleState), or () where nothing is asked
    key: jax.Array  # key[], constant: each step folds its number in


class Fit(NamedTuple):
    """A finished training: its last state, what it took, and what it asked."""

    state: TrainState
    seconds: float
    flops: float  # floating-point operations of all steps, as XLA counts them
    asked: np.ndarray  # uint32[Q, 2], fingerprints of the granted queries in the order asked
