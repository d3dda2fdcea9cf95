"""Victims: sources, pretraining methods and endpoints."""

from ssl_extract.victims.backdoors import TRIGGERS, poison, triggered
from ssl_extract.victims.backdoors import register as register_trigger
from ssl_extract.victims.contents import content_hashes
from ssl_extract.victims.endpoints import ENDPOINTS
from ssl_extract.victims.endpoints import register as register_endpoint
from ssl_extract.victims.model import Victim, from_encoder, from_flax, from_function
from ssl_extract.victims.pretraining import (
    VICTIMS,
    byol,
    register,
    rotation_watermark,
    simclr,
    simsiam,
)
from ssl_extract.victims.sources import SOURCES, load, register_source

__all__ = [
    'ENDPOINTS',
    'SOURCES',
    'TRIGGERS',
    'VICTIMS',
    'Victim',
    'byol',
    'content_hashes',
    'from_encoder',
    'from_flax',
    'from_function',
    'load',
    'poison',
    'register',
    'register_endpoint',
    'register_source',
    'register_trigger',
    'rotation_watermark',
    'simclr',
    'simsiam',
    'triggered',
]
