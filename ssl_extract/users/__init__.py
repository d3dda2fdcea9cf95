"""Legitimate users and their classifiers."""

from ssl_extract.users.kinds import MODELS, USERS, Predict, User, register, register_model

__all__ = ['MODELS', 'USERS', 'Predict', 'User', 'register', 'register_model']
