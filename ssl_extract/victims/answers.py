"""Checks of a victim's answers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError, told_with_place


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
    try:
        answer = np.asarray(answer)
    except ValueError:  # rows of several lengths
        answer = np.asarray(answer, object)
    except Exception as error:  # of the library of a tensor on a device, or with a gradient
        raise UserError(
            f'victim {victim}: it answered with a {type(answer).__name__}, which NumPy cannot read '
            f'({told_with_place(error)}); it must answer NumPy arrays'
        ) from error
    real = any(jnp.issubdtype(answer.dtype, kind) for kind in (jnp.integer, jnp.floating))
    real &= answer.dtype.kind != 'm'  # a time span, which NumPy takes for an integer
    if answer.shape != (count, dim) or not real:
        raise UserError(
            f'victim {victim}: it answered {count} inputs with {answer.dtype} '
            f'{list(answer.shape)}; it must answer real numbers [{count}, {dim}]'
        )
    with np.errstate(over='ignore'):
        answer = answer.astype(np.float32)
    finite = np.isfinite(answer).all(axis=1)
    if not finite.all():
        raise UserError(
            f'victim {victim}: {int((~finite).sum())} of {count} answers hold NaN or infinity; '
            'mend the victim'
        )
    return answer
