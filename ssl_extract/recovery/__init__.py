"""Recoveries: what an adaptive attacker does to the answers before it trains on them.

    recover = recovery.make('drop_outliers | denoise')
    received = recover(received, shadow)

`RECOVERIES` is the registry; a new one registers itself there from any module. One idea, one file;
`sybils` shares queries out among several accounts and brings their answers together.
"""

from ssl_extract.recovery import denoise, harden, outliers, shift, sybils  # noqa: F401  (they register themselves)
from ssl_extract.recovery.base import RECOVERIES, Received, Recover, Shadow, make
from ssl_extract.registry import parse_call, split_chain

NEED_SHADOW = {'denoise', 'subtract_shift'}  # those that learn from the attacker's own encoder


def needs_shadow(spec: str) -> bool:
    """Whether a part of the chain learns from the attacker's own encoder."""
    return bool(NEED_SHADOW.intersection(names_of(spec)))


def names_of(spec: str) -> list[str]:
    """The names of the parts of a chain, in their order."""
    return [parse_call(part, 'recovery')[0] for part in split_chain(spec, 'recovery')]


__all__ = ['RECOVERIES', 'Received', 'Recover', 'Shadow', 'make', 'names_of', 'needs_shadow']
