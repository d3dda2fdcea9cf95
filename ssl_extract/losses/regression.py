"""Regression losses, row by row.

`mse`, `l2`, `cosine`, `l1_cosine`, `symmetrized` and `wasserstein`.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.numerics import magnitude, normalize
from ssl_extract.ranges import NotNegative

_ROUNDING = 1e-6  # the most that rounding moves numbers of about 1


@register('mse')
def mse() -> Loss:
    """Computes the mean squared error over all elements (ICML 2022, section 3.3).

    Neither representations nor answers are normalized.

    >>> loss = mse()
    >>> float(loss(jnp.ones((4, 2)), jnp.zeros((4, 2))))
    1.0
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(jnp.mean(optax.losses.squared_error(student, teacher), axis=-1), where)

    return loss


@register('l2')
def l2() -> Loss:
    """Computes the mean Euclidean distance, not squared, of the normalized rows, in [0, 2].

    The distance is that of StolenEncoder (CCS 2022, arXiv 2201.05889), whose code sums over the
    batch. Rows that agree to 1e-6 count as equal: the distance and the gradient are zero there,
    while rounding alone would give the full slope of the norm.

    >>> loss = l2()
    >>> float(loss(jnp.array([[2.0, 0.0]]), jnp.array([[-3.0, 0.0]])))
    2.0
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        squared = jnp.sum(jnp.square(normalize(student) - normalize(teacher)), axis=-1)
        # Selected twice: the gradient of sqrt at 0 would be NaN even where it is not selected.
        same = squared < _ROUNDING**2  # and not the opposite, which would hide a NaN
        distance = jnp.where(same, 0.0, jnp.sqrt(jnp.where(same, 1.0, squared)))
        return masked_mean(distance, where)

    return loss


@register('cosine')
def cosine() -> Loss:
    """Computes one minus the mean cosine of representations and answers, in [0, 2].

    The similarity is that of the attack in SSLGuard (CCS 2022), and `2 - 2 cos` of BYOL up to the
    factor. A zero row has cosine 0 to everything.

    >>> loss = cosine()
    >>> float(loss(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])))
    1.0
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(1.0 - _cosine(student, teacher), where)

    return loss


@register('l1_cosine')
def l1_cosine(weight: NotNegative = 1.0) -> Loss:
    """Computes the mean absolute difference and the log-sigmoid of the cosine, of each row.

    The loss of DistilHuBERT (Chang et al. 2022, arXiv 2110.01900, equation 1), of one layer:
    `mean |s - t| - weight * log sigmoid(cos(s, t))`. Numbers that agree to 1e-6 count as equal, and
    have no slope there. A zero row has cosine 0 to everything.

    >>> loss = l1_cosine()
    >>> round(float(loss(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]]))), 4)
    0.8133

    Args:
        weight: of the cosine.

    Raises:
        UserError: the weight is below 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        same = jnp.isclose(student, teacher, rtol=_ROUNDING, atol=_ROUNDING)
        distance = jnp.mean(jnp.abs(jnp.where(same, 0.0, student - teacher)), axis=-1)
        alike = jax.nn.log_sigmoid(_cosine(student, teacher))
        return masked_mean(distance - weight * alike, where)

    return loss


@register('symmetrized')
def symmetrized() -> Loss:
    """Computes the negative mean cosine of SimSiam, in [-1, 1] (arXiv 2011.10566).

    `student` holds the predictions of one view of the inputs, `teacher` the projections of the
    victim's answers to the other view (ICML 2022, section 3.3). The attack `symmetrized` brings the
    projector, the predictor and both directions. The loss is of one direction, or of both stacked.
    A zero row has cosine 0 to everything.

    >>> loss = symmetrized()
    >>> float(loss(jnp.array([[2.0, 0.0]]), jnp.array([[3.0, 0.0]])))
    -1.0
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(-_cosine(student, teacher), where)

    return loss


@register('wasserstein')
def wasserstein() -> Loss:
    """Computes the 1-Wasserstein distance of the rows, as distributions over the feature index.

    Each row is divided by its sum. On a line, the distance is then the L1 distance of the
    cumulative sums (ICML 2022, section 3.3). The loss is meant for non-negative rows, such as
    pooled ReLU features. With entries of both signs the loss is defined, but it is no distance of
    distributions, and steep where a row sums to almost nothing. A row that sums to 0 has no mass
    anywhere and gets no gradient. Cumulative sums that agree to 1e-6 count as equal: rounding alone
    would give the full slope of the absolute value.

    >>> loss = wasserstein()
    >>> float(loss(jnp.array([[1.0, 0.0, 0.0]]), jnp.array([[0.0, 0.0, 1.0]])))
    2.0
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        moved, wanted = _cumulative(student), _cumulative(teacher)
        same = jnp.isclose(moved, wanted, rtol=_ROUNDING, atol=_ROUNDING)
        gap = jnp.where(same, 0.0, moved - wanted)
        return masked_mean(jnp.sum(jnp.abs(gap), axis=-1), where)

    return loss


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the cosine [B] of each row of a with the same row of b; 0 for a zero row."""
    return jnp.sum(normalize(a) * normalize(b), axis=-1)


def _cumulative(rows: jax.Array) -> jax.Array:
    """Computes the cumulative distribution [B, D] of each row over the features."""
    rows = rows / magnitude(rows)
    total = jnp.sum(rows, axis=-1, keepdims=True)
    nonzero = jnp.abs(total) > 1e-14  # the reference adds this to the sum
    return jnp.cumsum(rows * jnp.where(nonzero, 1.0 / jnp.where(nonzero, total, 1.0), 0.0), axis=-1)
