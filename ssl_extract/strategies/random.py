"""Random choice of queries."""

from ssl_extract.strategies.base import Seen, State, Strategy, left, register


@register('random', chooses=False)
def random() -> Strategy:
    """Asks inputs drawn uniformly, without replacement, all at once.

    The inputs are the first of `np.random.default_rng((seed, 1)).permutation(N)`: a larger budget
    asks the same inputs and more.

    >>> random().rounds
    1
    """

    def choose(seen: Seen, count: int, state: State):
        return left(seen, count)[:count], state

    return Strategy(1, choose)
