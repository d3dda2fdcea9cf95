"""Checks of a victim's answers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError, told_with_place


class NotFiniteError(UserError):
    """A victim answered with NaN or infinity."""


def check_answers(victim: str, answer: Any, count: int, dim: int) -> np.ndarray:
    """Returns what a victim answered as float32 [count, dim].

    >>> check_answers('mine', [[1, 2]], count=1, dim=2).tolist()
    [[1.0, 2.0]]

    Args:
        victim: the victim's address.
        answer: what came back, of any kind.
        count: inputs that were sent.
        dim: width of an answer.

    Raises:
        UserError: the answers are no array, have another shape, or are not finite numbers.
    """
    if isinstance(answer, np.ma.MaskedArray):
        raise UserError(
            f'victim {victim}: it answered with a masked array; fill it, or drop the mask'
        )
    try:
        array = np.asarray(answer)
    except Exception as error:  # rows of several lengths, or a tensor with a gradient
        raise UserError(
            f'victim {victim}: it answered {count} inputs with a {type(answer).__name__} that is '
            f'no array ({told_with_place(error)}); it must answer real numbers [{count}, {dim}]'
        ) from error
    real = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.integer, jnp.floating))
    real &= array.dtype.kind != 'm'  # a time span, which NumPy takes for an integer
    if array.shape != (count, dim) or not real:
        raise UserError(
            f'victim {victim}: it answered {count} inputs with {array.dtype} '
            f'{list(array.shape)}; it must answer real numbers [{count}, {dim}]'
        )
    with np.errstate(over='ignore'):
        array = array.astype(np.float32)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise NotFiniteError(
            f'victim {victim}: {int((~finite).sum())} of {count} answers hold NaN or infinity; '
            'mend the victim'
        )
    return array
