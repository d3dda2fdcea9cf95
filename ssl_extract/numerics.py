"""Arithmetic shared by losses, defenses and metrics."""

import jax
import jax.numpy as jnp

from ssl_extract.errors import UserError

METRICS = ('cosine', 'l2')


def normalize(rows: jax.Array) -> jax.Array:
    """Scales each row of [N, D] to L2 norm 1; a zero row stays zero and its gradient is zero."""
    squared = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    nonzero = squared > 0.0  # twice: the gradient of rsqrt at 0 would be NaN even if not selected
    return rows * jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` in full float32, also where the default is faster and coarser (TPU, recent GPUs).

    Similarities are divided by small temperatures: three digits of bfloat16 are not enough for
    them, and the product costs little beside the encoder.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def check_metric(metric: str) -> None:
    """Raises UserError if there is no such metric."""
    if metric not in METRICS:
        raise UserError(f'metric={metric!r}: write {" or ".join(map(repr, METRICS))}')
