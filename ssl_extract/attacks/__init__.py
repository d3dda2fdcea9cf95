"""Attacks. One attack, one file."""

from ssl_extract.attacks import direct
from ssl_extract.attacks.base import ATTACKS, PLANS

__all__ = ['ATTACKS', 'PLANS', 'direct']
