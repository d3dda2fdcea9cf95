"""Contrastive losses of published attacks: cont_steal and rda.

Only the student's rows are anchors. A row is told apart from the answers to the other images and
from the student's own other rows; answers are never compared with each other.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.checks import check_number
from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.numerics import normalize, product

RDA_EPSILON = 1e-6  # the least `1 + cos` and the least squared distance in the logarithms of rda


@register('cont_steal')
def cont_steal(temperature: float = 0.5) -> Loss:
    """Cont-Steal (Sha et al., CVPR 2023, arXiv 2201.07513), with the paper's anchors.

    For the student's row s_i and the answers t_k, all normalized:
    `-log(exp(s_i . t_i / t) / (sum_k exp(s_i . t_k / t) + sum_{k != i} exp(s_i . s_k / t)))`, mean
    over the B rows. The sum over the answers has the positive pair in it, so the loss is a
    cross-entropy and at least 0.

    This follows the paper's formula. Its authors' code instead takes both models' rows as anchors
    and compares answers with answers too, which is `infonce`; the temperature is from that code,
    as the paper's text has none. RDA's code for Cont-Steal leaves the positive pair out.

    The paper draws two views of each image, one for each model: that is the attack's part.

    Args:
        temperature: t.

    Raises:
        UserError: the temperature is not a number above 0.
    """
    check_number('temperature', temperature, above=0)

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        answers = jnp.broadcast_to(where, (where.shape[0],) * 2)  # the anchor's own is one of them
        logits = _logits(normalize(student), normalize(teacher), temperature)
        logits = _mask(logits, jnp.concatenate([answers, _others(where)], axis=1))
        own = jnp.arange(where.shape[0])
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, own)
        return masked_mean(losses, where)

    return loss


@register('rda')
def rda(temperature: float = 0.07, alpha: float = 1.0, beta: float = 1.0) -> Loss:
    """Multi-relational loss of RDA (Wu et al., ECCV 2024, arXiv 2312.00855) for one view.

    With x_i the student's row, normalized, and y_i the prototype of its image, the loss is the mean
    over i of `alpha * contrast_i + beta * align_i`:

    - `contrast_i = -log(exp(x_i . y_i / t) / n_i)` tells images apart, with the negatives
      `n_i = sum_{k != i} exp(x_i . y_k / t) + sum_{k != i} exp(x_i . x_k / t)`. The positive pair
      is not one of them, so contrast can be below 0. A row that is alone has contrast 0.
    - `align_i = -log((1 + cos(x_i, y_i)) / ||x_i - y_i||^2)` aligns angle and amplitude. A student
      on its target or opposite to it would have an infinite logarithm: `1 + cos` and the squared
      distance count as at least 1e-6. Outside of these two spots (1.4e-3 in angle, 1e-3 in
      distance) the value is exactly the formula's; inside, align has no gradient.

    A prototype is the mean of the normalized answers to several views of an image. As in the
    authors' code it is not normalized again: it is at most as long as 1, and shorter the more the
    views disagree. A longer row of `teacher`, such as a plain answer, is scaled to length 1.

    The attack makes the prototypes and averages this loss over its student views (five in the
    authors' code).

    Args:
        temperature: t.
        alpha: weight of contrast.
        beta: weight of align.

    Raises:
        UserError: the temperature is not a number above 0, or a weight not one of at least 0.
    """
    check_number('temperature', temperature, above=0)
    check_number('alpha', alpha, least=0)
    check_number('beta', beta, least=0)

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        student, prototypes = normalize(student), _into_unit_ball(teacher)

        logits = _logits(student, prototypes, temperature)
        negatives = _mask(logits, jnp.tile(_others(where), 2))
        positive = jnp.sum(student * prototypes, axis=-1) / temperature
        contrast = jax.nn.logsumexp(negatives, axis=-1) - positive
        contrast = jnp.where(jnp.sum(where) > 1, contrast, 0.0)

        cosine = jnp.sum(student * normalize(prototypes), axis=-1)
        distance = jnp.sum(jnp.square(student - prototypes), axis=-1)
        align = _guarded_log(distance) - _guarded_log(1.0 + cosine)

        return masked_mean(alpha * contrast + beta * align, where)

    return loss


def _logits(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """Similarities [B, 2B] of each student row to all answers, then to all student rows."""
    return product(student, jnp.concatenate([teacher, student]).T) / temperature


def _others(where: jax.Array) -> jax.Array:
    """Whether row k is a negative of row i, [B, B]: k counts and is not i itself."""
    return where[None] & ~jnp.eye(where.shape[0], dtype=bool)


def _mask(logits: jax.Array, keep: jax.Array) -> jax.Array:
    """Logits with those not kept at the lowest float: a weight of exactly 0."""
    return jnp.where(keep, logits, jnp.finfo(logits.dtype).min)


def _into_unit_ball(rows: jax.Array) -> jax.Array:
    """Scales the rows of [B, D] that are longer than 1 to length 1; the others stay."""
    squared = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.maximum(squared, 1.0))


def _guarded_log(values: jax.Array) -> jax.Array:
    """The logarithm of values that count as at least RDA_EPSILON; below, its gradient is 0."""
    return jnp.log(jnp.maximum(values, RDA_EPSILON))
