"""Pretraining of victims. One method, one file."""

from ssl_extract.victims import simclr, simsiam
from ssl_extract.victims.base import VICTIMS

__all__ = ['VICTIMS', 'simclr', 'simsiam']
