"""Ownership tests: whether a suspect was stolen from a victim."""

from ssl_extract.ownership import (  # noqa: F401  (they register themselves)
    retrained,
    suspects,
)
from ssl_extract.ownership.base import (
    TESTS,
    Case,
    Evidence,
    Represent,
    Test,
    check_case,
    register,
    remembered,
    test,
)
from ssl_extract.ownership.represented import represent_of
from ssl_extract.ownership.suspects import OBFUSCATIONS, obfuscate

__all__ = [
    'TESTS',
    'Case',
    'Evidence',
    'OBFUSCATIONS',
    'Represent',
    'Test',
    'check_case',
    'obfuscate',
    'register',
    'remembered',
    'represent_of',
    'test',
]
