"""Regression losses, row by row.

mse, l2, cosine, symmetrized, wasserstein.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.numerics import normalize


@register('mse')
def mse() -> Loss:
    """Mean squared error over all elements, without normalization (ICML 2022, section 3.3)."""

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(jnp.mean(optax.losses.squared_error(student, teacher), axis=-1), where)

    return loss


@register('l2')
def l2() -> Loss:
    """Mean Euclidean distance, not squared, of the normalized rows, in [0, 2].

    The distance of StolenEncoder (CCS 2022, arXiv 2201.05889), whose code sums it over the batch.
    Where the two rows agree, the gradient is zero.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        squared = jnp.sum(jnp.square(normalize(student) - normalize(teacher)), axis=-1)
        apart = squared != 0.0  # twice: the gradient of sqrt at 0 would be NaN even if not selected
        distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        return masked_mean(distance, where)

    return loss


@register('cosine')
def cosine() -> Loss:
    """One minus the mean cosine of a representation and its answer, in [0, 2].

    The similarity that SSLGuard steals with (CCS 2022), and `2 - 2 cos` of BYOL up to the factor.
    A zero row has cosine 0 to everything.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(1.0 - _cosine(student, teacher), where)

    return loss


@register('symmetrized')
def symmetrized() -> Loss:
    """Negative mean cosine of SimSiam, in [-1, 1] (ICML 2022, section 3.3; arXiv 2011.10566).

    `student` holds the predictions of one view of the images, `teacher` the projections of the
    victim's answers to the other view. The attack `symmetrized` brings the projector, the
    predictor and both directions; the loss itself is of one direction, or of both stacked. A zero
    row has cosine 0 to everything.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(-_cosine(student, teacher), where)

    return loss


@register('wasserstein')
def wasserstein() -> Loss:
    """1-Wasserstein distance of the rows as distributions over the feature index.

    Each row is divided by its sum; on a line, the distance is then the L1 distance of the
    cumulative sums (ICML 2022, section 3.3). It is meant for non-negative rows, such as pooled
    ReLU features: with entries of both signs it is still defined, but no longer a distance of
    distributions, and steep where a row sums to almost nothing. A row that sums to 0 counts as
    having no mass anywhere and gets no gradient.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        gap = _cumulative(student) - _cumulative(teacher)
        return masked_mean(jnp.sum(jnp.abs(gap), axis=-1), where)

    return loss


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine [B] of each row of a with the same row of b; 0 where one of them is zero."""
    return jnp.sum(normalize(a) * normalize(b), axis=-1)


def _cumulative(rows: jax.Array) -> jax.Array:
    """Cumulative distribution [B, D] of each row over its features."""
    total = jnp.sum(rows, axis=-1, keepdims=True)
    nonzero = jnp.abs(total) > 1e-14  # the reference adds this to the sum
    return jnp.cumsum(rows * jnp.where(nonzero, 1.0 / jnp.where(nonzero, total, 1.0), 0.0), axis=-1)
