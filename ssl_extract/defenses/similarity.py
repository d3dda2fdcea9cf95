"""The similarity guard: a detector of augmented repeats.

arXiv 2205.07890, section 5.3.

Section 5.3 of the paper: contrastive attackers ask several augmentations of each image, whose
answers lie close together. A `History` keeps an account's last answers; `similarity_guard` acts on
it, and `ssl_extract.defenses.prada` looks at the distances that it gives.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.checks import check_number, check_whole
from ssl_extract.defenses.base import Defense, apply_where, make, needs, register
from ssl_extract.errors import UserError
from ssl_extract.numerics import check_metric

SPACES = ('answer', 'projection')
MAX_CAPACITY = 2**30


class History(NamedTuple):
    """A ring buffer: the row with the order number n (the first is 0) lies in slot `n % C`.

    Attributes:
        rows: float32[C, P]; of length 1 where the metric is cosine.
        squares: float32[C], their squared lengths; zeros where the metric is cosine.
    """

    rows: jax.Array
    squares: jax.Array


class SimilarityState(NamedTuple):
    """What the guard knows of an account.

    Attributes:
        history: its last `capacity` answers.
        num_seen: int32[], queries answered so far.
        num_flagged: int32[], those of them that resembled an earlier one.
        then: the state of the defense that acts on them.
    """

    history: History
    num_seen: jax.Array
    num_flagged: jax.Array
    then: Any


@register(
    'similarity_guard',
    needs=lambda of, then, **_: ('head',) * (of == 'projection' or 'head' in needs(then)),
    compares_answers=True,
    because='it compares representations, and the other one moves them',
)
def similarity_guard(
    threshold: float = 0.95,
    metric: str = 'cosine',
    of: str = 'answer',
    capacity: int = 4096,
    then: str = 'replace(mean=1000.0, stddev=20.0)',
    head: Callable[[jax.Array], jax.Array] | None = None,
) -> Defense:
    """Flags an answer that is similar to one of the account's last ones, and does `then` to it.

    A row is compared with exactly the `capacity` answered rows before it, those earlier in its own
    batch included, whatever the batches; flagged rows are remembered like the others. An account
    takes `capacity x D x 4` bytes (P in place of D for projections): 4,096 x 512 are 8 MiB, 250,000
    x 2,048 are 1.9 GiB.

    The paper compares the head's outputs, flags `cosine > 0.5` or `L2 < 13`, and replaces what is
    flagged by N(1000, 20^2) (arXiv 2205.07890, sections 5.3 and A.2, tables 12-15). Thresholds
    depend on the victim, and on the capacity, for among more answers a new one resembles some by
    chance: a cosine of 0.93 between representations of a small CIFAR-10 victim of ours flags 1 % of
    new images with a capacity of 1 and 31 % with 50. Choose them with `python -m
    ssl_extract.studies.detection`.

    Args:
        threshold: flags a cosine above it, or an L2 distance below it.
        metric: 'cosine' or 'l2'.
        of: compares the 'answer' as it arrives, or the 'projection' that `head` makes of it.
        capacity: answers remembered of an account.
        then: what is done to the flagged rows, a chain of defenses; '' only counts them.
        head: representations [B, D] -> projections [B, P]; the victim's owner gives it.

    Raises:
        UserError: an argument is out of range; projections without a head; `then` changes the width
            of the answers (at `init`).
    """
    check_metric(metric)
    check_whole('capacity', capacity, 1, MAX_CAPACITY)
    if of not in SPACES:
        raise UserError(f'of={of!r}: write {" or ".join(map(repr, SPACES))}')
    if of == 'projection' and head is None:
        raise UserError(
            "of='projection': there is no projection head behind these answers (or none was given "
            "with make(spec, head=...)): write of='answer'"
        )
    check_number('threshold', threshold)
    low, high = (-1, 1) if metric == 'cosine' else (0, math.inf)
    if not low < threshold < high:
        accepted = 'between -1 and 1' if metric == 'cosine' else 'above 0'
        raise UserError(f'threshold={threshold!r}: for metric={metric!r} write one {accepted}')
    acting = make(then, head=head)
    space = head if of == 'projection' else lambda outputs: outputs

    def init(key, outputs, inputs):
        state = acting.init(key, outputs, inputs)
        check_width(then, acting, state, outputs, inputs)
        dim = jax.eval_shape(space, outputs).shape[-1]
        zero = lambda: jnp.zeros([], jnp.int32)  # noqa: E731  (each its own: they are donated)
        return SimilarityState(new_history(capacity, dim), zero(), zero(), state)

    def apply(outputs, state, *, inputs, where, keys):
        measured, found, history = recall(
            state.history, state.num_seen, space(outputs), where, metric
        )
        similar = measured > threshold if metric == 'cosine' else measured < threshold
        flagged = similar & found & where
        outputs, answered, acted = apply_where(
            flagged, acting, outputs, state.then, inputs=inputs, where=where, keys=keys
        )
        state = SimilarityState(
            history,
            state.num_seen + jnp.sum(where, dtype=jnp.int32),
            state.num_flagged + jnp.sum(flagged, dtype=jnp.int32),
            acted,
        )
        return outputs, answered, state

    return Defense(init, apply)


def new_history(capacity: int, dim: int) -> History:
    """An empty history of `capacity` rows of width `dim`."""
    return History(jnp.zeros((capacity, dim), jnp.float32), jnp.zeros(capacity, jnp.float32))


def recall(
    history: History, num_seen: jax.Array, outputs: jax.Array, where: jax.Array, metric: str
) -> tuple[jax.Array, jax.Array, History]:
    """Compares each row with the C answered rows before it, and remembers the batch.

    The most similar row is found by `2 a.b - |b|^2`, a matrix product; what is returned is then
    computed directly, without the difference of large numbers.

    Args:
        history: of the answered rows before this batch.
        num_seen: int32[], how many there were.
        outputs: [B, P].
        where: bool[B], the answered rows of the batch.
        metric: of the history: 'cosine' or 'l2'.

    Returns:
        (float32[B], the cosine or distance to the most similar row; bool[B], False where there was
        no row before; the history after the batch).
    """
    rows, squares = _prepare(outputs, metric)
    capacity, slots = len(history.rows), jnp.arange(len(history.rows))
    order = num_seen + jnp.cumsum(where, dtype=jnp.int32) - 1
    held = num_seen - 1 - (num_seen - 1 - slots) % capacity  # order number in each slot; < 0: none
    held, mine = held[None], order[:, None]
    in_history = (held >= 0) & (held >= mine - capacity)  # [B, C]
    other = order[None]
    in_batch = where[None] & (other < mine) & (other >= mine - capacity)  # [B, B]
    i, past = _best(rows, history.rows, history.squares, in_history)
    j, present = _best(rows, rows, squares, in_batch)
    closest = jnp.where((past >= present)[:, None], history.rows[i], rows[j])
    measured = _measure(rows, closest, metric)

    # NaN is not remembered, nor could it be compared. That the rows to write depend on the reads
    # also keeps XLA from copying the whole history.
    bad = jnp.isnan(measured)
    survives = where & (order > order[-1] - capacity)
    slots = jnp.where(survives, order % capacity, capacity)  # past the end: dropped
    history = History(
        history.rows.at[slots].set(jnp.where(bad[:, None], 0, rows), mode='drop'),
        history.squares.at[slots].set(jnp.where(bad, 0, squares), mode='drop'),
    )
    return measured, jnp.maximum(past, present) > -jnp.inf, history


def check_width(then: str, acting: Defense, state: Any, outputs: Any, inputs: Any) -> None:
    """Raises UserError if the defense `then`, built as `acting`, changes the answers' width."""

    def act(state, outputs, inputs, keys):
        where = jnp.ones(len(outputs), bool)
        return acting.apply(outputs, state, inputs=inputs, where=where, keys=keys)[0]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), outputs.shape[0]))
    width = jax.eval_shape(act, state, outputs, inputs, keys).shape[-1]
    if width != outputs.shape[-1]:
        raise UserError(
            f'then={then!r}: it makes answers of width {width} of width {outputs.shape[-1]}, and '
            'all of an account must be alike: write a defense that keeps the width'
        )


def _prepare(rows: jax.Array, metric: str) -> tuple[jax.Array, jax.Array]:
    rows = rows.astype(jnp.float32)
    squares = jnp.sum(rows**2, axis=1)
    if metric == 'cosine':
        length = jnp.sqrt(squares)[:, None]
        return rows / jnp.where(length > 0, length, 1), jnp.zeros_like(squares)
    return rows, squares


def _measure(rows: jax.Array, others: jax.Array, metric: str) -> jax.Array:
    if metric == 'cosine':
        return jnp.sum(rows * others, axis=1)
    return jnp.sqrt(jnp.sum((rows - others) ** 2, axis=1))


def _best(
    rows: jax.Array, others: jax.Array, squares: jax.Array, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
    product = jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)
    score = 2 * product - squares[None]
    score = jnp.where(seen & ~jnp.isnan(score), score, -jnp.inf)
    return jnp.argmax(score, axis=1), jnp.max(score, axis=1)
