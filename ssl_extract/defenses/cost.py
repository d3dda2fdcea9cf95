"""Defenses of cost: rate limits and proof of work, in simulated time.

No time passes and no puzzle is solved: the state adds up, as `seconds`, the time that a real
service would have made the account wait or compute.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register
from ssl_extract.defenses.buckets import Bits, Tables, buckets_of, fill, share
from ssl_extract.errors import UserError
from ssl_extract.ranges import Positive, PositiveShare, Range


class RateState(NamedTuple):
    """The progress of an account.

    Attributes:
        num_answered: int32[], the queries answered so far.
        seconds: float32[], the time from the first answer to the last.
    """

    num_answered: jax.Array
    seconds: jax.Array


class WorkState(NamedTuple):
    """The work of an account.

    Attributes:
        filled: bool[T, 2**bits], the buckets that the account has filled.
        coverage: float32[], the share of filled buckets.
        seconds: float32[], the work of all queries together.
    """

    filled: jax.Array
    coverage: jax.Array
    seconds: jax.Array


@register('rate_limit')
def rate_limit(
    queries: Annotated[int, Range(1, 2**30)] = 1000,
    seconds: Positive = 86_400.0,
    total: Annotated[int, Range(0, 2**30)] = 0,
) -> Defense:
    """Answers `queries` queries every `seconds`, and at most `total` altogether.

    The account sends as fast as the limit allows: query number n, counted from 0, is answered after
    `n // queries * seconds`. The rate costs an attack nothing but time. `total` costs answers: all
    queries beyond are refused.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('rate_limit(total=2)', [[1.0], [2.0], [3.0]])
    >>> where.tolist()
    [True, True, False]

    Args:
        queries: the number of queries that are answered in one period.
        seconds: the length of a period.
        total: the number of queries that an account may ever send; 0 is no limit.

    Raises:
        UserError: `queries` is below 1, `seconds` is not above 0 or `total` is below 0.
    """

    def init(key: jax.Array, outputs: Any, inputs: Any) -> RateState:
        return RateState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32))

    def apply(outputs, state, *, inputs, where, keys):
        number = state.num_answered + jnp.cumsum(where, dtype=jnp.int32) - 1
        answered = where & (number < total) if total else where
        count = state.num_answered + jnp.sum(answered, dtype=jnp.int32)
        periods = jnp.maximum(count - 1, 0) // queries
        return outputs, answered, RateState(count, periods.astype(jnp.float32) * seconds)

    return Defense(init, apply)


@register(
    'proof_of_work',
    compares_answers=True,
    because='it measures where representations lie, and the other one moves them',
)
def proof_of_work(
    seconds: Positive = 1.0,
    benign: PositiveShare = 0.2,
    doubling: PositiveShare = 0.1,
    bits: Bits = 12,
    tables: Tables = 20,
) -> Defense:
    """Makes a query cost more computing the more of the space the account has seen.

    After Dziedzic et al., "Increasing the Cost of Model Extraction with Calibrated Proof of Work"
    (ICLR 2022, https://arxiv.org/abs/2201.09243): a puzzle has to be solved for each answer, and
    the difficulty follows the information that the account's queries reveal. The paper measures the
    information by the privacy budget of votes on labels, which representations do not have. Here
    the measure is the share E of the buckets that the account has filled (`buckets.buckets_of`). A
    query costs `seconds * 2 ** (max(E - benign, 0) / doubling)`. With the defaults an account with
    E = 0.3 pays twice the base and an account with E = 0.86 a hundred times, the two factors of the
    paper.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('proof_of_work(bits=1, tables=1)', [[1.0, 0.0]])
    >>> round(defenses.noticed(state)['proof_of_work.seconds'], 3)  # 2 ** ((0.5 - 0.2) / 0.1)
    8.0

    Args:
        seconds: the cost of a query at first.
        benign: the coverage, in (0, 1], up to which the cost stays.
        doubling: the further coverage that doubles the cost, in (0, 1].
        bits, tables: as of `bucket_coverage`.

    Raises:
        UserError: an argument is out of its range.
    """
    if doubling < (1 - benign) / 64:
        raise UserError(
            f'doubling={doubling} doubles the cost more than 64 times; write at least '
            f'{(1 - benign) / 64:.2g}'
        )

    def init(key: jax.Array, outputs: Any, inputs: Any) -> WorkState:
        return WorkState(
            filled=jnp.zeros((tables, 2**bits), bool),
            coverage=jnp.zeros([], jnp.float32),
            seconds=jnp.zeros([], jnp.float32),
        )

    def apply(outputs, state, *, inputs, where, keys):
        coverage, filled = fill(state.filled, buckets_of(outputs, bits, tables), where)
        cost = seconds * 2 ** (jnp.maximum(coverage - benign, 0) / doubling)
        total = state.seconds + jnp.sum(jnp.where(where, cost, 0))
        return outputs, where, WorkState(filled, share(filled), total)

    return Defense(init, apply)
