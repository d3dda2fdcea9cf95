"""The types and the registry of query strategies."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

# needs: what the pool and the answers must have; adaptive: whether it acts against a defense;
# chooses: whether it prefers some images to others.
STRATEGIES = Registry(
    'query strategy',
    choices={'needs': ('labels', 'probabilities')},
    needs=(),
    adaptive=False,
    chooses=True,
)
register = STRATEGIES.register
_BLOCK = 4096  # images represented at a time


class Seen(NamedTuple):
    """What the attacker knows when it chooses its next queries: of the victim, only its answers.

    Attributes:
        inputs: uint8 [N, H, W, 3], the pool, each image once.
        labels: int32 [N], the attacker's own annotation of its pool, or None.
        asked: int32 [Q], the pool's indices asked so far, in order.
        answers: float32 [Q, D], what came back; the mean over an image's answered views.
        represent: uint8 [M, H, W, 3] -> float32 [M, R], the encoder of the surrogate trained on
            all answers so far; None in the first round.
        predict: uint8 [M, H, W, 3] -> float32 [M, D], the same surrogate's output in the space of
            the answers (logits, where the answers are labels or posteriors); None in the first
            round.
        seed: of this attack; draw with `np.random.default_rng((seed, tag, round))`, the tag above
            1: NumPy seeds (s, 1, 0) and (s, 1), which is the order of chance, alike.
        round: 0 is the first.
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    asked: np.ndarray
    answers: np.ndarray
    represent: Callable[[np.ndarray], np.ndarray] | None
    predict: Callable[[np.ndarray], np.ndarray] | None
    seed: int
    round: int


State = dict[str, np.ndarray]
Choose = Callable[[Seen, int, State], tuple[np.ndarray, State]]


class Strategy(NamedTuple):
    """How the attacker chooses its queries.

    Attributes:
        rounds: how many times it chooses; between two rounds the answers are paid and a surrogate
            is trained on all of them.
        choose: (seen, count, state) -> (int32 [count] indices into the pool, state): none that was
            asked, none twice, in the order in which to ask; count is at least 1. `state` is a dict
            of arrays, {} in round 0 and kept on disk between rounds. The same arguments give the
            same choice.
    """

    rounds: int
    choose: Choose


def make(spec: str) -> Strategy:
    """Makes the strategy that `spec` names, such as `'random'` or `'kcenter(rounds=4)'`.

    >>> make('random').rounds
    1

    Raises:
        UserError: the name or an argument is unknown, or an argument has a wrong value.
    """
    return STRATEGIES.make(spec)


def needs(spec: str) -> frozenset[str]:
    """Returns what a strategy needs: 'labels' of the pool, 'probabilities' for answers."""
    return STRATEGIES.needs(spec)


def left(seen: Seen, count: int) -> np.ndarray:
    """The pool's indices not asked yet, int32 [N - Q], in the order of chance.

    That order is drawn from the seed alone, so that a larger count extends a smaller one.

    Raises:
        UserError: fewer than `count` are left.
    """
    order = np.random.default_rng((seen.seed, 1)).permutation(len(seen.inputs))
    found = order[~np.isin(order, seen.asked)].astype(np.int32)
    if len(found) < count:
        raise UserError(
            f'attack.budget: {count} more images cannot be asked, {len(found)} of the '
            f"pool's {len(seen.inputs)} are left: lower the budget or enlarge attack.split"
        )
    return found


def represent(seen: Seen, rows: np.ndarray) -> np.ndarray:
    """Representations float32 [len(rows), R], without a copy of all those images."""
    starts = range(0, len(rows), _BLOCK)
    blocks = [seen.represent(seen.inputs[rows[start : start + _BLOCK]]) for start in starts]
    return np.concatenate(blocks, dtype=np.float32)
