"""Encoders of tokens: a bag of tokens and a transformer.

Inputs are float32 `[B, T]` with -1 behind the end of a text (`ssl_extract.padding`), and padding
changes no output. A row with a number that is no token of the vocabulary, or with no token at all,
has an output of NaN, which every training and every evaluation refuses: another token in its place
would hide the mistake. `check_vocabulary` names such a set before anything is computed.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_extract import padding
from ssl_extract.data import Dataset
from ssl_extract.encoders.base import (
    ENCODERS,
    TOKENS,
    Network,
    check_dtype,
    from_module,
    register,
)
from ssl_extract.encoders.vit import block_kind
from ssl_extract.errors import UserError
from ssl_extract.numerics import normalize
from ssl_extract.ranges import Range, Width
from ssl_extract.registry import split_chain

Vocabulary = Annotated[int, Range(1, 2**24)]  # float32 holds every token exactly


class Embedding(nn.Module):
    """Tokens `[B, T]` to vectors float32 `[B, T, width]`, a mask `[B, T]` and the rows' NaNs.

    The last, `[B, 1]`, is NaN for a row with a wrong number and 0 for the other rows; it is to be
    added to an output, so that gradients are NaN too.
    """

    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        table = self.param('table', nn.initializers.normal(1.0), (self.vocabulary, self.width))
        mask = padding.mask(tokens)
        numbers = jnp.where(mask, tokens, 0).astype(jnp.int32)
        right = (numbers == tokens) & (numbers >= 0) & (numbers < self.vocabulary)
        wrong = jnp.any(~right & (tokens != padding.PADDING), axis=1) | ~jnp.any(mask, axis=1)
        vectors = table[jnp.clip(numbers, 0, self.vocabulary - 1)]
        return vectors, mask, jnp.where(wrong, jnp.nan, 0.0)[:, None]


class BagOfTokens(nn.Module):
    """Tokens `[B, T]` to the mean of their vectors, `[B, width]`."""

    vocabulary: int
    width: int
    unit: bool

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        del train  # nothing here behaves differently in training
        vectors, mask, nans = Embedding(self.vocabulary, self.width, name='embedding')(tokens)
        mean = padding.mean(vectors, mask)
        if self.unit:
            mean = normalize(mean)
        return mean + nans


class TextTransformer(nn.Module):
    """Tokens `[B, T]` to representations `[B, width]`."""

    vocabulary: int
    width: int
    depth: int
    heads: int
    length: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        count = tokens.shape[1]
        if count > self.length:
            raise UserError(
                f'text_transformer has length={self.length} and got rows of {count} tokens: write '
                f'length={count}'
            )
        vectors, mask, nans = Embedding(self.vocabulary, self.width, name='embedding')(tokens)
        init = nn.initializers.normal(1.0)
        position = self.param('position', init, (self.length, self.width))
        x = (vectors + position[None, :count]).astype(self.dtype)
        kind = block_kind(train and self.remat)
        for i in range(self.depth):
            x = kind(self.heads, self.dtype, name=f'block{i}')(x, mask[:, None, None])
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x)
        return padding.mean(x, mask) + nans


def vocabulary_of(encoder: str) -> int:
    """Returns the number of tokens that an encoder knows; 0 of encoders of other inputs.

    >>> vocabulary_of('bag_of_tokens(vocabulary=50, width=8)'), vocabulary_of('resnet18')
    (50, 0)
    """
    return ENCODERS.traits((split_chain(encoder) or [encoder])[-1]).vocabulary


def check_vocabulary(field: str, encoder: str, *datasets: Dataset) -> None:
    """Checks that an encoder knows all tokens of sets; other encoders and other sets pass.

    Args:
        field: the name of the encoder in an error message.
        encoder: the spec.
        *datasets: sets whose inputs the encoder will see.

    Raises:
        UserError: a token is not in the vocabulary; the message names the set and the number.
    """
    vocabulary = vocabulary_of(encoder)
    for dataset in datasets:
        largest = int(dataset.inputs.max()) if vocabulary and dataset.decode == 'tokens' else -1
        if largest >= vocabulary > 0:
            raise UserError(
                f'{field}={encoder!r} has a vocabulary of {vocabulary}, and {dataset.name} has the '
                f'token {largest}: write vocabulary={largest + 1} or more'
            )


@register('bag_of_tokens', vocabulary=lambda vocabulary=0, **_: vocabulary)
def bag_of_tokens(vocabulary: Vocabulary, width: Width = 128, unit: bool = False) -> Network:
    """Makes the mean of learned vectors of tokens, in any order.

    >>> from ssl_extract import encoders
    >>> encoders.dim(bag_of_tokens(vocabulary=1000, width=16), (64,))
    16

    Args:
        vocabulary: number of tokens; tokens are 0 to `vocabulary - 1`.
        width: dimension of a vector and of the representation.
        unit: whether the mean is scaled to norm 1.

    Raises:
        UserError: an argument has a wrong value, or later the inputs are no rows of tokens.
    """
    return from_module(BagOfTokens(vocabulary, width, unit), rank=2, takes=TOKENS)


@register('text_transformer', vocabulary=lambda vocabulary=0, **_: vocabulary)
def text_transformer(
    vocabulary: Vocabulary,
    width: Width = 128,
    depth: Annotated[int, Range(1, 200)] = 2,
    heads: Width = 4,
    length: Width = 64,
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes a transformer on tokens: learned positions, and the mean over the tokens of a text.

    The blocks are those of `vit`, with attention to tokens and not to padding (Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762, with LayerNorm before each half of a block).

    >>> from ssl_extract import encoders
    >>> encoders.dim(text_transformer(vocabulary=1000, width=16, heads=2), (64,))
    16

    Args:
        vocabulary: number of tokens; tokens are 0 to `vocabulary - 1`.
        width: dimension of the tokens' vectors and of the representation; a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        length: number of positions; rows have at most as many tokens, padding included.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `vit`.

    Raises:
        UserError: an argument has a wrong value, or later the inputs are no rows of tokens.
    """
    if width % heads:
        raise UserError(f'width={width} of a transformer is not a multiple of heads={heads}')
    computed = check_dtype(dtype)
    network = TextTransformer(vocabulary, width, depth, heads, length, computed, remat)
    return from_module(network, rank=2, takes=TOKENS)
