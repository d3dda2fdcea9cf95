"""Chains of networks: encoder, projection head, predictor.

>>> import jax, jax.numpy as jnp
>>> from ssl_extract import encoders
>>> networks = {
...     'encoder': encoders.make('resnet18(stem="patch", width=8, stages=(1, 1))'),
...     'head': encoders.make_head('linear(dim=4)'),
... }
>>> images = jnp.zeros((2, 16, 16, 3))
>>> variables = init(networks, jax.random.key(0), images)
>>> outputs, batch_stats = train(networks, **variables, inputs=images)
>>> {name: output.shape for name, output in outputs.items()}
{'encoder': (2, 16), 'head': (2, 4)}
"""

from typing import Any

import jax

from ssl_extract.encoders.base import Network


def init(networks: dict[str, Network], key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
    """Initializes the joint variables `{'params': {name: ...}, 'batch_stats': {name: ...}}`."""
    variables: dict[str, Any] = {'params': {}, 'batch_stats': {}}
    for position, (name, network) in enumerate(networks.items()):
        initial = network.init(jax.random.fold_in(key, position), inputs)
        for kind in variables:
            variables[kind][name] = initial[kind]
        inputs = jax.eval_shape(network.apply, initial, inputs)
    return variables


def merge(*variables: dict[str, Any]) -> dict[str, Any]:
    """Merges the joint variables of networks that were initialized apart."""
    return {
        kind: {name: tree for joint in variables for name, tree in joint[kind].items()}
        for kind in ('params', 'batch_stats')
    }


def train(
    networks: dict[str, Network], params: Any, batch_stats: Any, inputs: jax.Array
) -> tuple[dict[str, jax.Array], Any]:
    """Returns the outputs of all networks by name, and the new batch statistics."""
    outputs, batch_stats = {}, dict(batch_stats)
    for name, network in networks.items():
        inputs, batch_stats[name] = network.train(
            {'params': params[name], 'batch_stats': batch_stats[name]}, inputs
        )
        outputs[name] = inputs
    return outputs, batch_stats


def part(variables_or_state: Any, name: str) -> dict[str, Any]:
    """Returns one network's `{'params', 'batch_stats'}` of joint variables or a TrainState."""
    if isinstance(variables_or_state, dict):
        params, batch_stats = variables_or_state['params'], variables_or_state['batch_stats']
    else:
        params, batch_stats = variables_or_state.params, variables_or_state.batch_stats
    return {'params': params[name], 'batch_stats': batch_stats[name]}
