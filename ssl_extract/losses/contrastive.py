"""Contrastive losses: infonce, softnn, supcon.

All three compare the 2B rows [student; teacher]. Every row is an anchor once and is compared with
the other 2B - 1 rows, of both models. The rows of a sharded batch are compared over all devices,
and those of a large batch a block of anchors at a time (`losses.blocks`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ssl_extract.errors import UserError
from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.losses.blocks import by_block
from ssl_extract.numerics import normalize, product
from ssl_extract.ranges import Positive


@register('infonce', least_batch=2)
def infonce(temperature: Positive = 0.07) -> Loss:
    """Computes NT-Xent of SimCLR between representations and answers (ICML 2022, section 3.3).

    For a normalized anchor z_i and the row z_p that the other model gives for the same input:
    `-log(exp(z_i . z_p / t) / sum_{j != i} exp(z_i . z_j / t))`, mean over the 2B anchors.

    >>> loss = infonce(temperature=1.0)
    >>> round(float(loss(jnp.eye(2), jnp.eye(2))), 4)  # log(1 + 2 / e)
    0.5514

    Args:
        temperature: t; 0.07 in the paper's CIFAR runs, 0.1 for ImageNet.

    Raises:
        UserError: the temperature is not a number above 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        rows = normalize(jnp.concatenate([student, teacher]))
        return _pair_cross_entropy(lambda a: product(a, rows.T) / temperature, rows, where)

    return loss


