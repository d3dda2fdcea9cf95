"""Adaptive attackers, recognized by the traits of their parts."""

from ssl_extract.attacks.base import ATTACKS
from ssl_extract.attacks.plans import PLANS
from ssl_extract.recovery import RECOVERIES
from ssl_extract.strategies import STRATEGIES


def is_adaptive(
    *,
    attack: str,
    plan: str = 'once',
    strategy: str = 'random',
    recover: str = '',
    accounts: int = 1,
) -> bool:
    """Checks whether a part of an attack acts against a defense.

    >>> is_adaptive(attack='direct'), is_adaptive(attack='direct(adapter=True)')
    (False, True)

    Args:
        attack: the spec of the attack.
        plan: the spec of the query plan.
        strategy: the spec of the query strategy.
        recover: the chain of recoveries; '' is none.
        accounts: the number of accounts that share the queries.

    Raises:
        UserError: a spec is wrong.
    """
    traits = [ATTACKS.traits(attack), PLANS.traits(plan), STRATEGIES.traits(strategy)]
    traits += RECOVERIES.traits_of_chain(recover)
    return accounts > 1 or any(part.adaptive for part in traits)
