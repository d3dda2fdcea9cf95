"""Defenses: composable transformations of an oracle's answers."""

from ssl_extract.defenses import (  # noqa: F401  (they register themselves)
    binarize,
    buckets,
    cost,
    dynamarks,
    maps,
    noise,
    normalize,
    pad_shuffle,
    poisoning,
    prada,
    refuse,
    rounding,
    similarity,
    top_k,
)
from ssl_extract.defenses.base import (
    DEFENSES,
    Defense,
    EmptyState,
    apply_once,
    apply_where,
    chain,
    check_endpoint,
    make,
    mark_of,
    needs,
    noticed,
    register,
    stateless,
)

__all__ = [
    'DEFENSES',
    'Defense',
    'EmptyState',
    'apply_once',
    'apply_where',
    'chain',
    'check_endpoint',
    'make',
    'mark_of',
    'needs',
    'noticed',
    'register',
    'stateless',
]
