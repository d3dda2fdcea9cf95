"""Query strategies: which images of its pool the thief asks, at a fixed number of them.

    strategy = strategies.make('kcenter(rounds=4)')
    chosen, state = strategy.choose(seen, count, state)  # once per round

`STRATEGIES` is the registry; a new strategy registers itself there from any module. One idea, one
file. The term is active learning's (Settles, Active Learning Literature Survey, 2009).
"""

from ssl_extract.strategies import (  # noqa: F401  (they register themselves)
    consistency,
    kcenter,
    knockoff,
    random,
    stay_close,
)
from ssl_extract.strategies.base import STRATEGIES, Seen, Strategy, make

__all__ = ['STRATEGIES', 'Seen', 'Strategy', 'make']
