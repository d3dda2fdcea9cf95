"""Encoders and heads as pure functions; the only room that knows Flax.

>>> import jax, jax.numpy as jnp
>>> network = make('resnet18(stem="patch", width=8, stages=(1, 1))')
>>> images = jnp.zeros((2, 16, 16, 3))
>>> variables = network.init(jax.random.key(0), images)
>>> network.apply(variables, images).shape
(2, 16)
>>> outputs, batch_stats = network.train(variables, images)
"""

from ssl_extract.encoders import ge2e as ge2e
from ssl_extract.encoders import heads as heads
from ssl_extract.encoders import normalize as normalize
from ssl_extract.encoders import resnet as resnet
from ssl_extract.encoders import speech as speech
from ssl_extract.encoders import text as text
from ssl_extract.encoders import vit as vit
from ssl_extract.encoders.base import (
    ENCODERS,
    HEADS,
    Network,
    dim,
    from_module,
    make,
    num_params,
    register,
    register_head,
)
from ssl_extract.encoders.text import check_vocabulary, vocabulary_of

__all__ = [
    'ENCODERS',
    'HEADS',
    'Network',
    'check_vocabulary',
    'vocabulary_of',
    'dim',
    'from_module',
    'make',
    'make_head',
    'num_params',
    'register',
    'register_head',
]


def make_head(spec: str) -> Network:
    """Makes the head that `spec` names, such as `'simclr(hidden=512, dim=128)'`.

    Raises:
        UserError: the name, an argument or its value is wrong.
    """
    return HEADS.make(spec)
