"""Legitimate users and their classifiers."""

from ssl_extract.users.adapting import Adapted, Labeled, adapt, check, choose
from ssl_extract.users.kinds import MODELS, USERS, Predict, User, register, register_model

__all__ = [
    'MODELS',
    'USERS',
    'Adapted',
    'Labeled',
    'Predict',
    'User',
    'adapt',
    'check',
    'choose',
    'register',
    'register_model',
]
