"""Chains of networks: encoder, projection head, predictor.

A network takes the outputs of the network before it. A branch (see `Network`) takes those of the
encoder, and the chain goes on as if the branch were not there.

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

from collections.abc import Callable
from typing import Any

import jax

from ssl_extract.encoders.base import Network


def init(networks: dict[str, Network], key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
    """Initializes the joint variables `{'params': {name: ...}, 'batch_stats': {name: ...}}`."""
    variables: dict[str, Any] = {'params': {}, 'batch_stats': {}}
    keys = {name: jax.random.fold_in(key, position) for position, name in enumerate(networks)}

    def step(name: str, network: Network, inputs: jax.Array) -> Any:
        initial = network.init(keys[name], inputs)
        for kind in variables:
            variables[kind][name] = initial[kind]
        return jax.eval_shape(network.apply, initial, inputs)

    _walk(networks, inputs, step)
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
    batch_stats = dict(batch_stats)

    def step(name: str, network: Network, inputs: jax.Array) -> jax.Array:
        variables = {'params': params[name], 'batch_stats': batch_stats[name]}
        outputs, batch_stats[name] = network.train(variables, inputs)
        return outputs

    return _walk(networks, inputs, step), batch_stats


def part(variables_or_state: Any, name: str) -> dict[str, Any]:
    """Returns one network's `{'params', 'batch_stats'}` of joint variables or a TrainState."""
    if isinstance(variables_or_state, dict):
        params, batch_stats = variables_or_state['params'], variables_or_state['batch_stats']
    else:
        params, batch_stats = variables_or_state.params, variables_or_state.batch_stats
    return {'params': params[name], 'batch_stats': batch_stats[name]}


def _walk(networks: dict[str, Network], inputs: Any, step: Callable) -> dict[str, Any]:
    """Returns `step(name, network, inputs)` of each network, with the inputs that it takes."""
    outputs: dict[str, Any] = {}
    for name, network in networks.items():
        outputs[name] = step(name, network, outputs['encoder'] if network.branch else inputs)
        inputs = inputs if network.branch else outputs[name]
    return outputs
