"""BYOL: the moving copy by its recurrence, the loss by hand, and no gradient through the copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import augment, encoders, training, victims
from ssl_extract.encoders import chain
from ssl_extract.runtime import parallel

ENCODER = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
MOMENTUM = 0.75


def recipe_of(momentum=MOMENTUM):
    return victims.VICTIMS.make(
        f'byol(momentum={momentum}, hidden=8, dim=6)',
        encoder=ENCODER,
        augmentation=augment.make('flip'),
    )


def views():
    keys = jax.random.split(jax.random.key(3))
    return {'views': [jax.random.uniform(key, (8, 8, 8, 3)) for key in keys]}


def test_the_copy_follows_the_weights_by_its_recurrence(tmp_path):
    recipe, mesh = recipe_of(), parallel.data_mesh(1)
    how = dict(batch_size=8, learning_rate=0.1, optimizer='sgd', schedule='constant', mesh=mesh)
    followed = []  # the weights before each step
    for steps in (1, 2):
        fit = training.fit(
            recipe, {'inputs': IMAGES}, num_steps=steps, folder=tmp_path / str(steps), **how
        )
        followed.append(jax.device_get(fit.state))
    first = recipe.init(jax.random.split(jax.random.key(0))[0], jnp.zeros((1, 8, 8, 3)))
    kernel = lambda tree: np.asarray(jax.tree.leaves(tree['projector'])[0], np.float64)  # noqa: E731
    copy = kernel(first['params'])
    for state in followed[:-1]:
        copy = MOMENTUM * copy + (1 - MOMENTUM) * kernel(state.params)
    kept = kernel(followed[-1].batch_stats['target'])
    np.testing.assert_allclose(kept, copy, rtol=1e-5, atol=1e-7)
    assert np.abs(kept - kernel(followed[-1].params)).max() > 1e-3


def test_the_loss_by_hand():
    recipe, batch = recipe_of(momentum=1.0), views()
    variables = recipe.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    loss, _ = recipe.objective(variables['params'], variables['batch_stats'], batch)
    networks = {'encoder': ENCODER}
    networks |= {name: encoders.make_head(spec) for name, spec in recipe.heads}
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    found = []
    for view in batch['views']:
        outputs, _ = chain.train(networks, *(variables[k] for k in ('params', 'batch_stats')), view)
        found.append({name: unit(np.asarray(x, np.float64)) for name, x in outputs.items()})
    expected = 0.0
    for one, other in (found, found[::-1]):  # the copy is still the encoder itself
        expected += np.mean(np.sum((one['predictor'] - other['projector']) ** 2, axis=1))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_no_gradient_passes_the_copy():
    recipe, batch = recipe_of(momentum=0.0), views()  # the copy is the encoder at every step
    variables = recipe.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    flat = jax.tree.map(jnp.zeros_like, variables['params']['predictor'])
    flat['Dense_1'] = flat['Dense_1'] | {'bias': jnp.ones(6)}  # a constant prediction

    def value(encoder):
        params = variables['params'] | {'encoder': encoder, 'predictor': flat}
        return recipe.objective(params, variables['batch_stats'], batch)[0]

    grads = jax.grad(value)(variables['params']['encoder'])
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), grads)
