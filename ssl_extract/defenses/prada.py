"""PRADA: a test of an account's distances between queries.

After Juuti et al. 2019, arXiv 1805.02628.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from ssl_extract.defenses.base import Defense, apply_where, make, register
from ssl_extract.defenses.similarity import (
    Capacity,
    History,
    check_width,
    new_history,
    recall,
)
from ssl_extract.numerics import check_metric, magnitude
from ssl_extract.ranges import Range

MAX_WINDOW = 5000  # Royston's coefficients are fitted up to here

_LAST = (0.0, 0.221157, -0.147981, -2.071190, 4.434685, -2.706056)  # in powers of 1 / sqrt(n)
_SECOND = (0.0, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633)


class PradaState(NamedTuple):
    """The state of the test for an account.

    Attributes:
        history: the last `capacity` answers.
        num_seen: int32[], queries answered so far.
        distances: float32[window], the newest last; NaN where there is none yet.
        statistic: float32[], the lowest W so far; 1 before the first W.
        flagged: bool[], whether W ever fell below delta.
        then: the state of the defense that acts on flagged accounts.
    """

    history: History
    num_seen: jax.Array
    distances: jax.Array
    statistic: jax.Array
    flagged: jax.Array
    then: Any


@register(
    'prada',
    compares_answers=True,
    because='it measures distances between representations, and the other one moves them',
)
def prada(
    delta: Annotated[float, Range(above=0, below=1)] = 0.9,
    window: Annotated[int, Range(20, MAX_WINDOW)] = 128,
    capacity: Capacity = 4096,
    metric: str = 'l2',
    then: str = '',
) -> Defense:
    """Flags an account whose distances between answers do not look normal.

    PRADA keeps a growing set of queries for each class that the victim predicts, and takes a new
    query's smallest distance to the set of the same class. The query joins the set if the distance
    is above a threshold (mean less standard deviation of the set's distances). The account is
    flagged when the Shapiro-Wilk statistic W of all distances, without those beyond 3 standard
    deviations, is below delta; the test starts at 100 distances. Natural queries give about normal
    distances; queries synthesized from one another do not.

    This defense differs as representations require. Representations have no classes, so there is
    one set, and the distance is between answers instead of inputs. The set is the last `capacity`
    answers: memory must be bounded (`capacity x D x 4` bytes an account), and with a threshold a
    row's place in the set would depend on all earlier rows in sequence. The test sees the last
    `window` distances, at every row: distances shrink as the set grows, and a test over the whole
    life of an account would mix them. Distances that are all the same count as W = 0. The lowest of
    many W is lower than a single W: choose delta on accounts of your users
    (`python -m ssl_extract.studies.detection`).

    A row's statistic depends on the rows before it and not on the batches. A flagged account stays
    flagged; `then` applies to the row that raised the flag and all later rows.

    >>> defense = prada(delta=0.95, window=64, then='refuse')
    >>> state = defense.init(jax.random.key(0), jnp.zeros((1, 4)), jnp.zeros((1, 8, 8, 3)))
    >>> float(state.statistic), bool(state.flagged)
    (1.0, False)

    Args:
        delta: the W below which an account is flagged, in (0, 1); PRADA uses 0.90 to 0.96.
        window: number of distances in a test, from 20 to 5,000.
        capacity: number of answers in an account's history.
        metric: 'l2', or 'cosine' for the distance 1 - cosine.
        then: a chain of defenses; '' only flags.

    Raises:
        UserError: an argument is out of range; `then` changes the width of the answers (at `init`).
    """
    check_metric(metric)
    acting = make(then)
    statistic = trimmed_shapiro(window)

    def init(key, outputs, inputs):
        state = acting.init(key, outputs, inputs)
        check_width(then, acting, state, outputs, inputs)
        return PradaState(
            history=new_history(capacity, outputs.shape[-1]),
            num_seen=jnp.zeros([], jnp.int32),
            distances=jnp.full(window, jnp.nan, jnp.float32),
            statistic=jnp.ones([], jnp.float32),
            flagged=jnp.zeros([], bool),
            then=state,
        )

    def apply(outputs, state, *, inputs, where, keys):
        distance, compared, history = recall(state.history, state.num_seen, outputs, where, metric)
        windows, distances = append(state.distances, distance, compared & where)
        tested = where & ~jnp.isnan(windows[:, 0])
        values = jnp.where(tested, statistic(windows), 1)
        low = jax.lax.associative_scan(jnp.logical_or, tested & (values < delta))
        outputs, answered, acted = apply_where(
            state.flagged | low, acting, outputs, state.then, inputs=inputs, where=where, keys=keys
        )
        state = PradaState(
            history=history,
            num_seen=state.num_seen + jnp.sum(where, dtype=jnp.int32),
            distances=distances,
            statistic=jnp.minimum(state.statistic, jnp.min(values)),
            flagged=state.flagged | low[-1],
            then=acted,
        )
        return outputs, answered, state

    return Defense(init, apply)


def append(last: jax.Array, values: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Appends values one after the other to the last W values.

    Args:
        last: [W], the newest value last.
        values: [B].
        where: bool[B], marks the values to append.

    Returns:
        (windows [B, W], last [W]): the last W values after each row, and after all rows.
    """
    # The line holds the W old values, then the appended values in order, then NaN. The window of a
    # row ends at the row's place in the line, which is the number of values appended so far.
    size, count = len(last), jnp.cumsum(where, dtype=jnp.int32)
    places = jnp.where(where, size + count - 1, size + len(values))  # past the end: dropped
    line = jnp.concatenate([last, jnp.full(len(values), jnp.nan, last.dtype)])
    line = line.at[places].set(values.astype(last.dtype), mode='drop')
    windows = line[count[:, None] + jnp.arange(size)[None]]
    return windows, jax.lax.dynamic_slice(line, (count[-1],), (size,))


def trimmed_shapiro(window: int) -> Callable[[jax.Array], jax.Array]:
    """Makes `(values [B, window]) -> W [B]`: Shapiro-Wilk without values beyond 3 deviations.

    At most one value in nine lies beyond three standard deviations (Chebyshev), so that a small
    table holds the coefficients for all numbers of remaining values.
    """
    least = window - window // 9
    sizes = range(least, window + 1)
    table = np.stack([np.pad(coefficients(n), (0, window - n)) for n in sizes])
    table = table.astype(np.float32)

    def statistic(values: jax.Array) -> jax.Array:
        values = values - jnp.mean(values, axis=1, keepdims=True)
        values = values / magnitude(values)  # W does not depend on the scale, and squares overflow
        deviation = jnp.sqrt(jnp.mean(values**2, axis=1, keepdims=True))
        keep = jnp.abs(values) <= 3 * deviation
        size = jnp.maximum(jnp.sum(keep, axis=1, keepdims=True), least)
        ordered = jnp.sort(jnp.where(keep, values, jnp.inf), axis=1)
        within = jnp.arange(window)[None] < size
        center = jnp.sum(jnp.where(within, ordered, 0), axis=1, keepdims=True) / size
        centered = jnp.where(within, ordered - center, 0)
        spread = jnp.sum(centered**2, axis=1)
        explained = jnp.sum(jnp.asarray(table)[size[:, 0] - least] * centered, axis=1) ** 2
        return jnp.where(spread > 0, explained / jnp.where(spread > 0, spread, 1), 0)

    return statistic


def coefficients(n: int) -> np.ndarray:
    """Computes the weights `a` [n] of `W = (sum a_i x_(i))^2 / sum (x_i - mean)^2`, x_(i) ordered.

    Royston 1995, algorithm AS R94 (Applied Statistics 44, 547-551), for n > 5.
    """
    scores = scipy.stats.norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25))
    total, power = np.sum(scores**2), n**-0.5
    last = np.polynomial.polynomial.polyval(power, _LAST) + scores[-1] / np.sqrt(total)
    second = np.polynomial.polynomial.polyval(power, _SECOND) + scores[-2] / np.sqrt(total)
    rest = (total - 2 * scores[-1] ** 2 - 2 * scores[-2] ** 2) / (1 - 2 * last**2 - 2 * second**2)
    weights = scores / np.sqrt(rest)
    weights[[0, 1, -2, -1]] = -last, -second, second, last
    return weights
