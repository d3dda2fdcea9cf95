"""Attacks. One attack, one file; how they ask is in `plans`."""

from ssl_extract.attacks import (  # noqa: F401  (they register themselves)
    access_head,
    classifier,
    cont_steal,
    direct,
    rda,
    recreate_head,
    stolen_encoder,
    symmetrized,
)
from ssl_extract.attacks.base import (
    ATTACKS,
    OWN,
    PRESETS,
    Attack,
    Student,
    endpoint_of,
    make,
    make_student,
    objective,
    own_settings,
    register,
    stacked,
)
from ssl_extract.attacks.plans import PLANS, Asked, Plan

__all__ = [
    'ATTACKS',
    'Asked',
    'Attack',
    'OWN',
    'PLANS',
    'PRESETS',
    'Plan',
    'Student',
    'endpoint_of',
    'make',
    'make_student',
    'objective',
    'own_settings',
    'register',
    'stacked',
]
