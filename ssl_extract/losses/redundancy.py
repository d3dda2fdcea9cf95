"""Redundancy-reduction losses: barlow."""

import jax
import jax.numpy as jnp

from ssl_extract.losses.base import Loss, prepare, register
from ssl_extract.numerics import magnitude, product
from ssl_extract.ranges import NotNegative


@register('barlow', least_batch=2)
def barlow(lambda_: NotNegative = 0.0051) -> Loss:
    """Computes the loss of Barlow Twins between representations and answers.

    With C [D, D] the correlation over the batch of each student feature with each teacher feature:
    `sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2` (Zbontar et al., ICML 2021, equation 1). The
    student is correlated with the teacher directly. The reference code stacks both models on the
    batch axis and correlates two views, so that the two models are never compared.

    >>> loss = barlow()
    >>> rows = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(float(loss(rows, rows)), 4)
    0.0

    Args:
        lambda_: weight of the off-diagonal terms.

    Raises:
        UserError: lambda_ is not a number of at least 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        count = jnp.maximum(jnp.sum(where), 1)
        correlation = product(_standardize(student, where).T, _standardize(teacher, where)) / count
        on_diagonal = jnp.eye(correlation.shape[0], dtype=bool)
        terms = jnp.where(
            on_diagonal, jnp.square(correlation - 1.0), lambda_ * jnp.square(correlation)
        )
        return jnp.where(jnp.any(where), jnp.sum(terms), 0.0)

    return loss


def _standardize(rows: jax.Array, where: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Standardizes the columns over the rows that count; the other rows become zero.

    The variance is raised by `epsilon`, as in the reference code. Where all values are below 1, it
    is raised by as much in units of the largest value's square, so that the scale does not matter.
    """
    count = jnp.maximum(jnp.sum(where), 1)
    mean = jnp.sum(rows, axis=0, keepdims=True) / count
    centered = jnp.where(where[:, None], rows - mean, 0.0)
    scale = magnitude(centered, axis=(0, 1))
    centered, epsilon = centered / scale, epsilon / jnp.square(jnp.maximum(scale, 1.0))
    variance = jnp.sum(jnp.square(centered), axis=0, keepdims=True) / count
    return centered * jax.lax.rsqrt(variance + epsilon)
