"""Augmentations on device, from specs."""

from ssl_extract.augment import images, tokens, waveforms  # noqa: F401  (they register themselves)
from ssl_extract.augment.base import AUGMENTATIONS, Op, chain, fitting, make, register, takes
from ssl_extract.augment.batches import to_float, two_views, views

__all__ = [
    'AUGMENTATIONS',
    'Op',
    'chain',
    'fitting',
    'make',
    'register',
    'takes',
    'to_float',
    'two_views',
    'views',
]
