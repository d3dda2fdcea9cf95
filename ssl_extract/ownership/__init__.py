"""Ownership tests: whether a suspect was stolen from a victim."""

from ssl_extract.ownership import (  # noqa: F401  (they register themselves)
    answer_marks,
    backdoor,
    dataset_inference,
    dataset_relations,
    dynamarks,
    fingerprints,
    retrained,
    rotation_watermark,
    shadow_score,
    sslguard,
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
from ssl_extract.ownership.conferrable import search_conferrable
from ssl_extract.ownership.fusion import fisher, fused
from ssl_extract.ownership.represented import represent_of
from ssl_extract.ownership.suspects import OBFUSCATIONS, obfuscate

__all__ = [
    'OBFUSCATIONS',
    'TESTS',
    'Case',
    'Evidence',
    'Represent',
    'Test',
    'check_case',
    'fisher',
    'fused',
    'obfuscate',
    'register',
    'remembered',
    'represent_of',
    'search_conferrable',
    'test',
]
