"""Recoveries: an adaptive attacker's repair of answers.

    recover = recovery.make('drop_outliers | denoise')
    received = recover(received, shadow)

`RECOVERIES` is the registry. A new recovery registers itself there from any module and declares its
needs: `@recovery.register('my_recovery', needs=('shadow',))`. One idea, one file; `sybils` shares
queries out among several accounts and merges the answers.
"""

from ssl_extract.recovery import (  # noqa: F401  (they register themselves)
    denoise,
    eliminate,
    harden,
    outliers,
    perturbation,
    shift,
    shrink,
    sybils,
)
from ssl_extract.recovery.base import (
    RECOVERIES,
    Received,
    Recover,
    Shadow,
    make,
    needs,
    register,
    same_width,
)

__all__ = [
    'RECOVERIES',
    'Received',
    'Recover',
    'Shadow',
    'make',
    'needs',
    'register',
    'same_width',
]
