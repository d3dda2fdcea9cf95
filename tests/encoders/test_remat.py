"""Rematerialized encoders: the same parameters, values and gradients in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import encoders

# XLA's CPU compiler drops the barriers that keep a block from being computed again too early.
KEEP_BARRIERS = {'xla_disable_hlo_passes': 'cse_barrier_expander'}


@pytest.mark.parametrize(
    'spec',
    ['resnet18(stem="patch", width=4, stages=(3,))', 'vit(depth=2, width=4, heads=2)'],
)
def test_blocks_computed_again_change_memory_alone(spec):
    inputs = np.random.default_rng(0).uniform(size=(8, 16, 16, 3)).astype(np.float32)
    results, memory = [], []
    for written in (spec, f'{spec[:-1]}, remat=True)'):
        network = encoders.make(written)
        variables = network.init(jax.random.key(0), inputs)

        def loss(params, stats, network=network):
            outputs, stats = network.train({'params': params, 'batch_stats': stats}, inputs)
            return jnp.mean(jnp.square(outputs)), stats

        step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=KEEP_BARRIERS)
        given = variables['params'], variables['batch_stats']
        compiled = step.lower(*given).compile()
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
        results.append((variables, compiled(*given)))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])  # names included
    largest = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(results[0][1]))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * largest)
    assert memory[1] < 0.75 * memory[0]


@pytest.mark.parametrize(
    ('spec', 'inputs'),
    [
        ('resnet50(stem="patch", width=4, stages=(1, 1))', (16, 16, 3)),
        ('speech_transformer(rate=1000, mels=8, width=4, heads=2, depth=2)', (500,)),
        ('text_transformer(vocabulary=9, width=4, heads=2)', (8,)),
        ('wave_transformer(width=4, heads=2, depth=2)', (500,)),
    ],
)
def test_parameters_have_the_same_names_and_shapes(spec, inputs):
    example = jax.ShapeDtypeStruct((1, *inputs), jnp.float32)
    plain, again = (
        jax.eval_shape(encoders.make(written).init, jax.random.key(0), example)
        for written in (spec, f'{spec[:-1]}, remat=True)')
    )
    assert plain == again
