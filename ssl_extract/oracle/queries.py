"""Queries of an account: batches, fingerprints, checks before the first."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_extract import augment, data
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import fingerprint
from ssl_extract.runtime import parallel


class Queries(NamedTuple):
    """Queries to ask: row q is the view `seeds[q]` of `inputs[index[q]]`.

    Attributes:
        inputs: [N, ...], as they are stored.
        index: int32[Q].
        seeds: uint32[Q]; without a view 0, and 1, 2, ... to ask the same input again.
        view: `(inputs float[B, ...], seeds uint32[B]) -> queries`, a pure function, the same object
            for the same plan, for one compilation; None asks the inputs as they are.
        decode: stored [B, ...] to the inputs of encoders, a pure function.
    """

    inputs: np.ndarray | data.Records
    index: np.ndarray
    seeds: np.ndarray
    view: Callable[..., jax.Array] | None = None
    decode: Callable[[jax.Array], jax.Array] = augment.to_float


def plain(inputs: np.ndarray | data.Records, decode: Callable = augment.to_float) -> Queries:
    """Makes queries of every input as it is, once."""
    number = len(inputs)
    return Queries(inputs, np.arange(number), np.zeros(number, np.uint32), decode=decode)


def render(queries: Queries, batch_size: int = 256) -> np.ndarray:
    """Computes the views that the queries are, as encoders see them, [Q, ...]; asks nothing."""
    rows = np.arange(len(queries.index))
    return np.concatenate([*_rendered(queries, rows, batch_size)])


def check_known(
    victim: str,
    knows: Callable[[np.ndarray], np.ndarray] | None,
    queries: Queries,
    rows: np.ndarray | None = None,
    batch_size: int = 256,
) -> None:
    """Checks that a victim of fixed inputs has answers to queries.

    Args:
        victim: the victim's address.
        knows: of the victim; None answers every input.
        queries: to ask.
        rows: int[n], the queries to check; None is all.
        batch_size: inputs that are looked up at a time.

    Raises:
        UserError: the victim has no answer to a query, or the queries are views.
    """
    if knows is None:
        return
    if queries.view is not None:
        raise UserError(
            f'victim {victim} answers the inputs of its file only, and views of them were to be '
            "asked: nothing was sent; ask each input as it is, by plan 'once' or 'repeat(m=2)'"
        )
    rows = np.arange(len(queries.index)) if rows is None else rows
    unknown = sum(int((~knows(x)).sum()) for x in _rendered(queries, rows, batch_size))
    if unknown:
        raise UserError(
            f'victim {victim} answers the inputs of its file only, and {unknown} of {len(rows)} '
            'inputs to be asked are not in it: nothing was sent; ask inputs of the file'
        )


def check_granted(victim: str, granted: np.ndarray) -> None:
    """Checks that a victim has answered all inputs of an evaluation, bool[N].

    Raises:
        UserError: the victim, a service with a defense or a budget of its own, refused an input.
    """
    if not granted.all():
        raise UserError(
            f'victim {victim} refused {(~granted).sum()} of {len(granted)} inputs of the '
            'evaluation, and zeros are no answers; measure it on fewer, or leave it unmeasured'
        )


def _rendered(queries: Queries, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the queries `rows` as encoders see them, in batches [n, ...] without padding."""
    view = compile_view(queries.view, queries.decode)
    for inputs, seeds, where in batches(queries, rows, batch_size):
        yield np.asarray(view(inputs, seeds))[where]


@functools.lru_cache(maxsize=32)
def compile_view(view: Callable | None, decode: Callable) -> Any:
    """Returns `(stored [B, ...], seeds) -> queries [B, ...]`, compiled once for a plan."""
    return jax.jit(lambda inputs, seeds: view(decode(inputs), seeds) if view else decode(inputs))


@functools.cache
def _compile_fingerprint(decode: Callable, mesh: jax.sharding.Mesh) -> Any:
    return parallel.compile_init(lambda inputs: fingerprint(decode(inputs)), mesh)


def fingerprints(
    queries: Queries, batch_size: int, mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Computes fingerprints uint32[Q, 2] of inputs, and of inputs with seeds.

    The view is not fingerprinted: the result would differ with the rounding of the hardware.
    """
    compute = _compile_fingerprint(queries.decode, mesh)
    whole = plain(queries.inputs)
    parts = batches(whole, whole.index, batch_size)
    prints = np.concatenate([np.asarray(compute(inputs))[where] for inputs, _, where in parts])
    contents = prints[queries.index]
    return contents, contents + queries.seeds[:, None] * np.uint32([0x9E3779B1, 0x85EBCA77])


def batches(queries: Queries, rows: np.ndarray, batch_size: int) -> Iterator[tuple]:
    """Yields (inputs, seeds, where) of `rows`, in batches of one size, for one compilation."""
    split = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    padded = [np.pad(batch, (0, batch_size - len(batch))) for batch in split]
    inputs = data.blocks(queries.inputs, [queries.index[batch] for batch in padded])
    for here, batch, read in zip(split, padded, inputs, strict=True):
        yield read, queries.seeds[batch], np.arange(batch_size) < len(here)
