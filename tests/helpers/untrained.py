"""An untrained victim with a head, for tests to which a target is a target; the tests' own."""

import jax
import jax.numpy as jnp

from ssl_extract.encoders import chain
from ssl_extract.pipeline import stage

SHAPE = (8, 8, 3)
HEADS = (('head', 'simclr(hidden=8, dim=8)'),)


def victim(encoder):
    networks = {'encoder': stage.make_encoder(encoder)}
    networks |= {name: stage.make_head(spec) for name, spec in HEADS}
    variables = chain.init(networks, jax.random.key(7), jnp.zeros((1, *SHAPE)))
    return stage.Trained(
        role='victim',
        address='untrained',
        encoder=encoder,
        variables=chain.part(variables, 'encoder'),
        folder=None,
        seconds=0.0,
        flops=None,
        bill=None,
        heads=HEADS,
        head_variables={'head': chain.part(variables, 'head')},
    )
