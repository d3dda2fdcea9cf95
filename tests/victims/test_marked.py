"""A victim with the rotation watermark: its predictor is trained, learns, and is kept."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import augment, data, encoders, training, victims
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.ownership import rotation_watermark
from ssl_extract.runtime import parallel
from ssl_extract.victims import endpoints, exported

SHAPE = (8, 8, 3)


class Pixels(nn.Module):
    """Two layers on the pixels."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(32)(x)


PIXELS = encoders.from_module(Pixels(), rank=4)


def recipe_of(**arguments):
    written = ', '.join(f'{name}={value}' for name, value in arguments.items())
    method = f'rotation_watermark(hidden=8, dim=8, predictor=32, {written})'
    return victims.VICTIMS.make(method, encoder=PIXELS, augmentation=augment.make(''))


RECIPE = recipe_of(weight=2.0)


def success_of(state):
    """The success rate of the watermark on test images."""
    heads = {'rotation': chain.part(state, 'rotation')}
    mark = rotation_watermark.mark_of(Encoder('', {}, SHAPE, RECIPE.heads, heads))
    images = data.load('digits', 'test').inputs / np.float32(255)
    read = lambda x: mark(PIXELS.apply(chain.part(state, 'encoder'), x))  # noqa: E731
    return rotation_watermark.scores(read, rotation_watermark.rotate(images, seed=1)).mean()


def test_the_predictor_is_trained_and_learns():
    mesh = parallel.data_mesh(1)
    step = training.make_step(RECIPE, 'adam', 'constant', mesh)
    state = training.make_init(RECIPE, 'adam', SHAPE, mesh)(jax.random.key(0), (), None)
    before, untrained = jax.device_get(chain.part(state, 'rotation')), success_of(state)
    inputs = data.load('digits', 'train').inputs
    for number in range(200):
        rows = training.epoch_order(0, number // 20, len(inputs)).reshape(-1)[number % 20 :: 20]
        state, _, _ = step(state, {'inputs': inputs[rows[:64]]}, None, 5e-3, 200)
    after = chain.part(state, 'rotation')
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after['params'], before['params'])
    assert min(jax.tree.leaves(moved)) > 0.01
    assert abs(untrained - 0.5) < 0.1 and success_of(state) > 0.65, success_of(state)


def test_the_objective_is_both_losses():
    """A predictor of zeros costs log 2, times the weight."""
    recipes = [recipe_of(weight=weight) for weight in (1.0, 3.0)]

    @jax.jit
    def measure(key, views):
        variables = RECIPE.init(key, jnp.zeros((1, *SHAPE)))
        params = variables['params']
        params['rotation'] = jax.tree.map(jnp.zeros_like, params['rotation'])
        batch = {'views': views, 'rotated': views}
        return [recipe.objective(params, variables['batch_stats'], batch) for recipe in recipes]

    views = tuple(np.random.default_rng(0).random((2, 4, *SHAPE), np.float32))
    (once, (_, measured)), (thrice, _) = measure(jax.random.key(0), views)
    assert float(measured['mark_loss']) == pytest.approx(np.log(2), rel=1e-6)
    assert float(thrice - once) == pytest.approx(2 * np.log(2), rel=1e-5)


@pytest.fixture(scope='module')
def encoder():
    """A victim of random numbers with both heads."""
    spec, rng = 'resnet18(stem="patch", width=4, stages=(1,))', np.random.default_rng(0)
    shapes = trained.shapes_of(spec, RECIPE.heads, SHAPE)
    variables = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
    heads = {name: chain.part(variables, name) for name, _ in RECIPE.heads}
    return Encoder(spec, chain.part(variables, 'encoder'), SHAPE, RECIPE.heads, heads)


def test_a_marked_victim_is_read_as_it_was_written(tmp_path, encoder):
    trained.save(tmp_path / 'folder', encoder)
    exported.export(encoder, tmp_path / 'file.safetensors')
    representations = np.random.default_rng(1).normal(size=(5, encoder.dim)).astype(np.float32)
    wanted = rotation_watermark.mark_of(encoder)(representations)
    assert wanted.shape == (5,) and np.ptp(wanted) > 0
    for path in (tmp_path / 'folder', tmp_path / 'file.safetensors'):
        read = exported.load(path)
        assert read.heads == encoder.heads
        np.testing.assert_array_equal(rotation_watermark.mark_of(read)(representations), wanted)


def test_the_predictor_is_no_part_of_what_is_answered(encoder):
    images = np.random.default_rng(1).random((3, *SHAPE), np.float32)
    apply, variables = encoder.through_heads()
    projections = apply(variables, images)
    victim = endpoints.at(victims.from_encoder(encoder), 'projection')
    assert projections.shape == (3, 8) and victim.dim == 8
    np.testing.assert_array_equal(victim.answer(images), projections)
