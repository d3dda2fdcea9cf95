"""Random choice of images."""

from ssl_extract.strategies.base import Seen, State, Strategy, left, register


@register('random', chooses=False)
def random() -> Strategy:
    """Asks images drawn uniformly, without replacement, all at once.

    The first ones of `np.random.default_rng((seed, 1)).permutation(N)`: a larger budget asks the
    same images and more.
    """

    def choose(seen: Seen, count: int, state: State):
        return left(seen, count)[:count], state

    return Strategy(1, choose)
