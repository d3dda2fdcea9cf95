"""Vision transformers.

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929.

Pre-LayerNorm, a class token whose final state is the representation, learned position embeddings.
ViT-Ti/16 and ViT-S/16 at 224 pixels have timm's 5,524,416 and 21,665,664 parameters (no head).
"""

from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_extract.encoders.base import Network, check_dtype, from_module, register
from ssl_extract.errors import UserError
from ssl_extract.ranges import Range, Width


class Block(nn.Module):
    """A pre-LayerNorm transformer block: x + attention(x), then x + mlp(x); tokens `[B, T, D]`.

    A mask bool `[B, 1, 1, T]` says which tokens are attended to; None is all.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        width = x.shape[-1]
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(y, mask=mask)
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x)
        y = nn.gelu(nn.Dense(4 * width, dtype=self.dtype)(y), approximate=False)
        return x + nn.Dense(width, dtype=self.dtype)(y)


def block_kind(remat: bool) -> Callable[..., nn.Module]:
    """Returns `Block`, or with `remat` the same block, computed again in the backward pass."""
    return nn.remat(Block) if remat else Block


class ViT(nn.Module):
    """Square images `[B, H, H, C]` to representations `[B, width]`."""

    depth: int
    width: int
    heads: int
    patch: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        batch, height, width, channels = x.shape
        if height != width or height % self.patch:
            raise UserError(
                f'patch={self.patch} does not cut images of {height}x{width} pixels into whole'
                ' patches: write a patch that divides the side of square images'
            )
        side = height // self.patch
        x = x.reshape(batch, side, self.patch, side, self.patch, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side * side, -1)
        x = nn.Dense(self.width, dtype=self.dtype, name='patches')(x)

        init = nn.initializers.truncated_normal(0.02)
        token = self.param('token', nn.initializers.zeros, (1, 1, self.width))
        shape = (1, side * side + 1, self.width)
        if self.has_variable('params', 'position'):
            stored = self.get_variable('params', 'position').shape
            if stored != shape:
                raise UserError(
                    f'images of {height}x{width} pixels make {shape[1]} tokens, but this ViT was'
                    f' initialized for {stored[1]}: give images of the size it was initialized with'
                )
        position = self.param('position', init, shape)
        token = jnp.broadcast_to(token.astype(x.dtype), (batch, 1, self.width))
        x = jnp.concatenate([token, x], axis=1) + position.astype(x.dtype)

        norm = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')
        kind = block_kind(train and self.remat)
        for i in range(self.depth):
            self.sow('intermediates', 'layers', x[:, 0])
            x = kind(self.heads, self.dtype, name=f'block{i}')(x)
        represented = norm(x[:, 0])
        self.sow('intermediates', 'layers', represented)
        return represented


@register('vit')
def vit(
    depth: Annotated[int, Range(1, 200)] = 6,
    width: Width = 192,
    heads: Width = 3,
    patch: Width = 4,
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes a vision transformer (Dosovitskiy et al. 2021).

    >>> from ssl_extract import encoders
    >>> encoders.dim(vit(depth=1, width=12, heads=2), (16, 16, 3))
    12

    Args:
        depth: number of transformer blocks.
        width: dimension of the tokens and of the representation; a multiple of `heads`.
        heads: attention heads.
        patch: side of a patch in pixels; it must divide the side of the (square) images.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: whether a training step computes each block again in the backward pass, in place of
            keeping all of the block's arrays: less memory, and one more forward pass.

    Raises:
        UserError: an argument has a wrong value, or later the images do not fit.
    """
    if width % heads:
        raise UserError(f'width={width} of a ViT is not a multiple of heads={heads}')
    module = ViT(depth, width, heads, patch, check_dtype(dtype), remat)
    return from_module(module, rank=4, layers=True)


@register('vit_ti')
def vit_ti(patch: Width = 16, dtype: str = 'float32', remat: bool = False) -> Network:
    """Makes ViT-Ti: 12 blocks, 192-d, 3 heads; `patch=4` for 32-pixel images.

    >>> network = vit_ti(patch=4)

    Args:
        patch: side of a patch in pixels.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `vit`.
    """
    return vit(depth=12, width=192, heads=3, patch=patch, dtype=dtype, remat=remat)


@register('vit_s')
def vit_s(patch: Width = 16, dtype: str = 'float32', remat: bool = False) -> Network:
    """Makes ViT-S: 12 blocks, 384-d, 6 heads; `patch=4` for 32-pixel images.

    >>> network = vit_s(patch=4)

    Args:
        patch: side of a patch in pixels.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `vit`.
    """
    return vit(depth=12, width=384, heads=6, patch=patch, dtype=dtype, remat=remat)