@register('softnn', least_batch=2)
def softnn(temperature: Positive = 100.0) -> Loss:
    """Computes the soft nearest neighbor loss, a pair against all rows (ICML 2022, section 3.3).

    As `infonce`, with `-||a_i - a_j||^2 / t` of the rows as they are in place of the cosine
    (Frosst et al., ICML 2019, equation 1). The loss is computed from logarithms: far rows neither
    overflow nor lose the gradient, so the reference's additions of 1e-9 and 1e-5 are not needed.

    >>> loss = softnn(temperature=1.0)
    >>> round(float(loss(jnp.eye(2), jnp.eye(2))), 4)  # log(1 + 2 exp(-2))
    0.2395

    Args:
        temperature: t, in squared units of the representation; 100 in the paper's CIFAR and SVHN
            runs, 1000 for ImageNet.

    Raises:
        UserError: the temperature is not a number above 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        rows = jnp.concatenate([student, teacher])

        def logits_of(anchors):
            whole = len(anchors) == len(rows)
            distances = _squared_distances(rows) if whole else _distances_of(anchors, rows)
            return -distances / temperature

        return _pair_cross_entropy(logits_of, rows, where)

    return loss


@register('supcon', least_batch=2)
def supcon(temperature: Positive = 0.07, base_temperature: Positive = 0.07) -> Loss:
    """Computes the supervised contrastive loss: all rows of the anchor's class are positives.

    For a normalized anchor z_i and the set P of the other rows with the same label:
    `-t/t_base mean_{p in P} log(exp(z_i . z_p / t) / sum_{j != i} exp(z_i . z_j / t))`, mean over
    the 2B anchors (Khosla et al., NeurIPS 2020, equation 2; ICML 2022, section 3.3).

    >>> loss = supcon(temperature=1.0, base_temperature=1.0)
    >>> round(float(loss(jnp.eye(2), jnp.eye(2), labels=jnp.arange(2))), 4)  # log(1 + 2 / e)
    0.5514

    Args:
        temperature: t.
        base_temperature: t_base, which scales the loss as its authors do; no scale where it is t.

    Raises:
        UserError: a temperature is not a number above 0; the loss is called without labels.
    """

    def loss(student, teacher, *, labels=None, where=None):
        if labels is None:
            raise UserError(
                'loss supcon needs the labels of the query images: query a data set that has '
                'them, or choose a loss without labels, such as infonce'
            )
        student, teacher, where = prepare(student, teacher, where)
        labels = jnp.asarray(labels)
        if labels.shape != where.shape:
            raise UserError(f'labels must have shape {list(where.shape)}, got {list(labels.shape)}')
        rows, labels, valid = (
            normalize(jnp.concatenate([student, teacher])),
            _twice(labels),
            _twice(where),
        )

        def mean_log_of(index, anchors, label):
            others = _others(index, valid)
            logits = _mask(product(anchors, rows.T) / temperature, others)
            positive = (label[:, None] == labels[None]) & others
            mean_log = jnp.sum(jnp.where(positive, jax.nn.log_softmax(logits), 0.0), axis=-1)
            return mean_log / jnp.maximum(jnp.sum(positive, axis=-1), 1)

        mean_log = by_block(mean_log_of, rows, labels, rows=len(rows))
        return -(temperature / base_temperature) * masked_mean(mean_log, valid)

    return loss


def _twice(values: jax.Array) -> jax.Array:
    """Repeats the values of B inputs for the 2B rows."""
    return jnp.concatenate([values, values])


def _others(index: jax.Array, valid: jax.Array) -> jax.Array:
    """Marks the rows j that anchor i of `index [A]` is compared with, [A, 2B]: valid, without i."""
    return valid[None] & (index[:, None] != jnp.arange(len(valid))[None])


def _mask(logits: jax.Array, others: jax.Array) -> jax.Array:
    """Lowers the logits [A, 2B] of no comparison to the lowest float: a weight of exactly 0."""
    return jnp.where(others, logits, jnp.finfo(logits.dtype).min)


def _pair_cross_entropy(
    logits_of: Callable[[jax.Array], jax.Array], rows: jax.Array, where: jax.Array
) -> jax.Array:
    """Averages the cross-entropy of telling the pair of each row from the other rows.

    Args:
        logits_of: anchors [A, D] -> their similarities [A, 2B] to all rows.
        rows: [2B, D].
        where: bool [B].
    """
    valid, batch = _twice(where), len(where)

    def losses_of(index, anchors):
        logits = _mask(logits_of(anchors), _others(index, valid))
        pair = (index + batch) % len(rows)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, pair)

    return masked_mean(by_block(losses_of, rows, rows=len(rows)), valid)


@jax.custom_vjp
def _squared_distances(rows: jax.Array) -> jax.Array:
    """Computes squared Euclidean distances [N, N] of `rows [N, D]` from their differences.

    A matrix product, `|a|^2 + |b|^2 - 2 a.b`, would lose the digits of near rows beside far rows,
    such as answers that a defense replaced by N(1000, 20^2). XLA fuses the differences into the
    sum, without an array [N, N, D]; the gradient, which would need one, is a matrix product.
    """
    return jnp.sum(jnp.square(rows[:, None] - rows[None]), axis=-1)


def _forward(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _squared_distances(rows), rows


def _backward(rows: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    """Computes `sum_j 2 (g_ij + g_ji) (a_i - a_j)`, with the rows centered to keep their digits."""
    rows = rows - jnp.mean(rows, axis=0, keepdims=True)
    return (_pull(cotangent + cotangent.T, rows, rows),)


def _pull(weights: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes `sum_j 2 w_ij (a_i - b_j)`."""
    return 2.0 * (jnp.sum(weights, axis=1, keepdims=True) * a - product(weights, b))


_squared_distances.defvjp(_forward, _backward)


@jax.custom_vjp
def _distances_of(anchors: jax.Array, rows: jax.Array) -> jax.Array:
    """Computes squared distances [A, N] of some anchors to all rows, as `_squared_distances`."""
    return jnp.sum(jnp.square(anchors[:, None] - rows[None]), axis=-1)


def _forward_of(anchors: jax.Array, rows: jax.Array) -> tuple[jax.Array, tuple]:
    return _distances_of(anchors, rows), (anchors, rows)


def _backward_of(operands: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    center = jnp.mean(operands[1], axis=0, keepdims=True)
    anchors, rows = (x - center for x in operands)
    return _pull(cotangent, anchors, rows), _pull(cotangent.T, rows, anchors)


_distances_of.defvjp(_forward_of, _backward_of)
