"""Augmentations on device, from specs."""

from ssl_extract.augment.batches import to_float, two_views, views
from ssl_extract.augment.images import AUGMENTATIONS, Op, chain, make, register

__all__ = [
    'AUGMENTATIONS',
    'Op',
    'chain',
    'make',
    'register',
    'to_float',
    'two_views',
    'views',
]
