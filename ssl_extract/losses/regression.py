"""Losses that pull each representation to its own answer, row by row: mse, cosine, wasserstein."""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.losses.base import LOSSES, Loss, masked_mean, normalize, prepare


@LOSSES.register('mse')
def mse() -> Loss:
    """Mean squared error over all elements, without normalisation (ICML 2022, section 3.3)."""

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(jnp.mean(optax.losses.squared_error(student, teacher), axis=-1), where)

    return loss


@LOSSES.register('cosine')
def cosine() -> Loss:
    """One minus the mean cosine of a representation and its answer, in [0, 2].

    The similarity that SSLGuard steals with (CCS 2022), and `2 - 2 cos` of BYOL up to the factor.
    A zero row has cosine 0 to everything.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        similarity = jnp.sum(normalize(student) * normalize(teacher), axis=-1)
        return masked_mean(1.0 - similarity, where)

    return loss


@LOSSES.register('wasserstein')
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


def _cumulative(rows: jax.Array) -> jax.Array:
    """Cumulative distribution [B, D] of each row over its features."""
    total = jnp.sum(rows, axis=-1, keepdims=True)
    nonzero = jnp.abs(total) > 1e-14  # the reference adds this to the sum
    return jnp.cumsum(rows * jnp.where(nonzero, 1.0 / jnp.where(nonzero, total, 1.0), 0.0), axis=-1)
