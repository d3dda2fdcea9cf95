"""What an oracle answers with: the representation, the head's projection, or a classifier's output.

An endpoint is a pure function `(networks, variables, images [B, H, W, 3]) -> outputs [B, D]` over
the victim's networks by name ('encoder' first) and their variables; 'classifier' is a softmax
regression that the victim's owner fitted on a labeled task.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_extract import encoders
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

ENDPOINTS = Registry('endpoint')
CLASSIFIER = 'classifier'

Networks = dict[str, encoders.Network]


@ENDPOINTS.register('representation')
def representation() -> Callable:
    """The encoder's output: what the paper's victims answer with."""
    return _represent


@ENDPOINTS.register('projection')
def projection() -> Callable:
    """The output of the projection head, the network behind the encoder in its pretraining."""

    def encode(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
        heads = [name for name in networks if name != 'encoder']
        if not heads:
            raise UserError(
                'the victim has no projection head: pretrain it here (victim.checkpoint=""), or '
                'attack representations'
            )
        outputs = _represent(networks, variables, images)
        return networks[heads[0]].apply(variables[heads[0]], outputs)

    return encode


@ENDPOINTS.register('posteriors')
def posteriors() -> Callable:
    """The probability of every class, under the fitted classifier."""
    return lambda networks, variables, images: jax.nn.softmax(_logits(networks, variables, images))


@ENDPOINTS.register('labels')
def labels() -> Callable:
    """The most probable class, one-hot."""

    def encode(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
        logits = _logits(networks, variables, images)
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])

    return encode


def needs_classifier(endpoint: str) -> bool:
    """Whether the victim's owner must fit a classifier for it."""
    return endpoint in ('posteriors', 'labels')


@functools.cache
def make(endpoint: str, encoder: str, heads: tuple[tuple[str, str], ...] = ()) -> Callable:
    """`(variables, images) -> outputs` of an endpoint, for a victim of these networks.

    Args:
        endpoint: a registered name.
        encoder: the spec of the victim's encoder.
        heads: (name, spec) of the networks behind it, in their order.
    """
    networks = {'encoder': encoders.make(encoder)}
    networks |= {name: encoders.make_head(spec) for name, spec in heads}
    return functools.partial(ENDPOINTS.make(endpoint), networks)


def example_variables(
    key: jax.Array,
    encoder: str,
    heads: tuple[tuple[str, str], ...],
    input_shape: tuple[int, ...],
    num_classes: int,
) -> dict[str, Any]:
    """Untrained variables for every endpoint, to find out shapes."""
    networks = {'encoder': encoders.make(encoder)}
    networks |= {name: encoders.make_head(spec) for name, spec in heads}
    inputs, variables = jnp.zeros((1, *input_shape)), {}
    dim = encoders.dim(networks['encoder'], input_shape)
    for name, network in networks.items():
        variables[name] = network.init(key, inputs)
        inputs = jax.eval_shape(network.apply, variables[name], inputs)
    variables[CLASSIFIER] = {
        'mean': jnp.zeros(dim),
        'scale': jnp.ones(dim),
        'weights': jnp.zeros((dim, num_classes)),
        'bias': jnp.zeros(num_classes),
    }
    return variables


def _represent(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
    return networks['encoder'].apply(variables['encoder'], images)


def _logits(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
    fitted = variables[CLASSIFIER]
    mean, scale, bias = (fitted[name][None] for name in ('mean', 'scale', 'bias'))
    inputs = (_represent(networks, variables, images) - mean) / scale
    product = jnp.matmul(inputs, fitted['weights'], precision=jax.lax.Precision.HIGHEST)
    return product + bias
