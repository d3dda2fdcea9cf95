"""Contracts for authors of losses, defenses, attacks and encoders.

    testing.check_defense('mine(strength=2.0)')

Each function takes a user's object, or its spec. The function tries every clause of the contract
on small random data, and prints a line for each clause that holds. The first clause that does not
hold raises a `UserError`.
"""

from ssl_extract.losses.conformance import check as check_loss
from ssl_extract.testing.attacks import check_attack
from ssl_extract.testing.defenses import check_defense
from ssl_extract.testing.encoders import check_encoder
from ssl_extract.testing.strategies import check_strategy

__all__ = ['check_attack', 'check_defense', 'check_encoder', 'check_loss', 'check_strategy']
