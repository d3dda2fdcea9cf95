"""Pretraining methods of victims."""

from ssl_extract.victims.pretraining import byol, rotation_watermark, simclr, simsiam
from ssl_extract.victims.pretraining.base import VICTIMS, register

__all__ = ['VICTIMS', 'byol', 'register', 'rotation_watermark', 'simclr', 'simsiam']
