"""The language of splits and slices, that of TFDS."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ssl_extract.errors import UserError

_ALL = 'all_rows'


class Piece(NamedTuple):
    """Rows `start` to `stop` of a split."""

    split: str
    start: int
    stop: int


def parse_split(split: str, lengths: Mapping[str, int], name: str = '') -> list[Piece]:
    """Resolves 'train[:10%]+test' with the number of rows in each split of a set.

    Args:
        split: in the language of TFDS.
        lengths: rows of each split.
        name: of the set, for an error message.

    >>> parse_split('train[:10%]+test', {'train': 50, 'test': 20})
    [Piece(split='train', start=0, stop=5), Piece(split='test', start=0, stop=20)]

    Raises:
        UserError: there is no such split, or the slice is malformed, too long or empty.
    """
    where = f'{name}: ' if name else ''
    sizes = ', '.join(f'{key} ({length})' for key, length in lengths.items())
    first, last = list(lengths)[0], list(lengths)[-1]
    hint = f'its splits are {sizes}; write e.g. {first}, {first}[:1000] or {last}[10%:20%]'
    try:
        pieces = _resolve(split, lengths)
    except (ValueError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip('.').replace(_ALL, 'all')
        raise UserError(f'{where}split {split!r}: {reason}; {hint}') from None
    if not pieces or any(piece.start >= piece.stop for piece in pieces):
        raise UserError(f'{where}split {split!r} is empty; {hint}')
    return pieces


def _resolve(split: str, lengths: Mapping[str, int]) -> list[Piece]:
    """Lets TFDS read the split; a split 'all' gets another name, which TFDS does not reserve."""
    if 'all' in lengths:
        split = re.sub(r'(^|\+)\s*all\s*(?=\[|\+|$)', rf'\g<1>{_ALL}', split)
        lengths = {_ALL if key == 'all' else key: length for key, length in lengths.items()}
    infos = [
        tfds.core.SplitInfo(name=key, shard_lengths=[length], num_bytes=0)
        for key, length in lengths.items()
    ]
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(tfds.core.SplitDict(infos))
    pieces = []
    for part in parts:
        stop = lengths[part.splitname] if part.to is None else part.to
        name = 'all' if part.splitname == _ALL else part.splitname
        pieces.append(Piece(name, part.from_ or 0, stop))
    return pieces


def select(split: str, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the row numbers that `split` names.

    Args:
        split: in the language of TFDS.
        rows: the row numbers of each split, int[N].

    Returns:
        int[M].

    >>> select('test+train[:2]', {'train': np.array([0, 2, 4]), 'test': np.array([1, 3])})
    array([1, 3, 0, 2])

    Raises:
        UserError: see `parse_split`.
    """
    pieces = parse_split(split, {key: len(value) for key, value in rows.items()})
    return np.concatenate([rows[piece.split][piece.start : piece.stop] for piece in pieces])
