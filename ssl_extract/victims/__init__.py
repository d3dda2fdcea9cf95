"""Victims: sources, pretraining methods and endpoints."""

from ssl_extract.victims.contents import content_hashes
from ssl_extract.victims.endpoints import ENDPOINTS
from ssl_extract.victims.endpoints import register as register_endpoint
from ssl_extract.victims.model import Victim, from_encoder, from_flax, from_function
from ssl_extract.victims.pretraining import VICTIMS, register, rotation_watermark, simclr, simsiam
from ssl_extract.victims.sources import SOURCES, load, register_source

__all__ = [
    'ENDPOINTS',
    'SOURCES',
    'VICTIMS',
    'Victim',
    'content_hashes',
    'from_encoder',
    'from_flax',
    'from_function',
    'load',
    'register',
    'register_endpoint',
    'register_source',
    'rotation_watermark',
    'simclr',
    'simsiam',
]
