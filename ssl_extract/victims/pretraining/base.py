"""The registry of pretraining methods, and their two views."""

from collections.abc import Callable

import jax

from ssl_extract import augment
from ssl_extract.registry import Registry

VICTIMS = Registry('victim method')
register = VICTIMS.register


def prepare_two_views(augmentation: Callable) -> Callable:
    """Makes a `Recipe.prepare` that draws two views of each image and asks nothing."""

    def prepare(batch, key: jax.Array, ask, account):
        views = augment.two_views(augmentation, key, batch['inputs'])
        return {'views': views}, account, None

    return prepare
