"""Attacks and their query plans."""

from ssl_extract.attacks import (  # noqa: F401  (they register themselves)
    access_head,
    classifier,
    cont_steal,
    direct,
    rda,
    recreate_head,
    several_layers,
    stolen_encoder,
    symmetrized,
)
from ssl_extract.attacks.adaptive import is_adaptive
from ssl_extract.attacks.base import (
    ATTACKS,
    OWN,
    Attack,
    Student,
    endpoint_of,
    make,
    make_student,
    objective,
    own_outputs,
    own_settings,
    preset,
    register,
    stacked,
)
from ssl_extract.attacks.plans import PLANS, Answered, Plan
from ssl_extract.attacks.plans import register as register_plan
from ssl_extract.attacks.starts import STARTS, Start, register_start

__all__ = [
    'ATTACKS',
    'Answered',
    'Attack',
    'OWN',
    'PLANS',
    'Plan',
    'STARTS',
    'Start',
    'Student',
    'endpoint_of',
    'is_adaptive',
    'make',
    'make_student',
    'own_outputs',
    'objective',
    'own_settings',
    'preset',
    'register',
    'register_plan',
    'register_start',
    'stacked',
]
