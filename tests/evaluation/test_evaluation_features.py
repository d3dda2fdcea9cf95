"""Feature extraction: independence of the batch, one compilation, several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import data, encoders
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


@pytest.mark.devices
def test_four_devices_give_the_features_of_one(resnet):
    apply, variables, expected = resnet
    mesh = parallel.data_mesh()
    assert mesh.size == 4
    for batch_size in (16, 5):  # 5 becomes 8
        found = features.extract(apply, variables, IMAGES, batch_size=batch_size, mesh=mesh)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.devices
def test_mesh_shards_the_batch():
    seen = []

    def spy(variables, inputs):
        jax.debug.inspect_array_sharding(inputs, callback=seen.append)
        return linear(variables, inputs)

    features.extract(spy, {'w': WEIGHTS}, IMAGES, batch_size=8, mesh=parallel.data_mesh())
    assert seen[0].shard_shape((8, 8, 8, 3)) == (2, 8, 8, 3)


def test_parameters_that_are_not_finite_are_seen_behind_a_relu_that_hides_them():
    def hides(variables, inputs):
        return jnp.nan_to_num(jnp.maximum(linear(variables, inputs), 0))

    broken = np.where(np.arange(WEIGHTS.size).reshape(WEIGHTS.shape) == 3, np.nan, WEIGHTS)
    for weights in (broken, np.float32(1e20) * WEIGHTS):
        with pytest.raises(UserError, match='statistics are not finite: its training has diverged'):
            features.extract(hides, {'w': weights}, IMAGES)


def test_features_that_are_not_finite_are_no_features():
    infinite = lambda inputs: inputs.reshape(len(inputs), -1) + np.float32(np.inf)  # noqa: E731
    for encode in ((lambda variables, inputs: infinite(inputs), {}), infinite):
        with pytest.raises(UserError, match='NaN or infinity in 23 of 23 rows'):
            features.represent(encode, data.Dataset(IMAGES))


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


def test_floats_are_seen_as_they_are_and_other_types_by_a_decoder():
    vectors = IMAGES.reshape(23, -1).astype(np.float64)
    found = features.extract(linear, {'w': WEIGHTS}, vectors, batch_size=8)
    np.testing.assert_allclose(found, vectors @ WEIGHTS, rtol=1e-4, atol=1e-2)
    halved = features.extract(
        linear, {'w': WEIGHTS}, vectors.astype(np.int16), decode=lambda stored: stored / 2
    )
    np.testing.assert_allclose(halved, vectors @ WEIGHTS / 2, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (IMAGES[:0], r'N >= 1, got \[0, 8, 8, 3\]'),
        (np.uint8(3), r'N >= 1, got \[\]'),
        (IMAGES.astype(np.int16), "int16 has no decoder of its own: write decode='identity'"),
    ],
    ids=['empty', 'no axis', 'int16'],
)
def test_wrong_inputs_are_named(inputs, message):
    with pytest.raises(UserError, match=message):
        features.extract(linear, {'w': WEIGHTS}, inputs)


def test_a_function_of_numpy_arrays_is_called_in_order_and_unpadded():
    seen = []

    def encode(inputs):
        assert type(inputs) is np.ndarray
        seen.append(inputs)
        return inputs.reshape(len(inputs), -1)[:, :5].tolist()

    found = features.represent(encode, data.Dataset(IMAGES), batch_size=10)
    assert [len(batch) for batch in seen] == [10, 10, 3]
    np.testing.assert_allclose(np.concatenate(seen), IMAGES / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(found, np.concatenate(seen).reshape(23, -1)[:, :5])


@pytest.mark.parametrize(
    'encode',
    [lambda inputs: inputs, lambda inputs: inputs[0, 0], lambda inputs: np.ones((10, len(inputs)))],
    ids=['not 2-D', 'rows missing', 'width changes'],
)
def test_a_function_that_gives_other_shapes_is_refused(encode):
    with pytest.raises(UserError, match='an encoder must give'):
        features.represent(encode, data.Dataset(IMAGES), batch_size=10)


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
    with pytest.raises(UserError, match='are all of class 2: use examples of two classes'):
        features.check_training_set(good, np.full(4, 2), 4)
