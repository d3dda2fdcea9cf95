"""Contrastive losses: infonce, softnn, supcon.

All three stand on the 2B rows [student; teacher]. Every row is an anchor once and is compared with
the other 2B - 1 rows, of both models. The rows of a sharded batch are compared over all devices.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.checks import check_number
from ssl_extract.errors import UserError
from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.numerics import normalize, product


@register('infonce')
def infonce(temperature: float = 0.07) -> Loss:
    """NT-Xent of SimCLR between representations and answers (ICML 2022, section 3.3).

    For an anchor z_i, normalized, with its pair z_p, the same image seen by the other model:
    `-log(exp(z_i . z_p / t) / sum_{j != i} exp(z_i . z_j / t))`, mean over the 2B anchors.

    Args:
        temperature: t; 0.07 in the paper's CIFAR runs, 0.1 for ImageNet.

    Raises:
        UserError: the temperature is not a number above 0.
    """
    check_number('temperature', temperature, above=0)

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        rows = normalize(jnp.concatenate([student, teacher]))
        return _pair_cross_entropy(product(rows, rows.T) / temperature, where)

    return loss


@register('softnn')
def softnn(temperature: float = 100.0) -> Loss:
    """Soft nearest neighbor loss, the pair against all rows (ICML 2022, section 3.3).

    As `infonce`, with `-||a_i - a_j||^2 / t` of the rows as they are in place of the cosine
    (Frosst et al., ICML 2019, equation 1). Computed from logarithms: far rows neither overflow nor
    lose their gradient, so the reference's additions of 1e-9 and 1e-5 are not needed.

    Args:
        temperature: t, in squared units of the representation; 100 in the paper's CIFAR and SVHN
            runs, 1000 for ImageNet.

    Raises:
        UserError: the temperature is not a number above 0.
    """
    check_number('temperature', temperature, above=0)

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        rows = jnp.concatenate([student, teacher])
        return _pair_cross_entropy(-_squared_distances(rows, _twice(where)) / temperature, where)

    return loss


@register('supcon')
def supcon(temperature: float = 0.07, base_temperature: float = 0.07) -> Loss:
    """Supervised contrastive loss: all rows of the anchor's class are its positives.

    For an anchor z_i, normalized, and the set P of the other rows with its label:
    `-t/t_base mean_{p in P} log(exp(z_i . z_p / t) / sum_{j != i} exp(z_i . z_j / t))`, mean over
    the 2B anchors (Khosla et al., NeurIPS 2020, equation 2; ICML 2022, section 3.3).

    Args:
        temperature: t.
        base_temperature: t_base; scales the loss as its authors do. Equal to t, it does nothing.

    Raises:
        UserError: a temperature is not a number above 0; the loss is called without labels.
    """
    check_number('temperature', temperature, above=0)
    check_number('base_temperature', base_temperature, above=0)

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
        logits = _mask(product(rows, rows.T) / temperature, valid)
        positive = (labels[:, None] == labels[None]) & _others(valid)
        mean_log = jnp.sum(jnp.where(positive, jax.nn.log_softmax(logits), 0.0), axis=-1)
        mean_log /= jnp.maximum(jnp.sum(positive, axis=-1), 1)
        return -(temperature / base_temperature) * masked_mean(mean_log, valid)

    return loss


def _twice(values: jax.Array) -> jax.Array:
    """The value of each of the 2B rows, from those of the B images."""
    return jnp.concatenate([values, values])


def _others(valid: jax.Array) -> jax.Array:
    """Whether anchor i is compared with row j, [2B, 2B]: j counts and is not i itself."""
    return valid[None] & ~jnp.eye(valid.shape[0], dtype=bool)


def _mask(logits: jax.Array, valid: jax.Array) -> jax.Array:
    """Logits [2B, 2B] with those of no comparison at the lowest float: a weight of exactly 0."""
    return jnp.where(_others(valid), logits, jnp.finfo(logits.dtype).min)


def _pair_cross_entropy(logits: jax.Array, where: jax.Array) -> jax.Array:
    """Mean cross-entropy of finding, for each row, its pair among the other rows."""
    valid, batch = _twice(where), where.shape[0]
    pair = jnp.roll(jnp.arange(2 * batch), batch)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(_mask(logits, valid), pair)
    return masked_mean(losses, valid)


def _squared_distances(rows: jax.Array, valid: jax.Array) -> jax.Array:
    """Squared Euclidean distances [N, N] of `rows [N, D]`, from one matrix product.

    The rows are centered first: an offset that they share, such as a defense's noise of mean 10,
    changes no distance but would cost the product its digits.
    """
    count = jnp.maximum(jnp.sum(valid), 1)
    rows = rows - jax.lax.stop_gradient(jnp.sum(rows, axis=0, keepdims=True) / count)
    squared = jnp.sum(jnp.square(rows), axis=-1)
    return squared[:, None] + squared[None] - 2.0 * product(rows, rows.T)
