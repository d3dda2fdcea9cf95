"""The contract of a loss, tried on small random batches."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.contract import Contract, require
from ssl_extract.losses.base import Loss, make


def check(loss: Loss | str, *, batch: int = 6, dim: int = 5, rtol: float = 1e-4) -> None:
    """Tries the contract of `docs/how_to/add_a_loss.md`, and prints each clause that holds.

    >>> from ssl_extract import testing
    >>> testing.check_loss('mse')  # doctest: +ELLIPSIS
    the loss: of float32 it makes float32 []
    ...
    the loss: where student and teacher are equal, its gradient is finite

    Args:
        loss: the loss to try, or its spec.
        batch: rows of the batches.
        dim: features of the batches.
        rtol: tolerance of a value or a gradient, relative to the largest entry.

    Raises:
        UserError: the loss breaks the contract; the message names the first broken clause.
    """
    loss, contract = make(loss) if isinstance(loss, str) else loss, Contract('the loss')
    rng = np.random.default_rng(0)
    # Small values, so that a zero row left among the negatives would weigh as much as a true row.
    student, teacher = rng.gamma(2.0, 0.2, size=(2, batch, dim)).astype(np.float32)
    labels = rng.integers(0, 3, batch)
    where = np.arange(batch) % 3 != 1
    run = jax.jit(
        jax.value_and_grad(lambda s, t, labels, where: loss(s, t, labels=labels, where=where))
    )

    def close(a: jax.Array, b: jax.Array) -> np.bool_:
        return np.max(np.abs(a - b)) <= rtol * np.max(np.abs(b)) + 1e-6

    for dtype in (jnp.float32, jnp.bfloat16):
        example = jax.ShapeDtypeStruct((batch, dim), dtype)
        with contract.clause(f'of {example.dtype} it makes float32 []'):
            out = jax.eval_shape(lambda s, t: loss(s, t, labels=labels), example, example)
            shown = f'it made {out.dtype} {list(out.shape)}'
            require(out.shape == () and out.dtype == jnp.float32, shown)
    with contract.clause('its value is finite'):
        alone, alone_grad = run(
            student[where], teacher[where], labels[where], np.ones(where.sum(), bool)
        )
        require(np.isfinite(alone))
    with contract.clause('its gradient is finite'):
        require(np.all(np.isfinite(alone_grad)))
    for garbage in (0.0, 1e3, np.nan):
        s, t = (np.where(where[:, None], x, np.float32(garbage)) for x in (student, teacher))
        given = f'with where, and {garbage} in the rows left out,'
        with contract.clause(f'{given} its value is that of the rows left in'):
            value, grad = run(s, t, labels, where)
            require(close(value, alone))
        with contract.clause(f'{given} its gradient is that of the rows left in'):
            require(close(grad[where], alone_grad))
        with contract.clause(f'{given} the gradient of the rows left out is zero'):
            require(np.all(grad[~where] == 0))
    with contract.clause('with no row left in, value and gradient are zero'):
        value, grad = run(student, teacher, labels, np.zeros(batch, bool))
        require(value == 0 and np.all(grad == 0))
    with contract.clause('where student and teacher are equal, its gradient is finite'):
        _, grad = run(teacher, teacher, labels, np.ones(batch, bool))
        require(np.all(np.isfinite(grad)))
