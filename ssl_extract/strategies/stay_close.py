"""Stay close: the images that are most like one another."""

import numpy as np

from ssl_extract.checks import check_whole
from ssl_extract.strategies.base import Seen, State, Strategy, left, register, represent


@register('stay_close', adaptive=True)
def stay_close(rounds: int = 4) -> Strategy:
    """Asks around one image, so that the answers fill little of the victim's space.

    The adversary of a defense that makes queries dearer the more of the space of representations
    an account has seen (B4B, arXiv 2310.08571). The victim tells that by the signs of random
    projections (`defenses.bucket_coverage`), and two representations agree in these the more often
    the smaller the angle between them. The attacker cannot ask for angles without paying, and takes
    those of its surrogate, after subtracting each representation's mean over its coordinates, since
    behind a ReLU all angles are small before. It asks the images with the smallest angle to the
    medoid of all it asked so far, which is the one among them with the largest sum of cosines to
    the others and lies where its images are dense. There is one center, for the neighbors of every
    asked image would fill the space around all that the first round has touched.

    The first round, without a surrogate, is random, and what it fills stays filled: more rounds
    make it a smaller share of the budget, and cost the training of more surrogates. Ties go by the
    order of chance.

    Args:
        rounds: times it chooses, the random first one included.

    Raises:
        UserError: rounds is not a whole number of at least 2.
    """
    check_whole('rounds', rounds, 2)

    def choose(seen: Seen, count: int, state: State):
        candidates = left(seen, count)
        if seen.represent is None:
            return candidates[:count], state
        asked = _directions(seen, seen.asked)
        medoid = asked[np.argmax(asked @ asked.sum(axis=0))]
        order = np.argsort(-(_directions(seen, candidates) @ medoid), kind='stable')
        return candidates[order[:count]], state

    return Strategy(rounds, choose)


def _directions(seen: Seen, rows: np.ndarray) -> np.ndarray:
    """Centered, L2-normalized representations, float32 [len(rows), R]; a constant one is zero."""
    points = represent(seen, rows)
    points -= points.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(norms > 0, norms, 1)
