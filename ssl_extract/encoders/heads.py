"""Heads of SimCLR, SimSiam and the rotation watermark; a linear adapter.

SimCLR: Chen et al. 2020 (https://arxiv.org/abs/2002.05709), section 2.1. SimSiam: Chen and He 2021
(https://arxiv.org/abs/2011.10566), section 4.
"""

from typing import Any

import flax.linen as nn
import jax

from ssl_extract.encoders.base import (
    Network,
    check_dtype,
    from_module,
    register_head,
)
from ssl_extract.encoders.norm import BatchNorm
from ssl_extract.ranges import Width


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Attributes:
        widths: output width of each layer.
        norm: BatchNorm (and then no bias) after each linear layer but the last.
        norm_last: BatchNorm without scale and bias after the last layer too.
        dtype: of the computation.
    """

    widths: tuple[int, ...]
    norm: bool
    norm_last: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            normed = self.norm_last if last else self.norm
            x = nn.Dense(width, use_bias=not normed, dtype=self.dtype)(x)
            if normed:
                x = BatchNorm(train, self.dtype, affine=not last)(x)
            x = x if last else nn.relu(x)
        return x


def mlp(*widths: int, norm: bool, norm_last: bool, dtype: str) -> Network:
    """Makes a head of linear layers with output widths `widths`."""
    return from_module(MLP(widths, norm, norm_last, check_dtype(dtype)), rank=2)


@register_head('simclr')
def simclr(hidden: Width = 512, dim: Width = 128, dtype: str = 'float32') -> Network:
    """Makes SimCLR's projection head: Linear, ReLU, Linear.

    The paper's victims use 512-512-128.

    >>> from ssl_extract import encoders
    >>> encoders.dim(simclr(hidden=8, dim=4), (16,))
    4

    Args:
        hidden: width of the hidden layer.
        dim: width of the projections.
        dtype: of the computation, 'float32' or 'bfloat16'.
    """
    return mlp(hidden, dim, norm=False, norm_last=False, dtype=dtype)


@register_head('simsiam_projector')
def simsiam_projector(hidden: Width = 2048, dim: Width = 2048, dtype: str = 'float32') -> Network:
    """Makes SimSiam's projector: three linear layers with BatchNorm; no ReLU after the last.

    >>> from ssl_extract import encoders
    >>> encoders.dim(simsiam_projector(hidden=8, dim=4), (16,))
    4

    Args:
        hidden: width of the two hidden layers.
        dim: width of the projections.
        dtype: of the computation, 'float32' or 'bfloat16'.
    """
    return mlp(hidden, hidden, dim, norm=True, norm_last=True, dtype=dtype)


@register_head('simsiam_predictor')
def simsiam_predictor(hidden: Width = 512, dim: Width = 2048, dtype: str = 'float32') -> Network:
    """Makes SimSiam's predictor: a bottleneck of two linear layers, BatchNorm and ReLU in between.

    >>> from ssl_extract import encoders
    >>> encoders.dim(simsiam_predictor(hidden=2, dim=4), (4,))
    4

    Args:
        hidden: width of the bottleneck; a quarter of `dim` in the SimSiam paper.
        dim: width of the projector's outputs.
        dtype: of the computation, 'float32' or 'bfloat16'.
    """
    return mlp(hidden, dim, norm=True, norm_last=False, dtype=dtype)


@register_head('rotation_predictor')
def rotation_predictor(hidden: Width = 256, dtype: str = 'float32') -> Network:
    """Makes the predictor of a rotation's half, a branch: Linear, ReLU, Linear to one logit.

    The paper (arXiv 2205.07890, section 5.1) has two layers; its code has three, 512-256-128-2.

    >>> from ssl_extract import encoders
    >>> encoders.dim(rotation_predictor(hidden=8), (16,))
    1

    Args:
        hidden: width of the hidden layer.
        dtype: of the computation, 'float32' or 'bfloat16'.
    """
    network = mlp(hidden, 1, norm=False, norm_last=False, dtype=dtype)
    return network._replace(branch=True)


@register_head('linear')
def linear(dim: Width = 512, dtype: str = 'float32') -> Network:
    """Makes one linear layer, which adapts a surrogate's representations to another width.

    >>> from ssl_extract import encoders
    >>> encoders.dim(linear(dim=4), (16,))
    4

    Args:
        dim: width of the outputs.
        dtype: of the computation, 'float32' or 'bfloat16'.
    """
    return mlp(dim, norm=False, norm_last=False, dtype=dtype)
