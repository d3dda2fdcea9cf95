"""The types and the registry of query strategies."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.ranges import Range
from ssl_extract.registry import Registry

# The traits of a strategy.
# needs: 'labels' of the pool, 'probabilities' for answers, 'images' of uint8 in the pool,
#     'lengths' that differ, of clips or texts.
# adaptive: whether the strategy acts against a defense.
# chooses: whether the strategy prefers some inputs to others.
STRATEGIES = Registry(
    'query strategy',
    choices={'needs': ('labels', 'probabilities', 'images', 'lengths')},
    needs=(),
    adaptive=False,
    chooses=True,
)
register = STRATEGIES.register
Rounds = Annotated[int, Range(2, 1000)]
_BLOCK = 4096  # inputs represented at a time


class Seen(NamedTuple):
    """The attacker's knowledge before a choice of queries; of the victim, the answers alone.

    Attributes:
        inputs: [N, ...] as stored, the pool, each input once.
        labels: int32 [N], the attacker's annotation of the pool, or None.
        asked: int32 [Q], the indices of the pool asked so far, in order.
        answers: float32 [Q, D], the mean over the answered views of each asked input.
        represent: stored [M, ...] -> float32 [M, R], the encoder of the surrogate trained on all
            answers so far; None in the first round.
        predict: stored [M, ...] -> float32 [M, D], the same surrogate's output in the space of the
            answers (logits, where the answers are labels or posteriors); None in the first round.
        seed: of the attack. Draw with `np.random.default_rng((seed, tag, round))` and a tag above
            1: NumPy seeds (s, 1, 0) and (s, 1), the order of chance, alike.
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
    """A choice of queries in rounds.

    Attributes:
        rounds: the number of choices. Between two rounds the queries are asked, and a surrogate is
            trained on all answers.
        choose: (seen, count, state) -> (int32 [count] indices into the pool, state): distinct
            indices that were not asked, in the order in which to ask; count is at least 1. `state`
            is a dict of arrays, {} in round 0, and lies on disk between rounds. The same arguments
            give the same choice.
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
    """Returns the needs of a strategy: of the pool, or 'probabilities' for answers."""
    return STRATEGIES.needs(spec)


def after_chance(rounds: int, pick: Callable[[Seen, np.ndarray, int], np.ndarray]) -> Strategy:
    """Makes a strategy whose first round, without a surrogate, is random.

    Args:
        rounds: number of choices, the random first choice included.
        pick: `(seen, candidates int[C], count) -> int[count]`, places among the candidates.
    """

    def choose(seen: Seen, count: int, state: State):
        candidates = left(seen, count)
        if seen.represent is None:
            return candidates[:count], state
        return candidates[pick(seen, candidates, count)], state

    return Strategy(rounds, choose)


def left(seen: Seen, count: int) -> np.ndarray:
    """Returns the indices of the pool not asked yet, int32 [N - Q], in the order of chance.

    The order is drawn from the seed alone, so that a larger count extends a smaller count.

    Raises:
        UserError: fewer than `count` indices are left.
    """
    order = np.random.default_rng((seen.seed, 1)).permutation(len(seen.inputs))
    remaining = order[~np.isin(order, seen.asked)].astype(np.int32)
    if len(remaining) < count:
        raise UserError(
            f'attack.budget: {count} more inputs cannot be asked, {len(remaining)} of the '
            f"pool's {len(seen.inputs)} are left: lower the budget or enlarge attack.split"
        )
    return remaining


def represent(seen: Seen, rows: np.ndarray) -> np.ndarray:
    """Computes the representations of `rows` of the pool, float32 [len(rows), R], in blocks."""
    starts = range(0, len(rows), _BLOCK)
    blocks = [seen.represent(seen.inputs[rows[start : start + _BLOCK]]) for start in starts]
    return np.concatenate(blocks, dtype=np.float32)
