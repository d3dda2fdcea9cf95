"""2-D convolution with a weight gradient that is fast on CPU.

XLA:CPU computes the weight gradient of a small convolution as another convolution, with the batch
as its channels: 2-10x slower than the forward pass, and it transposes both operands first. Here it
is a matrix product of the output's gradient with the input's patches (im2col), a few images at a
time so that the patches, k * k times the input, stay in the cache. On GPU and TPU it is XLA's.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ssl_extract.encoders import onednn
from ssl_extract.errors import UserError

CACHE_BYTES = 2**21  # of patches made at a time; measured best between 1 and 4 MiB
MIN_ROWS = 4  # rows of a product per output channel; with fewer, adding up the products dominates


def conv(inputs: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolves with symmetric padding k // 2, as torchvision pads (XLA's 'SAME' does not).

    On CPU the convolution has a reverse-mode derivative only, and no `jax.jvp`.

    Args:
        inputs: `[B, H, W, C]`.
        kernel: `[k, k, C, D]`, of the dtype of the inputs, with k odd.
        stride: in both directions.

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), D]`.

    Raises:
        UserError: the kernel is not square or its side is even.

    >>> conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), 2)[0, :, :, 0]
    Array([[4., 6.],
           [6., 9.]], dtype=float32)
    """
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise UserError(f'a kernel of shape {kernel.shape}: write a square one of an odd side')
    if onednn.is_here() and inputs.dtype == jnp.float32:
        return onednn_conv(inputs, kernel, stride)
    if jax.default_backend() == 'cpu':
        return cpu_conv(inputs, kernel, stride)
    return plain_conv(inputs, kernel, stride)


def plain_conv(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves as XLA does."""
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        padding=[(half, half), (half, half)],
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def cpu_conv(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves, with the weight gradient of this file on every backend."""
    return plain_conv(inputs, kernel, stride)


def _forward(inputs, kernel, stride):
    return plain_conv(inputs, kernel, stride), (inputs, kernel)


def _backward(stride, residuals, cotangent):
    inputs, kernel = residuals
    transposed = jax.linear_transpose(lambda x: plain_conv(x, kernel, stride), inputs)
    gradient = weight_gradient(inputs, cotangent, kernel.shape[0], stride)
    return *transposed(cotangent), gradient.astype(kernel.dtype)


cpu_conv.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def onednn_conv(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves by oneDNN, there and back; its gradients can be differentiated again."""
    return onednn.conv(inputs, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(
    cotangent: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int
) -> jax.Array:
    return onednn.input_gradient(cotangent, kernel, shape, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _weight_gradient(inputs: jax.Array, cotangent: jax.Array, size: int, stride: int) -> jax.Array:
    return onednn.weight_gradient(inputs, cotangent, size, stride)


def _with_operands(function: Callable) -> Callable:
    """Makes the forward pass of a bilinear function: its gradients need its two operands."""
    return lambda first, second, *static: (function(first, second, *static), (first, second))


def _conv_backward(stride, operands, cotangent):
    inputs, kernel = operands
    return (
        _input_gradient(cotangent, kernel, inputs.shape, stride),
        _weight_gradient(inputs, cotangent, len(kernel), stride),
    )


def _input_gradient_backward(shape, stride, operands, direction):
    cotangent, kernel = operands
    return (
        onednn_conv(direction, kernel, stride),
        _weight_gradient(direction, cotangent, len(kernel), stride),
    )


def _weight_gradient_backward(size, stride, operands, direction):
    inputs, cotangent = operands
    return (
        _input_gradient(cotangent, direction, inputs.shape, stride),
        onednn_conv(inputs, direction, stride),
    )


onednn_conv.defvjp(_with_operands(onednn_conv), _conv_backward)
_input_gradient.defvjp(_with_operands(_input_gradient), _input_gradient_backward)
_weight_gradient.defvjp(_with_operands(_weight_gradient), _weight_gradient_backward)


def weight_gradient(inputs: jax.Array, cotangent: jax.Array, size: int, stride: int) -> jax.Array:
    """Computes the gradient of `vdot(cotangent, conv(inputs, kernel))` by the kernel.

    Args:
        inputs: `[B, H, W, C]`.
        cotangent: `[B, H', W', D]`, the gradient of the output.
        size: the side k of the kernel.
        stride: of the convolution.

    Returns:
        float32 `[k, k, C, D]`.
    """
    batch, channels, features = *inputs.shape[::3], cotangent.shape[-1]
    rows = cotangent.shape[1] * cotangent.shape[2]  # of patches per image
    row_bytes = size * size * channels * inputs.dtype.itemsize
    images = max(CACHE_BYTES // row_bytes, MIN_ROWS * features) // rows
    chunks = -(-batch // max(images, 1))
    whole = next(n for n in range(chunks, batch + 1) if batch % n == 0)
    chunks = whole if whole <= 2 * chunks else chunks  # rather smaller chunks than padding

    # Chunk i has the images i, i + chunks, ..., so that the chunks of a batch that is sharded over
    # devices are sharded too.
    def split(x: jax.Array) -> jax.Array:
        missing = -batch % chunks
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
        return x.reshape(-1, chunks, *x.shape[1:])

    def add_chunk(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        x = patches(lax.dynamic_index_in_dim(split_inputs, i, 1, keepdims=False), size, stride)
        y = lax.dynamic_index_in_dim(split_cotangent, i, 1, keepdims=False)
        y = y.reshape(-1, features)
        return total + jnp.matmul(y.T, x, preferred_element_type=jnp.float32), None

    split_inputs, split_cotangent = split(inputs), split(cotangent)
    total = jnp.zeros((features, size * size * channels), jnp.float32)
    total, _ = lax.scan(add_chunk, total, jnp.arange(chunks))
    return total.T.reshape(size, size, channels, features)


def patches(inputs: jax.Array, size: int, stride: int) -> jax.Array:
    """Collects the inputs of each output: `[B, H, W, C]` to `[B * H' * W', k * k * C]`."""
    half = size // 2
    height, width = (-(-side // stride) for side in inputs.shape[1:3])
    x = jnp.pad(inputs, ((0, 0), (half, half), (half, half), (0, 0)))
    # One direction, then the other: as fast as all taps at once, and it compiles faster.
    x = jnp.concatenate([x[:, :, j : j + width * stride : stride] for j in range(size)], axis=-1)
    x = jnp.concatenate([x[:, i : i + height * stride : stride] for i in range(size)], axis=-1)
    return x.reshape(-1, size * size * inputs.shape[-1])
