"""A check of a loss against the contract of losses."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.losses.base import Loss


def check(loss: Loss, *, batch: int = 6, dim: int = 5, rtol: float = 1e-4) -> None:
    """Checks a loss against the contract of `docs/how_to/add_a_loss.md` on small random batches.

    >>> from ssl_extract import losses
    >>> losses.check(losses.make('mse'))

    Args:
        loss: the loss to check.
        batch: rows of the batches.
        dim: features of the batches.
        rtol: tolerance of a value or a gradient, relative to the largest entry.

    Raises:
        UserError: the loss breaks the contract; the message names the first broken clause.
    """
    rng = np.random.default_rng(0)
    # Small values, so that a zero row left among the negatives would weigh as much as a true row.
    student, teacher = rng.gamma(2.0, 0.2, size=(2, batch, dim)).astype(np.float32)
    labels = rng.integers(0, 3, batch)
    where = np.arange(batch) % 3 != 1
    run = jax.jit(
        jax.value_and_grad(lambda s, t, labels, where: loss(s, t, labels=labels, where=where))
    )

    def require(holds: bool | np.bool_, clause: str) -> None:
        if not holds:
            raise UserError(f'the loss breaks its contract: {clause}')

    def close(a: jax.Array, b: jax.Array) -> np.bool_:
        return np.max(np.abs(a - b)) <= rtol * np.max(np.abs(b)) + 1e-6

    for dtype in (jnp.float32, jnp.bfloat16):
        example = jax.ShapeDtypeStruct((batch, dim), dtype)
        out = jax.eval_shape(lambda s, t: loss(s, t, labels=labels), example, example)
        require(
            out.shape == () and out.dtype == jnp.float32,
            f'of {example.dtype} it makes float32 [], not {out.dtype} {list(out.shape)}',
        )
    alone, alone_grad = run(
        student[where], teacher[where], labels[where], np.ones(where.sum(), bool)
    )
    require(np.isfinite(alone), 'its value is finite')
    require(np.all(np.isfinite(alone_grad)), 'its gradient is finite')
    for garbage in (0.0, 1e3, np.nan):
        s, t = (np.where(where[:, None], x, np.float32(garbage)) for x in (student, teacher))
        value, grad = run(s, t, labels, where)
        case = f'with where, and {garbage} in the rows left out,'
        require(close(value, alone), f'{case} its value is that of the rows left in')
        require(close(grad[where], alone_grad), f'{case} its gradient is that of the rows left in')
        require(np.all(grad[~where] == 0), f'{case} the gradient of the rows left out is zero')
    value, grad = run(student, teacher, labels, np.zeros(batch, bool))
    require(value == 0 and np.all(grad == 0), 'with no row left in, value and gradient are zero')
