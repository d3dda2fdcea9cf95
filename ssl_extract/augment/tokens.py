"""Token augmentations: one text and one key at a time.

An operation (`Op`) maps a key and a row of tokens, float32 `[T]`, to a row of the same length. -1
is padding, behind the end of a text (`ssl_extract.padding`), and stays there. More padding behind
the same text changes no token of the result. Tokens that a tokenizer adds, such as one for the
beginning, are tokens as all others. A chain makes a view for contrastive pretraining:
`'span_crop(share=(0.5, 1.0)) | token_dropout(p=0.1)'`.
"""

import jax
import jax.numpy as jnp

from ssl_extract import padding
from ssl_extract.augment.base import Op, register
from ssl_extract.augment.checks import check_order, check_tokens
from ssl_extract.ranges import PositiveShare, Share


@register('token_dropout', takes='tokens')
def token_dropout(p: Share = 0.1) -> Op:
    """Removes each token with probability `p` and closes the gaps; one token stays at least.

    >>> op = jax.jit(token_dropout(p=1.0))
    >>> op(jax.random.key(0), jnp.array([7.0, 7.0, 7.0, -1.0])).tolist()
    [7.0, -1.0, -1.0, -1.0]
    """

    def op(key: jax.Array, row: jax.Array) -> jax.Array:
        check_tokens(row, 'token_dropout')
        uniform = jnp.where(padding.mask(row), jax.random.uniform(key, row.shape), -1.0)
        keep = padding.mask(row) & ((uniform >= p) | (jnp.arange(len(row)) == uniform.argmax()))
        places = jnp.where(keep, jnp.cumsum(keep) - 1, len(row))
        return jnp.full_like(row, padding.PADDING).at[places].set(row, mode='drop')

    return op


@register('token_swap', takes='tokens')
def token_swap(p: Share = 0.1) -> Op:
    """Swaps neighbors: from the left, each token with the next one with probability `p`.

    A token is swapped once at most.

    >>> op = jax.jit(token_swap(p=1.0))
    >>> op(jax.random.key(0), jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, -1.0])).tolist()
    [2.0, 1.0, 4.0, 3.0, 5.0, -1.0]
    """

    def op(key: jax.Array, row: jax.Array) -> jax.Array:
        check_tokens(row, 'token_swap')
        places = jnp.arange(len(row))
        drawn = (jax.random.uniform(key, row.shape) < p) & (places < padding.lengths(row) - 1)
        # Of neighbors that are drawn one after the other, every second one: 0 with 1, 2 with 3.
        start = jax.lax.cummax(jnp.where(drawn, 0, places + 1))
        first = drawn & ((places - start) % 2 == 0)
        second = jnp.roll(first, 1)  # never from the end to the beginning: the last is not drawn
        return row[places + first - second]

    return op


@register('span_crop', takes='tokens')
def span_crop(share: tuple[PositiveShare, PositiveShare] = (0.5, 1.0)) -> Op:
    """Keeps a random span of a text, from the beginning of the row on; the rest becomes padding.

    >>> op = jax.jit(span_crop(share=(0.5, 0.5)))
    >>> op(jax.random.key(0), jnp.array([7.0, 7.0, 7.0, 7.0, -1.0])).tolist()
    [7.0, 7.0, -1.0, -1.0, -1.0]

    Args:
        share: bounds of the span, as a share of the text, drawn uniformly; at least one token. The
            beginning is uniform over the places where the span fits.
    """
    check_order('share', share)

    def op(key: jax.Array, row: jax.Array) -> jax.Array:
        check_tokens(row, 'span_crop')
        uniform, length = jax.random.uniform(key, (2,)), padding.lengths(row)
        kept = jnp.round((share[0] + uniform[0] * (share[1] - share[0])) * length).astype(int)
        kept = jnp.maximum(kept, 1)
        start = jnp.floor(uniform[1] * (length - kept + 1)).astype(int)
        start = jnp.minimum(start, length - kept)  # float32 may round the product up
        places = jnp.arange(len(row))
        return jnp.where(places < kept, jnp.roll(row, -start), padding.PADDING)

    return op
