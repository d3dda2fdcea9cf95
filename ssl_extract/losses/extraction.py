"""Contrastive losses of published attacks: cont_steal and rda.

Only the student's rows are anchors. A row is compared with the answers to the other inputs and with
the student's other rows. Answers are never compared with each other. The rows of a large batch are
compared a block of anchors at a time (`losses.blocks`).
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.losses.blocks import by_block
from ssl_extract.numerics import lengths, normalize, product
from ssl_extract.ranges import NotNegative, Positive

RDA_EPSILON = 1e-6  # the least `1 + cos` and the least squared distance in the logarithms of rda


@register('cont_steal', least_batch=2)
def cont_steal(temperature: Positive = 0.5) -> Loss:
    """Computes the loss of Cont-Steal (Sha et al., CVPR 2023, arXiv 2201.07513).

    For the student's row s_i and the answers t_k, all normalized:
    `-log(exp(s_i . t_i / t) / (sum_k exp(s_i . t_k / t) + sum_{k != i} exp(s_i . s_k / t)))`, mean
    over the B rows. The sum over the answers contains the positive pair, so the loss is a
    cross-entropy and at least 0.

    The formula is the paper's. The authors' code takes the rows of both models as anchors and
    compares answers with answers too, which is `infonce`. The temperature is that of the code; the
    paper's text has none. RDA's code for Cont-Steal leaves the positive pair out.

    The paper draws two views of each image, one for each model, which is the attack's part.

    >>> loss = cont_steal(temperature=1.0)
    >>> round(float(loss(jnp.eye(2), jnp.eye(2))), 4)  # log(1 + 2 / e)
    0.5514

    Args:
        temperature: t.

    Raises:
        UserError: the temperature is not a number above 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        student, teacher = normalize(student), normalize(teacher)
        rows = jnp.concatenate([teacher, student])

        def losses_of(index, anchors):
            others = _others(index, where)
            answers = jnp.broadcast_to(where, others.shape)  # the positive pair included
            logits = product(anchors, rows.T) / temperature
            logits = _mask(logits, jnp.concatenate([answers, others], axis=1))
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, index)

        return masked_mean(by_block(losses_of, student, rows=len(rows)), where)

    return loss


@register('rda', least_batch=2)
def rda(temperature: Positive = 0.07, alpha: NotNegative = 1.0, beta: NotNegative = 1.0) -> Loss:
    """Computes the multi-relational loss of RDA (Wu et al., ECCV 2024, arXiv 2312.00855).

    With x_i the normalized row of the student for one view of an image, and y_i the prototype of
    the image, the loss is the mean over i of `alpha * contrast_i + beta * align_i`:

    - `contrast_i = -log(exp(x_i . y_i / t) / n_i)` tells images apart, with the negatives
      `n_i = sum_{k != i} exp(x_i . y_k / t) + sum_{k != i} exp(x_i . x_k / t)`. The positive pair
      is not among the negatives, so contrast can be below 0. A row that is alone has contrast 0.
    - `align_i = -log((1 + cos(x_i, y_i)) / ||x_i - y_i||^2)` aligns angle and amplitude. A student
      equal or opposite to the prototype would have an infinite logarithm: `1 + cos` and the squared
      distance count as at least 1e-6. Outside of these two spots (1.4e-3 in angle, 1e-3 in
      distance) the value is exactly the formula's; inside, align has no gradient.

    A prototype is the mean of the normalized answers to several views of an image. As in the
    authors' code a prototype is not normalized again: the length is at most 1, and shorter the more
    the views disagree. A longer row of `teacher`, such as a plain answer, is scaled to length 1.

    The attack makes the prototypes and averages this loss over the student's views (five in the
    authors' code).

    >>> loss = rda(temperature=1.0, beta=0.0)
    >>> round(float(loss(jnp.eye(2), jnp.eye(2))), 4)  # -log(e / 2)
    -0.3069

    Args:
        temperature: t.
        alpha: weight of contrast.
        beta: weight of align.

    Raises:
        UserError: the temperature is not a number above 0, or a weight is below 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        student, prototypes = normalize(student), _into_unit_ball(teacher)

        rows = jnp.concatenate([prototypes, student])

        def negatives_of(index, anchors):
            logits = product(anchors, rows.T) / temperature
            return jax.nn.logsumexp(_mask(logits, jnp.tile(_others(index, where), 2)), axis=-1)

        negatives = by_block(negatives_of, student, rows=len(rows))
        positive = jnp.sum(student * prototypes, axis=-1) / temperature
        contrast = negatives - positive
        contrast = jnp.where(jnp.sum(where) > 1, contrast, 0.0)

        cosine = jnp.sum(student * normalize(prototypes), axis=-1)
        distance = jnp.sum(jnp.square(student - prototypes), axis=-1)
        align = _guarded_log(distance) - _guarded_log(1.0 + cosine)

        return masked_mean(alpha * contrast + beta * align, where)

    return loss


def _others(index: jax.Array, where: jax.Array) -> jax.Array:
    """Marks the negatives k of row i of `index [A]`, [A, B]: the rows that count, without i."""
    return where[None] & (index[:, None] != jnp.arange(len(where))[None])


def _mask(logits: jax.Array, keep: jax.Array) -> jax.Array:
    """Lowers the logits that `keep` leaves out to the lowest float: a weight of exactly 0."""
    return jnp.where(keep, logits, jnp.finfo(logits.dtype).min)


def _into_unit_ball(rows: jax.Array) -> jax.Array:
    """Scales the rows of [B, D] that are longer than 1 to length 1; shorter rows stay."""
    return jnp.where(lengths(rows) > 1.0, normalize(rows), rows)


def _guarded_log(values: jax.Array) -> jax.Array:
    """Takes the logarithm of values, raised to RDA_EPSILON; below, the gradient is 0."""
    return jnp.log(jnp.maximum(values, RDA_EPSILON))
