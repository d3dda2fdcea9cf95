"""Augmentations on device, from specs."""

from ssl_extract.augment import images, waveforms  # noqa: F401  (they register themselves)
from ssl_extract.augment.base import AUGMENTATIONS, Op, chain, make, register, takes_waves
from ssl_extract.augment.batches import to_float, two_views, views

__all__ = [
    'AUGMENTATIONS',
    'Op',
    'chain',
    'make',
    'register',
    'takes_waves',
    'to_float',
    'two_views',
    'views',
]
