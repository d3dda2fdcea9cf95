"""Contrastive losses of large batches, a block of anchors at a time.

A contrastive loss compares each anchor with all rows of the global batch. All comparisons at once
need memory of the square of the batch: several arrays of 4 GiB for 16,384 inputs and their answers.
Here large batches are compared block by block, and the backward pass computes each block again
instead of keeping it. Memory then grows with the batch, and values and gradients are the same to
the rounding of float32.

On a mesh each device compares the anchors of a block with its own share of the rows.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Comparisons of an anchor with a row at a time, over all devices: 64 MiB as float32. A batch with
# as many or fewer is compared at once: up to 2,048 inputs where both models' rows are anchors.
COMPARISONS = 2**24


def by_block(loss: Callable[..., jax.Array], *anchors: jax.Array, rows: int) -> jax.Array:
    """Computes the losses of anchors, at most `COMPARISONS` comparisons at a time.

    >>> by_block(lambda index, anchors: index + anchors, jnp.ones(3), rows=3).tolist()
    [1.0, 2.0, 3.0]

    Args:
        loss: (index int32[A], *anchors [A, ...]) -> float32 [A], for any A of the N anchors;
            `index` has their places among all N. Each anchor's loss depends on the anchor and on
            arrays of the closure.
        *anchors: arrays [N, ...].
        rows: the number of rows that each anchor is compared with.

    Returns:
        float32 [N].
    """
    count = len(anchors[0])
    indexed = (jnp.arange(count), *anchors)
    blocks = math.ceil(count * rows / COMPARISONS)
    if blocks <= 1:
        return loss(*indexed)

    # Neighbors make a block: on a mesh the compiler then gives every device the whole block and
    # keeps the rows spread. With the anchors of each block spread too, it spread neither for the
    # differences of softnn, and kept gigabytes of copies. Anchors of zeros fill the last places.
    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, -count % blocks)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, -1, *x.shape[1:])

    again = jax.checkpoint(lambda block: loss(*block), prevent_cse=False)
    losses = jax.lax.map(again, tuple(map(split, indexed)))
    return losses.reshape(-1)[:count]
