"""Feature extraction: independence of the batch, one compilation, several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import encoders
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features
from ssl_extract.runtime import parallel

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(192, 5)).astype(np.float32)


def linear(variables, inputs):
    return inputs.reshape(len(inputs), -1) @ variables['w']


@pytest.fixture(scope='module')
def resnet():
    """A small ResNet whose running statistics are not the initial ones, and its features."""
    network = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
    inputs = jnp.asarray(IMAGES, jnp.float32) / 255
    variables = network.init(jax.random.key(0), inputs)
    statistics = jax.jit(network.train)(variables, inputs)[1]
    variables = {'params': variables['params'], 'batch_stats': statistics}
    return network.apply, variables, np.asarray(jax.jit(network.apply)(variables, inputs))


@pytest.mark.parametrize('batch_size', [1, 7, 23, 64])
def test_extract_is_the_encoder_on_unit_range_inputs(batch_size):
    found = features.extract(linear, {'w': WEIGHTS}, IMAGES, batch_size=batch_size)
    assert found.shape == (23, 5) and found.dtype == np.float32
    expected = IMAGES.reshape(23, -1).astype(np.float64) / 255 @ WEIGHTS
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('batch_size', [5, 23, 32])
def test_batch_normalization_is_frozen(resnet, batch_size):
    apply, variables, expected = resnet
    found = features.extract(apply, variables, IMAGES, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_four_devices_give_the_features_of_one(resnet):
    apply, variables, expected = resnet
    mesh = parallel.data_mesh()
    assert mesh.size == 4
    for batch_size in (16, 5):  # 5 becomes 8
        found = features.extract(apply, variables, IMAGES, batch_size=batch_size, mesh=mesh)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_mesh_shards_the_batch():
    seen = []

    def spy(variables, inputs):
        jax.debug.inspect_array_sharding(inputs, callback=seen.append)
        return linear(variables, inputs)

    features.extract(spy, {'w': WEIGHTS}, IMAGES, batch_size=8, mesh=parallel.data_mesh())
    assert seen[0].shard_shape((8, 8, 8, 3)) == (2, 8, 8, 3)


def test_encoders_of_one_architecture_compile_once():
    traces = []

    def counted(variables, inputs):
        traces.append(inputs.shape)
        return linear(variables, inputs)

    for i in range(3):
        features.extract(counted, {'w': WEIGHTS * i}, IMAGES[: 20 + i], batch_size=8)
    assert traces == [(8, 8, 8, 3)]


def test_more_batches_than_fly_at_once_keep_their_order():
    images = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
    found = features.extract(
        lambda variables, inputs: inputs[:, 0, 0] * variables, 255.0, images, batch_size=2
    )
    np.testing.assert_allclose(found[:, 0], np.arange(30), rtol=1e-6)


def test_bfloat16_outputs_become_float32():
    def half(variables, inputs):
        return linear(variables, inputs).astype(jnp.bfloat16)

    assert features.extract(half, {'w': WEIGHTS}, IMAGES[:4]).dtype == np.float32


@pytest.mark.parametrize(
    'images',
    [IMAGES.astype(np.float32), IMAGES[0], IMAGES[..., :1], IMAGES[:0]],
    ids=['float', 'one image', 'gray', 'empty'],
)
def test_wrong_images_are_named(images):
    with pytest.raises(UserError, match=r'uint8 images \[N, H, W, 3\]'):
        features.extract(linear, {'w': WEIGHTS}, images)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match='batch_size must be at least 1'):
        features.extract(linear, {'w': WEIGHTS}, IMAGES, batch_size=0)
    with pytest.raises(UserError, match=r'must give \[B, D\]'):
        features.extract(lambda variables, inputs: inputs, {}, IMAGES)


def test_checks_name_what_is_wrong():
    good = np.ones((4, 2), np.float32)
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(UserError, match=r'NaN or infinity in 1 of 4 rows \(first: row 2\)'):
        features.check_features(bad)
    with pytest.raises(UserError, match=r'\[N, D\]'):
        features.check_features(good[0])
    with pytest.raises(UserError, match='width 3, got 2'):
        features.check_features(good, width=3)
    with pytest.raises(UserError, match='a set with labels'):
        features.check_labels(None, 4, 3)
    with pytest.raises(UserError, match='must be 4 integers'):
        features.check_labels(np.arange(3), 4, 3)
    with pytest.raises(UserError, match='must be 4 integers'):
        features.check_labels(np.arange(4.0), 4, 3)
    with pytest.raises(UserError, match=r'\[0, 3\), got 0 to 3'):
        features.check_labels(np.arange(4), 4, 3)
    with pytest.raises(UserError, match=r'\[0, 4\), got -1 to 2'):
        features.check_labels(np.arange(4) - 1, 4, 4)
    with pytest.raises(UserError, match='num_classes must be at least 2'):
        features.check_labels(np.zeros(4, int), 4, 1)
    with pytest.raises(UserError, match='no example of class 1, 3 of 4'):
        features.check_training_set(good, np.array([0, 2, 2, 0]), 4)
