"""Augmentations on device, from specs."""

from ssl_extract.augment.images import (
    AUGMENTATIONS,
    Op,
    chain,
    make,
    register,
    to_float,
    two_views,
    views,
)

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
