"""The convolution and its weight gradient against XLA's, SciPy's and a hand count of its work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import signal

from ssl_extract.encoders import conv as conv_lib
from ssl_extract.encoders import onednn
from ssl_extract.errors import UserError


def xla_conv(inputs, kernel, stride):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        [(half, half)] * 2,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def make_case(shape, features, size, stride, dtype=np.float32):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=shape), dtype)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], features)), dtype)
    height, width = (-(-side // stride) for side in shape[1:3])
    return inputs, kernel, jnp.asarray(rng.normal(size=(shape[0], height, width, features)), dtype)


def gradients(function, inputs, kernel, cotangent, stride):
    def run(inputs, kernel, cotangent):
        outputs, vjp = jax.vjp(lambda x, w: function(x, w, stride), inputs, kernel)
        return outputs, *vjp(cotangent)

    return jax.jit(run)(inputs, kernel, cotangent)


CASES = [
    ((8, 6, 6, 3), 5, 3, 1),
    ((8, 7, 5, 4), 3, 3, 2),
    ((8, 8, 8, 2), 4, 3, 2),
    ((7, 5, 6, 4), 3, 1, 1),
    ((7, 5, 6, 4), 3, 1, 2),
    ((3, 11, 9, 2), 3, 7, 2),
    ((1, 1, 1, 3), 2, 3, 2),
]
BY_ONEDNN = [conv_lib.onednn_conv] if onednn.is_known() else []


@pytest.mark.parametrize('shape, features, size, stride', CASES)
@pytest.mark.parametrize('cache_bytes', [1, conv_lib.CACHE_BYTES])  # 1: one image at a time
def test_gradients_equal_xlas(monkeypatch, shape, features, size, stride, cache_bytes):
    monkeypatch.setattr(conv_lib, 'CACHE_BYTES', cache_bytes)
    monkeypatch.setattr(conv_lib, 'MIN_ROWS', 1)
    case = make_case(shape, features, size, stride)
    ours = gradients(conv_lib.cpu_conv, *case, stride)
    reference = gradients(xla_conv, *case, stride)
    for actual, desired in zip(ours, reference, strict=True):
        assert actual.dtype == desired.dtype
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('function', BY_ONEDNN)
@pytest.mark.parametrize('shape, features, size, stride', [*CASES, ((2, 13, 11, 3), 16, 5, 3)])
def test_onednns_gradients_equal_xlas(function, shape, features, size, stride):
    case = make_case(shape, features, size, stride)
    ours = gradients(function, *case, stride)
    for actual, desired in zip(ours, gradients(xla_conv, *case, stride), strict=True):
        assert actual.dtype == desired.dtype
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('function', BY_ONEDNN)
def test_onednn_keeps_nan_where_autodiff_does(function):
    inputs, kernel, cotangent = make_case((4, 5, 5, 2), 3, 3, 1)
    inputs, cotangent = inputs.at[0, 0, 0, 0].set(jnp.nan), cotangent.at[1, 2, 2, 1].set(jnp.nan)
    ours = gradients(function, inputs, kernel, cotangent, 1)
    for actual, desired in zip(
        ours, gradients(xla_conv, inputs, kernel, cotangent, 1), strict=True
    ):
        missed = np.isnan(desired) & ~np.isnan(actual)
        assert np.isnan(actual).any() and not missed.any()


@pytest.mark.parametrize('function', BY_ONEDNN)
@pytest.mark.parametrize('stride', [1, 2])
def test_onednns_gradient_has_xlas_gradient(function, stride):
    """As where a defense attacks the answers that a model was trained on."""
    inputs, kernel, cotangent = make_case((4, 5, 5, 2), 3, 3, stride)

    def steepness(function):
        def loss(inputs, kernel):
            return jnp.vdot(jnp.tanh(function(inputs, kernel, stride)), cotangent)

        def length(inputs, kernel):
            slopes = jax.grad(loss, argnums=(0, 1))(inputs, kernel)
            return sum(jnp.sum(jnp.sin(slope)) for slope in slopes)

        return jax.jit(jax.grad(length, argnums=(0, 1)))(inputs, kernel)

    for actual, desired in zip(steepness(function), steepness(xla_conv), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('function', BY_ONEDNN)
def test_onednn_under_vmap_equals_a_loop(function):
    inputs, kernel, cotangent = make_case((4, 5, 5, 2), 3, 3, 2)
    kernels = jnp.stack([kernel, -2 * kernel])
    mapped = jax.vmap(lambda w: gradients(function, inputs, w, cotangent, 2))(kernels)
    for i, w in enumerate(kernels):
        for actual, desired in zip(
            mapped, gradients(function, inputs, w, cotangent, 2), strict=True
        ):
            np.testing.assert_allclose(actual[i], desired, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('images', [2, 3, 5])
def test_a_batch_that_chunks_do_not_divide_is_summed_whole(monkeypatch, images):
    monkeypatch.setattr(conv_lib, 'CACHE_BYTES', images * 4 * 4 * 9 * 2 * 4)  # of `images` patches
    monkeypatch.setattr(conv_lib, 'MIN_ROWS', 0)
    inputs, kernel, cotangent = make_case((13, 4, 4, 2), 3, 3, 1)
    actual = conv_lib.weight_gradient(inputs, cotangent, 3, 1)
    desired = gradients(xla_conv, inputs, kernel, cotangent, 1)[2]
    np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('stride', [1, 2])
def test_values_and_weight_gradient_equal_scipys_correlation(stride):
    inputs, kernel, cotangent = make_case((2, 5, 6, 2), 3, 3, stride)
    outputs, _, gradient = gradients(conv_lib.conv, inputs, kernel, cotangent, stride)

    dense = np.zeros((2, 5, 6, 3))  # the cotangent of the convolution without a stride
    dense[:, ::stride, ::stride] = cotangent
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for d in range(3):
        for b in range(2):
            planes = [
                signal.correlate2d(padded[b, :, :, c], kernel[:, :, c, d], 'valid')
                for c in range(2)
            ]
            np.testing.assert_allclose(
                outputs[b, :, :, d], sum(planes)[::stride, ::stride], rtol=1e-4, atol=1e-4
            )
        for c in range(2):
            taps = [
                signal.correlate2d(padded[b, :, :, c], dense[b, :, :, d], 'valid') for b in range(2)
            ]
            np.testing.assert_allclose(gradient[:, :, c, d], sum(taps), rtol=1e-4, atol=1e-4)


def test_bfloat16_gradient_keeps_its_dtype_and_sums_in_float32():
    case = make_case((256, 4, 4, 2), 2, 3, 1)
    desired = gradients(xla_conv, *case, 1)[2]
    gradient = gradients(conv_lib.cpu_conv, *(x.astype(jnp.bfloat16) for x in case), 1)[2]
    assert gradient.dtype == jnp.bfloat16
    # A sum of 4,096 products held in 8 bits would be off by far more than its operands' rounding.
    np.testing.assert_allclose(gradient.astype(np.float32), desired, rtol=0.02, atol=1.0)


@pytest.mark.devices
def test_batch_sharded_over_four_devices_equals_one():
    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    inputs, kernel, cotangent = make_case((16, 5, 5, 3), 4, 3, 2)
    desired = gradients(conv_lib.conv, inputs, kernel, cotangent, 2)
    sharding = jax.NamedSharding(mesh, jax.P('data'))
    sharded = jax.device_put((inputs, cotangent), sharding)
    kernel = jax.device_put(kernel, jax.NamedSharding(mesh, jax.P()))
    actual = gradients(conv_lib.conv, sharded[0], kernel, sharded[1], 2)
    assert len(actual[0].sharding.device_set) == 4
    for a, d in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-5)


def test_vmap_over_kernels_equals_a_loop():
    inputs, kernel, cotangent = make_case((4, 5, 5, 2), 3, 3, 1)
    kernels = jnp.stack([kernel, -2 * kernel])

    @jax.jit
    def gradient(kernel):
        return jax.grad(lambda w: jnp.vdot(jnp.tanh(conv_lib.conv(inputs, w)), cotangent))(kernel)

    looped = jnp.stack([gradient(k) for k in kernels])
    np.testing.assert_allclose(jax.vmap(gradient)(kernels), looped, rtol=1e-4, atol=1e-4)


@pytest.mark.devices  # on one, oneDNN is called
def test_only_the_cpu_gets_the_product_for_its_weight_gradient(monkeypatch):
    case = make_case((4, 5, 5, 2), 3, 3, 1)

    def program():
        def run(inputs, kernel, cotangent):  # a new function: what was traced before does not count
            return jax.vjp(lambda x, w: conv_lib.conv(x, w), inputs, kernel)[1](cotangent)

        return str(jax.make_jaxpr(run)(*case))

    assert program().count('conv_general_dilated[') == 2  # forward, and the gradient of the input
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert program().count('conv_general_dilated[') == 3


@pytest.mark.parametrize('shape', [(2, 2, 1, 1), (3, 1, 1, 1)])
def test_kernel_without_a_middle_is_refused(shape):
    with pytest.raises(UserError, match='odd side'):
        conv_lib.conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros(shape))
