"""Endpoints: representations, layers, projections, posteriors, labels.

An endpoint is a pure function `(networks, variables, inputs [B, ...]) -> outputs [B, D]` over the
victim's networks by name ('encoder' first) and their variables. 'classifier' is a softmax
regression that the victim's owner fitted on a labeled task.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import encoders
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry
from ssl_extract.victims.model import Victim

# The traits of an endpoint.
# needs: the parts that the victim's owner must have, 'head' or 'classifier'.
# gives: the kind of the answers.
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
    """Answers with the encoder's output, as the paper's victims do.

    >>> gives('representation')
    'representations'
    """
    return _represent


@register('layers')
def layers() -> Callable:
    """Answers with the outputs of all layers of the encoder, one behind the other.

    >>> gives('layers')
    'representations'
    """

    def encode(networks: Networks, variables: Any, inputs: jax.Array) -> jax.Array:
        of_layers = networks['encoder'].layers
        if of_layers is None:
            raise UserError(
                "the victim's encoder does not tell its layers: attack representations, or a "
                'victim such as resnet18, vit or speech_transformer'
            )
        return jnp.concatenate(of_layers(variables['encoder'], inputs), axis=-1)

    return encode


@register('projection', needs=('head',), gives='projections')
def projection() -> Callable:
    """Answers with the output of the projection head, the network behind the encoder.

    >>> sorted(needs('projection'))
    ['head']
    """

    def encode(networks: Networks, variables: Any, inputs: jax.Array) -> jax.Array:
        heads = [name for name in networks if name != 'encoder']
        if not heads:
            raise UserError(
                'the victim has no projection head: pretrain it here (victim.source="pretrain") or '
                'attack representations'
            )
        outputs = _represent(networks, variables, inputs)
        return networks[heads[0]].apply(variables[heads[0]], outputs)

    return encode


@register('posteriors', needs=('classifier',), gives='probabilities')
def posteriors() -> Callable:
    """Answers with the probability of every class, by the fitted classifier.

    >>> sorted(needs('posteriors')), gives('posteriors')
    (['classifier'], 'probabilities')
    """
    return lambda networks, variables, inputs: jax.nn.softmax(_logits(networks, variables, inputs))


@register('labels', needs=('classifier',), gives='probabilities')
def labels() -> Callable:
    """Answers with the most probable class, as a one-hot row.

    >>> sorted(needs('labels')), gives('labels')
    (['classifier'], 'probabilities')
    """

    def encode(networks: Networks, variables: Any, inputs: jax.Array) -> jax.Array:
        logits = _logits(networks, variables, inputs)
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])

    return encode


def needs(endpoint: str) -> frozenset[str]:
    """Returns the needs of an endpoint: 'head', 'classifier'."""
    return ENDPOINTS.needs(endpoint)


def gives(endpoint: str) -> str:
    """Returns the kind of answers: 'representations', 'projections' or 'probabilities'."""
    return ENDPOINTS.traits(endpoint).gives


@functools.cache
def make(endpoint: str, encoder: str, heads: tuple[tuple[str, str], ...] = ()) -> Callable:
    """Makes `(variables, inputs) -> outputs` of an endpoint, for a victim with given networks.

    Args:
        endpoint: a registered name.
        encoder: the spec of the victim's encoder.
        heads: (name, spec) of the networks behind the encoder, in order.
    """
    networks = {'encoder': encoders.make(encoder)}
    networks |= {name: encoders.make_head(spec) for name, spec in heads}
    return functools.partial(ENDPOINTS.make(endpoint), networks)


def at(victim: Victim, endpoint: str, *, classifier: dict[str, Any] | None = None) -> Victim:
    """Returns the victim with the answers of an endpoint.

    Args:
        victim: with an `encoder` a victim has all endpoints; any other victim has one.
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


def head_of(victim: Victim) -> Callable[[jax.Array], jax.Array]:
    """Returns the victim's projection head, representations [B, D] -> projections [B, P].

    Args:
        victim: with an encoder that has a head.
    """
    name, spec = victim.encoder.heads[0]
    network = encoders.make_head(spec)
    variables = jax.tree.map(np.asarray, victim.encoder.head_variables[name])
    return lambda representations: network.apply(variables, representations)


def example_classifier(dim: int, num_classes: int) -> dict[str, Any]:
    """Returns the shapes of a classifier's variables."""
    shapes = {
        'mean': (dim,),
        'scale': (dim,),
        'weights': (dim, num_classes),
        'bias': (num_classes,),
    }
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def _represent(networks: Networks, variables: Any, inputs: jax.Array) -> jax.Array:
    return networks['encoder'].apply(variables['encoder'], inputs)


def _logits(networks: Networks, variables: Any, inputs: jax.Array) -> jax.Array:
    fitted = variables[CLASSIFIER]
    mean, scale, bias = (fitted[name][None] for name in ('mean', 'scale', 'bias'))
    features = (_represent(networks, variables, inputs) - mean) / scale
    product = jnp.matmul(features, fitted['weights'], precision=jax.lax.Precision.HIGHEST)
    return product + bias
