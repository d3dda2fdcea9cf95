"""The similarity guard: a detector of augmented repeats.

arXiv 2205.07890, section 5.3.

Contrastive attackers ask several augmentations of each image, whose answers lie close together. A
`History` keeps an account's last answers. `similarity_guard` acts on similar answers, and
`ssl_extract.defenses.prada` tests the distances between answers.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, apply_where, make, needs, register
from ssl_extract.errors import UserError
from ssl_extract.numerics import check_metric, lengths, magnitude, normalize
from ssl_extract.ranges import Range, Real

SPACES = ('answer', 'projection')
Capacity = Annotated[int, Range(1, 2**30)]  # answers in a history


class History(NamedTuple):
    """A ring buffer: the row with the order number n (the first is 0) lies in slot `n % C`.

    Attributes:
        rows: float32[C, P], (answer - origin) / scale; of the answer at length 1 where the metric
            is cosine.
        squares: float32[C], the squared lengths of the rows; see `_best`.
        origin: float32[P], the first answer of the account. A victim's answers may lie far from 0
            and close together, and products keep more digits around one of them.
        scale: float32[1], a power of two near the first answer, so that squares of large answers
            do not overflow; 1 where the metric is cosine.
    """

    rows: jax.Array
    squares: jax.Array
    origin: jax.Array
    scale: jax.Array


class SimilarityState(NamedTuple):
    """The state of the guard for an account.

    Attributes:
        history: the last `capacity` answers.
        num_seen: int32[], queries answered so far.
        num_flagged: int32[], the answered queries that resembled an earlier query.
        then: the state of the defense that acts on flagged queries.
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
    threshold: Real = 0.95,
    metric: str = 'cosine',
    of: str = 'answer',
    capacity: Capacity = 4096,
    then: str = 'replace(mean=1000.0, stddev=20.0)',
    head: Callable[[jax.Array], jax.Array] | None = None,
) -> Defense:
    """Flags an answer that is similar to one of the account's last answers, and applies `then`.

    A row is compared with exactly the `capacity` answered rows before it, however the queries were
    batched. Flagged rows join the history like other rows. An account takes `capacity x D x 4`
    bytes (P in place of D for projections): 4,096 x 512 are 8 MiB, 250,000 x 2,048 are 1.9 GiB.

    The paper compares the head's outputs, flags `cosine > 0.5` or `L2 < 13`, and replaces flagged
    answers by N(1000, 20^2) (arXiv 2205.07890, sections 5.3 and A.2, tables 12-15). Thresholds
    depend on the victim, and on the capacity, since a new answer resembles one of more answers by
    chance: a cosine of 0.93 between representations of a small CIFAR-10 victim flags 1 % of new
    images with a capacity of 1 and 31 % with 50. Choose thresholds with
    `python -m ssl_extract.studies.detection`.

    >>> from ssl_extract import defenses
    >>> defense = similarity_guard(threshold=0.9, capacity=8, then='refuse')
    >>> outputs, where, _ = defenses.apply_once(defense, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    >>> where.tolist()
    [True, True, False]

    Args:
        threshold: a cosine above, or an L2 distance below, is flagged.
        metric: 'cosine' or 'l2'.
        of: 'answer' compares answers as they arrive, 'projection' the outputs of `head` for them.
        capacity: number of answers in an account's history.
        then: the chain of defenses for flagged rows; '' only counts the rows.
        head: representations [B, D] -> projections [B, P], from the victim's owner.

    Raises:
        UserError: an argument is out of range; projections without a head; `then` changes the width
            of the answers (at `init`).
    """
    check_metric(metric)
    if of not in SPACES:
        raise UserError(f'of={of!r}: write {" or ".join(map(repr, SPACES))}')
    if of == 'projection' and head is None:
        raise UserError(
            "of='projection': there is no projection head behind these answers (or none was given "
            "with make(spec, head=...)): write of='answer'"
        )
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
        # Two arrays, since each is donated.
        num_seen, num_flagged = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        return SimilarityState(new_history(capacity, dim), num_seen, num_flagged, state)

    def apply(outputs, state, *, inputs, where, keys):
        distance, compared, history = recall(
            state.history, state.num_seen, space(outputs), where, metric
        )
        similar = distance < (1 - threshold if metric == 'cosine' else threshold)
        flagged = similar & compared & where
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
    """Makes an empty history of `capacity` rows of width `dim`."""
    shapes = (capacity, dim), (capacity,), (dim,), (1,)
    return History(*(jnp.zeros(shape, jnp.float32) for shape in shapes))


