"""The registry of pretraining methods, and their two views."""

from collections.abc import Callable
from typing import Any

import jax

from ssl_extract import augment
from ssl_extract.registry import Registry

# The traits of a method.
# least_batch: the least number of inputs in a batch that teach anything.
VICTIMS = Registry('victim method', least_batch=1)
register = VICTIMS.register


def prepare_two_views(augmentation: Callable) -> Callable:
    """Makes a `Recipe.prepare` that draws two views of each image and asks nothing."""

    def prepare(batch: dict[str, Any], key: jax.Array, ask: Any, account: Any) -> tuple:
        views = augment.two_views(augmentation, key, batch['inputs'])
        return {'views': views}, account, None

    return prepare
