"""Pretraining methods of victims. One method, one file."""

from ssl_extract.victims.pretraining import simclr, simsiam
from ssl_extract.victims.pretraining.base import VICTIMS, register

__all__ = ['VICTIMS', 'register', 'simclr', 'simsiam']
