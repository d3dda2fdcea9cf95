"""The contract of an encoder, tried on small random inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import encoders
from ssl_extract.contract import Contract, require, require_same
from ssl_extract.encoders import Network
from ssl_extract.runtime import parallel

_BATCH = 8  # a multiple of most numbers of devices


def check_encoder(
    encoder: Network | str, *, input_shape: tuple[int, ...] = (8, 8, 3), rtol: float = 1e-3
) -> None:
    """Tries the contract of `encoders.Network`, and prints each clause that holds.

    Args:
        encoder: the network to try, or its spec.
        input_shape: the shape of one input.
        rtol: the tolerance of values, relative to the largest.

    Raises:
        UserError: names the first clause that the encoder breaks.
    """
    network = encoders.make(encoder) if isinstance(encoder, str) else encoder
    contract, rng = Contract('the encoder'), np.random.default_rng(0)
    inputs, others = rng.uniform(size=(2, _BATCH, *input_shape)).astype(np.float32)
    variables = _check_init(contract, network, inputs)
    _check_apply(contract, network, variables, inputs, others, rtol)
    if network.layers:
        with contract.clause('layers gives finite float32 [B, D] of each, those of apply last'):
            layers = network.layers(variables, inputs)
            for layer in layers:
                shown = f'it gives {layer.dtype}{list(layer.shape)}'
                require(layer.ndim == 2 and layer.dtype == jnp.float32, shown)
                require(np.all(np.isfinite(layer)), 'not all are finite')
            require_same(layers[-1], network.apply(variables, inputs), rtol)
    step = _check_train(contract, network, variables, inputs)
    _check_devices(contract, step, variables, inputs, rtol)


def _check_init(contract: Contract, network: Network, inputs: np.ndarray) -> dict[str, Any]:
    key, shape = jax.random.key(0), jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
    with contract.clause('init gives float32 params and batch_stats'):
        variables = network.init(key, inputs)
        require(set(variables) == {'params', 'batch_stats'}, f'it gives {sorted(variables)}')
        kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(variables)}
        require(kinds == {'float32'}, f'it gives {", ".join(sorted(kinds))}')
    with contract.clause('init gives the same variables of a shape as of an array'):
        require_same(network.init(key, shape), variables)
    with contract.clause('init gives other params under another key'):
        pairs = jax.tree.map(
            lambda a, b: np.any(a != b),
            network.init(jax.random.key(1), inputs)['params'],
            variables['params'],
        )
        require(any(jax.tree.leaves(pairs)))
    return variables


def _check_apply(
    contract: Contract,
    network: Network,
    variables: dict[str, Any],
    inputs: np.ndarray,
    others: np.ndarray,
    rtol: float,
) -> None:
    before = jax.tree.map(np.array, variables)
    with contract.clause('apply gives finite float32 [B, D]'):
        outputs = network.apply(variables, inputs)
        shown = f'it gives {outputs.dtype}{list(outputs.shape)}'
        require(outputs.ndim == 2 and len(outputs) == len(inputs), shown)
        require(outputs.dtype == jnp.float32, shown)
        require(np.all(np.isfinite(outputs)), 'not all are finite')
    with contract.clause('apply tells inputs apart'):
        require(np.max(np.abs(outputs - network.apply(variables, others))) > 0)
    with contract.clause('apply treats every row alone'):
        mixed = np.concatenate([inputs[:1], others[1:]])
        require_same(network.apply(variables, mixed)[:1], outputs[:1], rtol)
    with contract.clause('apply gives the same compiled'):
        require_same(jax.jit(network.apply)(variables, inputs), outputs, rtol)
        require_same(variables, before)


def _check_train(
    contract: Contract, network: Network, variables: dict[str, Any], inputs: np.ndarray
) -> Callable:
    @jax.jit
    def step(params: Any, batch_stats: Any, inputs: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            outputs, stats = network.train({'params': params, 'batch_stats': batch_stats}, inputs)
            return jnp.mean(jnp.square(outputs - 1.0)), (outputs, stats)

        return jax.grad(loss, has_aux=True)(params)

    with contract.clause('train gives what apply gives in shape, and statistics as they were'):
        grads, (outputs, stats) = step(variables['params'], variables['batch_stats'], inputs)
        expected = jax.eval_shape(lambda: (network.apply(variables, inputs), variables))
        shapes = jax.eval_shape(lambda: (outputs, {'params': grads, 'batch_stats': stats}))
        require(shapes == expected, f'it gives {shapes[0]} and {shapes[1]["batch_stats"]}')
        require(np.all(np.isfinite(outputs)), 'not all are finite')
    with contract.clause('train has a finite gradient that is not zero'):
        leaves = jax.tree.leaves(grads)
        require(all(np.all(np.isfinite(leaf)) for leaf in leaves), 'it is not finite')
        require(any(np.any(leaf) for leaf in leaves), 'it is zero')
    return step


def _check_devices(
    contract: Contract,
    step: Callable,
    variables: dict[str, Any],
    inputs: np.ndarray,
    rtol: float,
) -> None:
    mesh = parallel.data_mesh()
    with contract.clause(f'train gives on {mesh.size} devices what it gives on one'):
        expected = step(variables['params'], variables['batch_stats'], inputs)
        whole = parallel.replicate(variables, mesh)
        batch = jax.device_put(
            np.repeat(inputs, mesh.size, axis=0), parallel.batch_sharding(mesh)
        )  # the same rows on every device: the same mean, statistics and gradient
        grads, (outputs, stats) = step(whole['params'], whole['batch_stats'], batch)
        require_same((grads, (outputs[:: mesh.size], stats)), expected, rtol)
