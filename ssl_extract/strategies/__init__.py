"""Query strategies: the attacker's choice of inputs from a pool.

    strategy = strategies.make('kcenter(rounds=4)')
    chosen, state = strategy.choose(seen, count, state)  # once per round

`STRATEGIES` is the registry; a new strategy registers itself there from any module. One idea, one
file. The term is that of active learning (Settles, Active Learning Literature Survey, 2009).
"""

from ssl_extract.strategies import (  # noqa: F401  (they register themselves)
    consistency,
    diverse,
    kcenter,
    knockoff,
    longest,
    random,
    stay_close,
)
from ssl_extract.strategies.base import STRATEGIES, Seen, Strategy, make, needs, register

__all__ = ['STRATEGIES', 'Seen', 'Strategy', 'make', 'needs', 'register']
