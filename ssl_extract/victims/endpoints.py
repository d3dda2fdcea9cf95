"""Endpoints: representations, projections, posteriors, labels.

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
from ssl_extract.victims.model import Victim

# needs: what the owner of the victim must have; gives: what the answers are.
ENDPOINTS = Registry(
    'endpoint',
    choices={
        'needs': ('head', 'classifier'),
        'gives': ('representations', 'projections', 'probabilities'),
    },
    needs=(),
    gives='representations',
)
register = ENDPOINTS.register
CLASSIFIER = 'classifier'

Networks = dict[str, encoders.Network]


@register('representation')
def representation() -> Callable:
    """The encoder's output: what the paper's victims answer with."""
    return _represent


@register('projection', needs=('head',), gives='projections')
def projection() -> Callable:
    """The output of the projection head, the network behind the encoder in its pretraining."""

    def encode(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
        heads = [name for name in networks if name != 'encoder']
        if not heads:
            raise UserError(
                'the victim has no projection head: pretrain it here (victim.source="pretrain") or '
                'attack representations'
            )
        outputs = _represent(networks, variables, images)
        return networks[heads[0]].apply(variables[heads[0]], outputs)

    return encode


@register('posteriors', needs=('classifier',), gives='probabilities')
def posteriors() -> Callable:
    """The probability of every class, under the fitted classifier."""
    return lambda networks, variables, images: jax.nn.softmax(_logits(networks, variables, images))


@register('labels', needs=('classifier',), gives='probabilities')
def labels() -> Callable:
    """The most probable class, one-hot."""

    def encode(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
        logits = _logits(networks, variables, images)
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])

    return encode


def needs(endpoint: str) -> frozenset[str]:
    """Returns what the owner of the victim must have for an endpoint: 'head', 'classifier'."""
    return ENDPOINTS.needs(endpoint)


def gives(endpoint: str) -> str:
    """Returns what the answers are: 'representations', 'projections' or 'probabilities'."""
    return ENDPOINTS.traits(endpoint).gives


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


def at(victim: Victim, endpoint: str, *, classifier: dict[str, Any] | None = None) -> Victim:
    """The victim as it answers at an endpoint.

    Args:
        victim: one with an encoder of ours has all endpoints, any other its own one only.
        endpoint: a registered name.
        classifier: the fitted variables of endpoints that need one.

    Raises:
        UserError: the victim has no such endpoint.
    """
    if victim.encoder is None:
        if victim.answers != endpoint:
            raise UserError(
                f'victim {victim.address} answers with a {victim.answers}, not with a {endpoint}'
            )
        return victim
    encoder = victim.encoder
    variables = {'encoder': encoder.variables, **encoder.head_variables}
    if classifier is not None:
        variables[CLASSIFIER] = classifier
    answer = jax.tree_util.Partial(make(endpoint, encoder.spec, encoder.heads), variables)
    inputs = jax.ShapeDtypeStruct((1, *encoder.input_shape), jnp.float32)
    dim = jax.eval_shape(lambda answer, x: answer(x), answer, inputs).shape[-1]
    return victim._replace(answer=answer, dim=dim, answers=endpoint)


def example_classifier(dim: int, num_classes: int) -> dict[str, Any]:
    """The shapes of a classifier's variables."""
    shapes = {
        'mean': (dim,),
        'scale': (dim,),
        'weights': (dim, num_classes),
        'bias': (num_classes,),
    }
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def _represent(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
    return networks['encoder'].apply(variables['encoder'], images)


def _logits(networks: Networks, variables: Any, images: jax.Array) -> jax.Array:
    fitted = variables[CLASSIFIER]
    mean, scale, bias = (fitted[name][None] for name in ('mean', 'scale', 'bias'))
    inputs = (_represent(networks, variables, images) - mean) / scale
    product = jnp.matmul(inputs, fitted['weights'], precision=jax.lax.Precision.HIGHEST)
    return product + bias
