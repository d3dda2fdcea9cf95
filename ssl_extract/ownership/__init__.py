"""Ownership tests: whether a suspect was stolen from a victim."""

from ssl_extract.ownership import (  # noqa: F401  (they register themselves)
    dataset_inference,
    dataset_relations,
    fingerprints,
    rotation_watermark,
    shadow_score,
    sslguard,
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

__all__ = [
    'TESTS',
    'Case',
    'Evidence',
    'Represent',
    'Test',
    'check_case',
    'fisher',
    'fused',
    'register',
    'remembered',
    'search_conferrable',
    'test',
]
