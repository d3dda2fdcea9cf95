"""Adaptive attackers, told from the traits of what they do."""

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
    """Returns whether a part of an attack is there because of a defense.

    >>> is_adaptive(attack='direct'), is_adaptive(attack='direct(adapter=True)')
    (False, True)

    Args:
        attack: the spec of the attack.
        plan: the spec of its query plan.
        strategy: the spec of its query strategy.
        recover: the chain of its recoveries; '' is none.
        accounts: the number of accounts that share its queries.

    Raises:
        UserError: a spec is wrong.
    """
    traits = [ATTACKS.traits(attack), PLANS.traits(plan), STRATEGIES.traits(strategy)]
    traits += RECOVERIES.traits_of_chain(recover)
    return accounts > 1 or any(part.adaptive for part in traits)
