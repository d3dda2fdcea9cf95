"""Stay close: the inputs that are most like one another."""

import numpy as np

from ssl_extract.numerics import units
from ssl_extract.strategies.base import Rounds, Seen, Strategy, after_chance, register, represent


@register('stay_close', adaptive=True)
def stay_close(rounds: Rounds = 4) -> Strategy:
    """Asks around one input, so that the answers fill little of the victim's space.

    The strategy is the adversary of a defense that makes queries dearer the more of the space an
    account has seen (B4B, arXiv 2310.08571). The victim measures the covered space by the signs of
    random projections (`defenses.bucket_coverage`). Two representations agree in more signs the
    smaller the angle between them. The attacker cannot ask for angles without paying, and takes the
    angles of the surrogate. The mean over the coordinates is subtracted from each representation
    first, since all angles behind a ReLU are small. The attacker asks the inputs with the smallest
    angle to the medoid of all asked inputs: the asked input with the largest sum of cosines to the
    others, which lies where asked inputs are dense. There is one center, because the neighbors of
    every asked input would fill the space around the whole first round.

    The first round, without a surrogate, is random, and its buckets stay filled. More rounds make
    the first round a smaller share of the budget, and cost the training of more surrogates. Ties go
    by the order of chance.

    >>> stay_close(rounds=3).rounds
    3

    Args:
        rounds: number of choices, the random first choice included.

    Raises:
        UserError: rounds is not a whole number of at least 2.
    """

    def pick(seen: Seen, candidates: np.ndarray, count: int) -> np.ndarray:
        centers = _directions(seen, seen.asked)
        medoid = centers[np.argmax(centers @ centers.sum(axis=0))]
        return np.argsort(-(_directions(seen, candidates) @ medoid), kind='stable')[:count]

    return after_chance(rounds, pick)


def _directions(seen: Seen, rows: np.ndarray) -> np.ndarray:
    """Centers and L2-normalizes representations, float64 [len(rows), R]; a constant row is 0."""
    points = represent(seen, rows).astype(np.float64)
    return units(points - points.mean(axis=1, keepdims=True))