def recall(
    history: History, num_seen: jax.Array, outputs: jax.Array, where: jax.Array, metric: str
) -> tuple[jax.Array, jax.Array, History]:
    """Compares each row with the C answered rows before it, and adds the batch to the history.

    A matrix product, `2 a.b - |b|^2`, selects the nearest row. The returned distance is computed
    from the two rows directly, without the difference of large numbers. One minus the cosine is
    half of the squared distance of the rows at length 1.

    Args:
        history: the answered rows before the batch.
        num_seen: int32[], the number of answered rows before the batch.
        outputs: [B, P].
        where: bool[B], the answered rows of the batch.
        metric: of the history: 'cosine' or 'l2'.

    Returns:
        (float32[B], the distance to the nearest row, which is one minus the cosine where the metric
        is cosine; bool[B], False where there was no earlier row; the history after the batch).
    """
    # Answered rows are numbered from 0 over the life of the account, and row n lies in slot n % C,
    # so that a slot holds the newest row of its residue. Row n is compared with the rows n - C to
    # n - 1. Some of them lie in the history, which holds the rows before the batch, and the others
    # earlier in the batch. Both are searched under a mask of row numbers, and the better one wins:
    # the result is the same for all divisions into batches. The batch is written last.
    capacity, slots = len(history.rows), jnp.arange(len(history.rows))
    order = num_seen + jnp.cumsum(where, dtype=jnp.int32) - 1
    finite = jnp.all(jnp.isfinite(outputs), axis=1)
    rows = jnp.where(finite[:, None], outputs, 0).astype(jnp.float32)
    rows = normalize(rows) if metric == 'cosine' else rows
    first = jnp.sum(jnp.where((where & (order == 0))[:, None], rows, 0), axis=0)
    first_scale = jnp.ones(1) if metric == 'cosine' else magnitude(first)
    origin = jnp.where(num_seen > 0, history.origin, first)
    scale = jnp.where(num_seen > 0, history.scale, first_scale)
    has_length = jnp.any(rows != 0, axis=1)
    rows = (rows - origin[None]) / scale[None]
    squares = jnp.sum(rows**2, axis=1) + (~has_length if metric == 'cosine' else 0)
    held = num_seen - 1 - (num_seen - 1 - slots) % capacity  # row number in each slot; < 0: none
    held, number = held[None], order[:, None]
    in_history = (held >= 0) & (held >= number - capacity)  # [B, C]
    other = order[None]
    in_batch = where[None] & (other < number) & (other >= number - capacity)  # [B, B]
    i, past = _best(rows, history.rows, history.squares, in_history)
    j, present = _best(rows, rows, squares, in_batch)
    closest = jnp.where((past >= present)[:, None], history.rows[i], rows[j])
    distance = scale * lengths(rows - closest)[:, 0]
    if metric == 'cosine':  # 0 with a row of zeros
        both = has_length & jnp.any(closest != -origin[None], axis=1)
        distance = jnp.where(both, distance**2 / 2, 1)
    distance = jnp.where(finite, distance, jnp.nan)

    # An answer that is not finite cannot be compared, and a zero answer is written in its place.
    # The rows to write depend on the reads, which also keeps XLA from copying the whole history.
    written = jnp.where(jnp.isnan(distance)[:, None], -origin[None] / scale[None], rows)
    survives = where & (order > order[-1] - capacity)
    slots = jnp.where(survives, order % capacity, capacity)  # past the end: dropped
    history = History(
        history.rows.at[slots].set(written, mode='drop'),
        history.squares.at[slots].set(squares, mode='drop'),
        origin,
        scale,
    )
    return distance, jnp.maximum(past, present) > -jnp.inf, history


def check_width(then: str, acting: Defense, state: Any, outputs: Any, inputs: Any) -> None:
    """Raises UserError if the defense `then`, made as `acting`, changes the width of answers."""

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


def _best(
    rows: jax.Array, others: jax.Array, squares: jax.Array, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Finds the nearest of the rows that `seen` bool[B, C] marks, and the score.

    The score is |row|^2 less the squared distance. Where the metric is cosine, `squares` of a row
    of zeros is larger by 1, so that the score is twice the cosine, up to a constant of the query,
    for a row of zeros too.
    """
    product = jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)
    score = 2 * product - squares[None]
    score = jnp.where(seen & ~jnp.isnan(score), score, -jnp.inf)
    return jnp.argmax(score, axis=1), jnp.max(score, axis=1)
