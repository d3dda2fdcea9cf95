"""Arithmetic shared by losses, defenses and metrics."""

import jax
import jax.numpy as jnp

from ssl_extract.errors import UserError

METRICS = ('cosine', 'l2')


def normalize(rows: jax.Array) -> jax.Array:
    """Scales each row of [N, D] to L2 norm 1; a zero row stays zero and its gradient is zero."""
    squared = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    # Selected twice: the gradient of rsqrt at 0 would be NaN even where it is not selected.
    nonzero = squared > 0.0
    return rows * jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies `a [N, D]` by `b [D, M]` in full float32, on TPUs and recent GPUs too.

    Their default is faster and coarser. Losses divide similarities by small temperatures, for which
    three digits of bfloat16 are too few, and the product costs little beside the encoder.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def check_metric(metric: str) -> None:
    """Raises UserError unless `metric` is one of `METRICS`."""
    if metric not in METRICS:
        raise UserError(f'metric={metric!r}: write {" or ".join(map(repr, METRICS))}')
