"""Ownership tests: whether a suspect was stolen from a victim."""

from ssl_extract.ownership import (  # noqa: F401  (they register themselves)
    answer_marks,
    dynamarks,
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

__all__ = [
    'TESTS',
    'Case',
    'Evidence',
    'Represent',
    'Test',
    'check_case',
    'register',
    'remembered',
    'test',
]
