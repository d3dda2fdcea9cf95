"""Legitimate users: what kinds there are and the classifiers they fit to answers."""

from ssl_extract.users.kinds import MODELS, USERS, Predict, User, register, register_model

__all__ = ['MODELS', 'USERS', 'Predict', 'User', 'register', 'register_model']
