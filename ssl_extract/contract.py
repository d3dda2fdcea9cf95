"""The `Contract` type: clauses that are tried one by one and reported."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError


class Contract:
    """A list of clauses that are tried one by one, up to the first that does not hold.

    A line is printed for each clause that holds.

    >>> contract = Contract('the number 4')
    >>> with contract.clause('it is even'):
    ...     require(4 % 2 == 0)
    the number 4: it is even
    """

    def __init__(self, subject: str):
        self.subject = subject

    @contextlib.contextmanager
    def clause(self, text: str) -> Iterator[None]:
        """Tries the requirements of a block.

        Args:
            text: the clause, as it is printed.

        Raises:
            UserError: the block raised an error; the message holds the clause and the reason.
        """
        try:
            yield
        except Exception as error:
            line = (str(error).splitlines() or [''])[0]
            why = line if isinstance(error, AssertionError) else f'{type(error).__name__}: {line}'
            raise UserError(
                f'{self.subject} breaks its contract: {text}{": " if why else ""}{why}'
            ) from error
        print(f'{self.subject}: {text}')


def require(holds: Any, why: str = '') -> None:
    """Raises AssertionError, which a clause reports, unless `holds`.

    Args:
        holds: the condition.
        why: the reason in the report.
    """
    if not holds:
        raise AssertionError(why)


def require_same(tree: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Requires the same structure, types and values.

    Args:
        tree: a tree of arrays and random keys.
        expected: the tree to compare with.
        tolerance: the tolerance of floating values, relative to the largest and absolute.

    Raises:
        AssertionError: the trees differ.
    """
    require(jax.tree.structure(tree) == jax.tree.structure(expected), 'another structure')
    for leaf, other in zip(raw(tree), raw(expected), strict=True):
        shown = f'{leaf.dtype}{list(leaf.shape)}, not {other.dtype}{list(other.shape)}'
        require((leaf.shape, leaf.dtype) == (other.shape, other.dtype), shown)
        if np.issubdtype(leaf.dtype, np.inexact) or leaf.dtype == jnp.bfloat16:
            leaf, other = (np.asarray(x, np.float64) for x in (leaf, other))
            scale = np.max(np.abs(other), initial=0.0, where=np.isfinite(other))
            near = np.isclose(leaf, other, rtol=0, atol=tolerance * (1 + scale), equal_nan=True)
            require(near.all(), f'{np.sum(~near)} of {near.size} values differ')
        else:
            require(np.array_equal(leaf, other), 'values differ')


def raw(tree: Any) -> list[np.ndarray]:
    """Returns the leaves as NumPy arrays, random keys as their words."""
    is_key = lambda leaf: jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)  # noqa: E731
    return [
        np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        for leaf in jax.tree.leaves(tree)
    ]
