"""2-D convolution and its two gradients by the oneDNN inside XLA:CPU.

jaxlib carries it on x86. XLA's compiler does not use it for convolutions, but runs a custom call of
its name. All three are its forward convolution, two to four times as fast as XLA's own on a
processor with AVX-512:

- the input's gradient of stride s is a convolution of the output's gradient into s * s phases, each
  with the taps of the kernel that meet it, as in a sub-pixel layer (Shi et al. 2016,
  https://arxiv.org/abs/1609.05158);
- the kernel's gradient is a convolution in three dimensions with the images as its channels: the
  output's gradient, as large a kernel as the image, goes over height and width, and channels are
  the third dimension, over which it is 1 wide.

https://uxlfoundation.github.io/oneDNN/dev_guide_convolution.html
"""

import contextlib
import contextvars
import json
import platform
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax

from ssl_extract.runtime import programs

# The call is no public interface: its configuration was tried with these, and a wrong one aborts.
TRIED = ('0.10.2', '0.12.0.1')
TARGET = '__onednn$convolution'
_LEFT_OUT = contextvars.ContextVar('left_out', default=False)


def is_known() -> bool:
    """Tells whether this jaxlib is one that the call was tried with, on x86."""
    return platform.machine() in ('x86_64', 'AMD64') and jaxlib.__version__ in TRIED


# XLA writes such a program as if the call were of another class, and reads foreign memory.
if is_known():
    programs.keep_out(TARGET)


def is_here() -> bool:
    """Tells whether a program can use these convolutions: on one CPU device, of a known jaxlib.

    Each of several devices would be given the whole batch: the compiler cannot divide the call.
    """
    one = jax.default_backend() == 'cpu' and jax.device_count() == 1
    return one and is_known() and not _LEFT_OUT.get()


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Lets what is traced in the block convolve as XLA does, for a program of other machines."""
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def conv(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves with symmetric padding k // 2.

    Args:
        inputs: float32 `[B, H, W, C]`.
        kernel: float32 `[k, k, C, D]`, k odd.
        stride: in both directions.

    Returns:
        float32 `[B, ceil(H / stride), ceil(W / stride), D]`.
    """
    half = kernel.shape[0] // 2
    height, width = (-(-side // stride) for side in inputs.shape[1:3])
    shape = (len(inputs), height, width, kernel.shape[-1])
    return _call(inputs, kernel, shape, padding=[(half, half)] * 2, stride=stride)


def input_gradient(
    cotangent: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int
) -> jax.Array:
    """Computes the gradient of `vdot(cotangent, conv(inputs, kernel, stride))` by the inputs.

    Args:
        cotangent: float32 `[B, H', W', D]`, the gradient of the output.
        kernel: float32 `[k, k, C, D]`.
        shape: of the inputs, `[B, H, W, C]`.
        stride: of the convolution.

    Returns:
        float32 `[B, H, W, C]`.
    """
    size, half = len(kernel), len(kernel) // 2
    # Input q = stride * m + r meets output m + offset through tap r + half - stride * offset.
    first = -((size - 1 - half) // stride)
    last = (stride - 1 + half) // stride
    offsets, phases = np.arange(first, last + 1), np.arange(stride)
    taps = phases + half - stride * offsets[:, None]
    taps = np.where((taps >= 0) & (taps < size), taps, size)  # the last is of zeros
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel[taps[:, None, :, None], taps[None, :, None, :]]  # [T, T, s, s, C, D]
    spread = len(offsets)
    kernel = kernel.transpose(0, 1, 5, 2, 3, 4).reshape(spread, spread, kernel.shape[-1], -1)
    batch, height, width, _ = cotangent.shape
    phased = _call(
        cotangent, kernel, (batch, height, width, kernel.shape[-1]), padding=[(-first, last)] * 2
    )
    phased = phased.reshape(batch, height, width, stride, stride, -1).transpose(0, 1, 3, 2, 4, 5)
    whole = phased.reshape(batch, height * stride, width * stride, -1)
    return whole[:, : shape[1], : shape[2]]


def weight_gradient(inputs: jax.Array, cotangent: jax.Array, size: int, stride: int) -> jax.Array:
    """Computes the gradient of `vdot(cotangent, conv(inputs, kernel, stride))` by the kernel.

    Args:
        inputs: float32 `[B, H, W, C]`.
        cotangent: float32 `[B, H', W', D]`, the gradient of the output.
        size: the side k of the kernel.
        stride: of the convolution.

    Returns:
        float32 `[k, k, C, D]`.
    """
    half, channels, features = size // 2, inputs.shape[-1], cotangent.shape[-1]
    if size == 1:
        inputs, stride = inputs[:, ::stride, ::stride], 1
    # As far as the kernel reached: beyond the last row and column, or not to them.
    reached = [(side - 1) * stride + size - half for side in cotangent.shape[1:3]]

    def convolve(inputs: jax.Array, cotangent: jax.Array) -> jax.Array:
        inputs = inputs[:, : reached[0], : reached[1]]
        behind = [end - side for end, side in zip(reached, inputs.shape[1:3], strict=True)]
        return _call(
            inputs.transpose(1, 2, 3, 0)[None],  # [1, H, W, C, B]
            cotangent[:, :, :, None],  # [B, H', W', 1, D]
            (1, size, size, channels, features),
            padding=[(half, behind[0]), (half, behind[1]), (0, 0)],
            kernel_dims=(0, 4, 1, 2, 3),
            dilation=(stride, stride, 1),
        )[0]

    return _apart(convolve, inputs, cotangent)


def _apart(function: Callable, *operands: jax.Array) -> jax.Array:
    """Calls a function in a branch that is always taken.

    XLA fuses nothing into a branch. A transposition that is fused with BatchNorm and ReLU is a loop
    several times as slow as the copy that it is alone; `optimization_barrier` does not prevent it.
    """
    bits = lax.bitcast_convert_type(operands[0][(0,) * operands[0].ndim], jnp.uint32)
    always = (bits | 1) > 0  # which the compiler does not see
    shape = jax.eval_shape(function, *operands)
    return lax.cond(always, function, lambda *_: jnp.zeros(shape.shape, shape.dtype), *operands)


def _call(
    inputs: jax.Array,
    kernel: jax.Array,
    shape: tuple[int, ...],
    *,
    padding: Sequence[tuple[int, int]],
    stride: int = 1,
    kernel_dims: tuple[int, ...] = (2, 3, 0, 1),
    dilation: tuple[int, ...] = (1, 1),
) -> jax.Array:
    """Calls oneDNN's convolution; `kernel_dims` are those of inputs, outputs and space."""
    rank = len(shape)
    layout = {'batch_dim': 0, 'feature_dim': rank - 1, 'spatial_dims': [*range(1, rank - 1)]}
    read, made, *space = kernel_dims
    config = {
        'dims': rank,
        'input': {'data': layout},
        'kernel': {
            'filter': {
                'input_feature_dim': read,
                'output_feature_dim': made,
                'spatial_dims': space,
            }
        },
        'output': {'data': layout},
        'window': {
            'pad_left': [before for before, _ in padding],
            'pad_right': [after for _, after in padding],
            'strides': [stride] * len(space),
            'window_dilations': dilation,
        },
        'feature_groups': 1,
    }
    call = jax.ffi.ffi_call(
        TARGET,
        jax.ShapeDtypeStruct(shape, jnp.float32),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({'onednn_conv_config': config}),
        vmap_method='sequential',
    )
    return call(inputs, kernel)
