"""Defenses: composable transformations of the oracle's output. One idea, one file."""

from ssl_extract.defenses import noise, rounding  # noqa: F401  (they register themselves)
from ssl_extract.defenses.base import DEFENSES, Defense, EmptyState, chain, make, stateless

__all__ = ['DEFENSES', 'Defense', 'EmptyState', 'chain', 'make', 'stateless']
