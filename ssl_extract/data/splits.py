"""The language of splits and slices, that of TFDS: 'train[:10%]+test'."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ssl_extract.errors import UserError


class Piece(NamedTuple):
    """Rows `start` to `stop` of a split."""

    split: str
    start: int
    stop: int


def parse_split(split: str, lengths: Mapping[str, int], name: str = '') -> list[Piece]:
    """Resolves 'train[:10%]+test' against the number of rows in each of a set's splits.

    Args:
        split: in TFDS's language.
        lengths: rows of each split.
        name: of the set, put before an error message.

    >>> parse_split('train[:10%]+test', {'train': 50, 'test': 20})
    [Piece(split='train', start=0, stop=5), Piece(split='test', start=0, stop=20)]

    Raises:
        UserError: there is no such split, or the slice is malformed, too long or empty.
    """
    where = f'{name}: ' if name else ''
    sizes = ', '.join(f'{key} ({length})' for key, length in lengths.items())
    first, last = list(lengths)[0], list(lengths)[-1]
    hint = f'its splits are {sizes}; write e.g. {first}, {first}[:1000] or {last}[10%:20%]'
    infos = [
        tfds.core.SplitInfo(name=key, shard_lengths=[length], num_bytes=0)
        for key, length in lengths.items()
    ]
    try:
        absolute = tfds.core.ReadInstruction.from_spec(split).to_absolute(
            tfds.core.SplitDict(infos)
        )
    except (ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip('.')
        raise UserError(f'{where}split {split!r}: {reason}; {hint}') from None
    pieces = []
    for part in absolute:
        stop = lengths[part.splitname] if part.to is None else part.to
        pieces.append(Piece(part.splitname, part.from_ or 0, stop))
    if not pieces or any(piece.start >= piece.stop for piece in pieces):
        raise UserError(f'{where}split {split!r} is empty; {hint}')
    return pieces


def select(split: str, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the row numbers int[M] that `split` names; `rows` holds int[N] for each split.

    >>> select('test+train[:2]', {'train': np.array([0, 2, 4]), 'test': np.array([1, 3])})
    array([1, 3, 0, 2])

    Raises:
        UserError: see `parse_split`.
    """
    pieces = parse_split(split, {key: len(value) for key, value in rows.items()})
    return np.concatenate([rows[piece.split][piece.start : piece.stop] for piece in pieces])
