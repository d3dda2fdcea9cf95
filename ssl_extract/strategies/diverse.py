"""Diverse inputs, drawn by the seeding of k-means++."""

import numpy as np

from ssl_extract.numerics import centered
from ssl_extract.strategies.base import Rounds, Seen, Strategy, after_chance, register, represent
from ssl_extract.strategies.kcenter import square, to_nearest

_TAG = 12  # of the random draws


@register('diverse')
def diverse(rounds: Rounds = 4) -> Strategy:
    """Draws inputs by the seeding of k-means++, in the surrogate's representations.

    The probability of an input is in proportion to the squared distance to the nearest input that
    was asked or drawn (Arthur and Vassilvitskii, SODA 2007; for choosing queries Ash et al., ICLR
    2020, who take gradients instead of representations). Against `kcenter`, which takes the
    farthest, a crowded region gets its share, and a few outliers do not get everything. The first
    round, without a surrogate, is random; so is what is left where all distances are 0.

    >>> diverse(rounds=3).rounds
    3

    Args:
        rounds: number of choices, the random first choice included.

    Raises:
        UserError: rounds is not a whole number of at least 2.
    """

    def pick(seen: Seen, candidates: np.ndarray, count: int) -> np.ndarray:
        points, asked = centered(represent(seen, candidates), represent(seen, seen.asked))
        rng = np.random.default_rng((seen.seed, _TAG, seen.round))
        return _draw(rng, points, to_nearest(points, asked), count)

    return after_chance(rounds, pick)


def _draw(
    rng: np.random.Generator, points: np.ndarray, distances: np.ndarray, count: int
) -> np.ndarray:
    """Draws `count` different rows of `points [N, R]`, whose squared distances [N] are given."""
    norms, drawn = square(points), np.empty(count, np.intp)
    free = np.ones(len(points), bool)
    for i in range(count):
        weights = np.where(free, np.maximum(distances, 0), 0).astype(np.float64)
        weights = weights if weights.any() else free.astype(np.float64)
        new = drawn[i] = rng.choice(len(points), p=weights / weights.sum())
        free[new] = False
        np.minimum(distances, points @ (-2 * points[new]) + norms + norms[new], out=distances)
    return drawn
