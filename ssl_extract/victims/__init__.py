"""Victims: how they are pretrained and what their endpoints answer."""

from ssl_extract.victims.pretraining import VICTIMS, register, simclr, simsiam

__all__ = ['VICTIMS', 'register', 'simclr', 'simsiam']
