"""The `Loss` type, its registry, and masked rows.

A loss is a pure function `loss(student [B, D], teacher [B, D], *, labels=None, where=None)` that
returns a float32 scalar and is differentiable in `student`. The value on the rows marked by
`where [B]` is exactly the value on the batch of those rows alone. `docs/how_to/add_a_loss.md` shows
how to write a loss.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

# The traits of a loss.
# least_batch: the least number of rows that teach anything; 2 for a loss that compares rows.
LOSSES = Registry('loss', least_batch=1)
register = LOSSES.register


class Loss(Protocol):
    """A distance between a surrogate's representations of a batch of inputs and the answers."""

    def __call__(
        self,
        student: jax.Array,
        teacher: jax.Array,
        *,
        labels: jax.Array | None = None,
        where: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the loss, float32 [].

        Args:
            student: [B, D], representations of the surrogate.
            teacher: [B, D], answers of the oracle. The caller stops the gradient into them.
            labels: int [B], the true classes of the inputs; most losses ignore them.
            where: bool [B], rows that were answered; None means all. Other rows neither count nor
                act as negatives, whatever they hold (NaN included), and get a gradient of exactly
                zero. Without any row that counts the loss is 0.
        """


def make(spec: str) -> Loss:
    """Makes the loss that `spec` names, such as `'mse'` or `'infonce(temperature=0.1)'`.

    >>> import numpy as np
    >>> loss = make('mse')
    >>> float(loss(np.ones((4, 2)), np.zeros((4, 2))))
    1.0

    Raises:
        UserError: the name or an argument is unknown, or an argument has a wrong value.
    """
    return LOSSES.make(spec)


def prepare(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checks shapes, casts to float32 and zeroes the rows that do not count.

    Every loss starts with this call: the former content of a zeroed row reaches neither the value
    nor the gradient, and no gradient reaches the row.

    Args:
        student: [B, D], any float type.
        teacher: [B, D], any float type.
        where: bool [B], or None for all rows.

    Returns:
        student float32 [B, D], teacher float32 [B, D], where bool [B].

    Raises:
        UserError: the shapes do not fit together.
    """
    student, teacher = jnp.asarray(student, jnp.float32), jnp.asarray(teacher, jnp.float32)
    if student.ndim != 2 or student.shape != teacher.shape:
        raise UserError(
            'student and teacher must be [B, D] of one shape, got '
            f'{list(student.shape)} and {list(teacher.shape)}: '
            'give the surrogate a head as wide as the answers, such as linear(dim)'
        )
    rows = student.shape[:1]
    where = jnp.ones(rows, bool) if where is None else jnp.asarray(where, bool)
    if where.shape != rows:
        raise UserError(
            f'where marks rows: its shape must be {list(rows)}, got {list(where.shape)}'
        )
    keep = where[:, None]
    return jnp.where(keep, student, 0.0), jnp.where(keep, teacher, 0.0), where


def masked_mean(values: jax.Array, where: jax.Array) -> jax.Array:
    """Averages `values [N]` over the rows marked by `where [N]`; 0 if no row is marked."""
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)
