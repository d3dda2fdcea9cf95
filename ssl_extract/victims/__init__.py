"""Victims: what answers, how it is pretrained, and its endpoints."""

from ssl_extract.victims.model import Victim, from_encoder, from_flax, from_function
from ssl_extract.victims.pretraining import VICTIMS, simclr, simsiam

__all__ = [
    'VICTIMS',
    'Victim',
    'from_encoder',
    'from_flax',
    'from_function',
    'simclr',
    'simsiam',
]
