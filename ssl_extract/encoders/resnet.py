"""Residual networks in torchvision's form.

He et al. 2016, https://arxiv.org/abs/1512.03385.

Convolutions have no bias and are padded symmetrically; the bottleneck strides in its 3x3
convolution ("v1.5"); a shortcut that changes shape is a 1x1 convolution with BatchNorm. Without the
classifier ResNet-18/34/50 have 11,176,512 / 21,284,672 / 23,508,032 parameters, as torchvision's.
The paper's CIFAR ResNet-34 (21,276,992) differs in its stem only: 3x3 instead of 7x7 saves 7,680.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_extract.encoders.base import Network, check_dtype, from_module, register
from ssl_extract.encoders.conv import conv
from ssl_extract.encoders.norm import BatchNorm
from ssl_extract.errors import UserError
from ssl_extract.ranges import Range, Width

STEMS = {'imagenet': (7, 2), 'cifar': (3, 1), 'patch': (3, 2)}  # kernel size, stride
EXPANSION = {'basic': 1, 'bottleneck': 4}
Blocks = Annotated[int, Range(1, 100)]  # of a stage
MAX_STAGES = 8


class Conv(nn.Module):
    """A convolution without bias, He-initialized over its outputs (fan-out)."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
        kernel = self.param('kernel', init, (self.size, self.size, x.shape[-1], self.features))
        return conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 around a bottleneck."""

    kind: str
    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        out = self.width * EXPANSION[self.kind]
        if self.kind == 'basic':
            convs = [(self.width, 3, self.stride), (out, 3, 1)]
        else:
            convs = [(self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1)]

        y = x
        for i, (features, size, stride) in enumerate(convs):
            y = nn.relu(y) if i else y
            y = Conv(features, size, stride, self.dtype)(y)
            y = BatchNorm(train, self.dtype)(y)
        if x.shape != y.shape:
            x = Conv(out, 1, self.stride, self.dtype, name='shortcut')(x)
            x = BatchNorm(train, self.dtype, name='shortcut_norm')(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Images `[B, H, W, C]` to representations `[B, width * 2 ** (stages - 1) * expansion]`."""

    block: str
    stages: tuple[int, ...]
    stem: str
    width: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, stride = STEMS[self.stem]
        x = Conv(self.width, size, stride, self.dtype, name='stem')(x)
        x = nn.relu(BatchNorm(train, self.dtype, name='stem_norm')(x))
        if self.stem == 'imagenet':
            # After a ReLU, padding with 0 is as good as with -infinity; jax2onnx knows no other.
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        self.keep(x)
        kind = nn.remat(Block, static_argnums=2) if train and self.remat else Block
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                name = f'stage{i}_block{j}'
                x = kind(self.block, self.width * 2**i, stride, self.dtype, name=name)(x, train)
            self.keep(x)
        if self.is_mutable_collection('intermediates'):
            self.sow('intermediates', 'spatial', x)
        return pooled(x)

    def keep(self, x: jax.Array) -> None:
        """Keeps the output of a layer for `Network.layers`; nothing is computed without."""
        if self.is_mutable_collection('intermediates'):
            self.sow('intermediates', 'layers', pooled(x))


def pooled(x: jax.Array) -> jax.Array:
    """Returns the mean float32 `[B, C]` over height and width of `[B, H, W, C]`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


@register('resnet')
def resnet(
    block: str = 'basic',
    stages: tuple[Blocks, ...] = (2, 2, 2, 2),
    stem: str = 'imagenet',
    width: Width = 64,
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes a residual network (He et al. 2016).

    >>> from ssl_extract import encoders
    >>> encoders.dim(resnet(stages=(1, 1), stem='patch', width=8), (16, 16, 3))
    16

    Args:
        block: 'basic' or 'bottleneck'.
        stages: the number of blocks of each stage; each stage after the first halves the image and
            doubles the width.
        stem: 'imagenet' (7x7 stride 2, max-pool), 'cifar' (3x3 stride 1) or 'patch' (3x3 stride 2:
            a quarter of the 'cifar' cost, for small machines).
        width: channels of the first stage.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: whether a training step computes each block again in the backward pass, in place of
            keeping all of the block's arrays: less memory, and one more forward pass.

    Raises:
        UserError: an argument has a wrong value.
    """
    if block not in EXPANSION:
        raise UserError(f'unknown block {block!r}: write one of {", ".join(EXPANSION)}')
    if stem not in STEMS:
        raise UserError(f'unknown stem {stem!r}: write one of {", ".join(STEMS)}')
    if not 1 <= len(stages) <= MAX_STAGES:
        raise UserError(f'stages={stages!r}: write 1 to {MAX_STAGES} stages, such as (2, 2, 2, 2)')
    module = ResNet(block, tuple(stages), stem, width, check_dtype(dtype), remat)
    return from_module(module, rank=4, layers=True, spatial=True)


@register('resnet18')
def resnet18(
    stem: str = 'imagenet',
    width: Width = 64,
    stages: tuple[Blocks, ...] = (2, 2, 2, 2),
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes ResNet-18: basic blocks, 512-d; smaller `width` and `stages` make small networks.

    >>> from ssl_extract import encoders
    >>> encoders.dim(resnet18(stem='patch', width=8, stages=(1,)), (16, 16, 3))
    8

    Args:
        stem: see `resnet`.
        width: channels of the first stage.
        stages: the number of blocks of each stage.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `resnet`.
    """
    return resnet('basic', stages, stem, width, dtype, remat)


@register('resnet34')
def resnet34(
    stem: str = 'imagenet',
    width: Width = 64,
    stages: tuple[Blocks, ...] = (3, 4, 6, 3),
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes ResNet-34: basic blocks, 512-d; the paper's CIFAR encoder has `stem="cifar"`.

    >>> from ssl_extract import encoders
    >>> encoders.dim(resnet34(stem='patch', width=8, stages=(1,)), (16, 16, 3))
    8

    Args:
        stem: see `resnet`.
        width: channels of the first stage.
        stages: the number of blocks of each stage.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `resnet`.
    """
    return resnet('basic', stages, stem, width, dtype, remat)


@register('resnet50')
def resnet50(
    stem: str = 'imagenet',
    width: Width = 64,
    stages: tuple[Blocks, ...] = (3, 4, 6, 3),
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes ResNet-50: bottleneck blocks, 2048-d; the paper's ImageNet encoder.

    >>> from ssl_extract import encoders
    >>> encoders.dim(resnet50(stem='patch', width=8, stages=(1,)), (16, 16, 3))
    32

    Args:
        stem: see `resnet`.
        width: channels of the first stage, a quarter of the stage's outputs.
        stages: the number of blocks of each stage.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `resnet`.
    """
    return resnet('bottleneck', stages, stem, width, dtype, remat)
