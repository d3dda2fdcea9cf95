"""Victims that are files: embeddings of fixed inputs.

An input is recognized by its content, so that neither the order of the file nor that of a data set
matters. A file that must not hold the inputs holds their hashes (`content_hashes`) instead.
"""

import hashlib
import math
from typing import Any

import numpy as np
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.victims.contents import DIGITS, FORMS, content_hashes, hashes_as_stored
from ssl_extract.victims.model import Victim

EMBEDDINGS = 'embeddings'
_SAME = 1e-4  # by how much, as a share of its norm, two embeddings of one input may differ


class Table:
    """Embeddings [N, D] by the hashes of their inputs.

    Args:
        hashes: bytes [N], of `content_hashes`.
        embeddings: float32 [N, D].
        name: of the file, for error messages.
    """

    def __init__(self, hashes: np.ndarray, embeddings: np.ndarray, name: str) -> None:
        order = np.argsort(hashes, kind='stable')
        self.hashes, self.embeddings, self.name = hashes[order], embeddings[order], name

    def knows(self, inputs: np.ndarray) -> np.ndarray:
        """Returns bool[n], which of the inputs [n, ...] are in the table."""
        return self._find(inputs)[1]

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the embeddings float32 [n, D] of inputs [n, ...].

        Raises:
            UserError: an input is not in the table.
        """
        places, known = self._find(inputs)
        if not known.all():
            raise UserError(f'{self.name}: {(~known).sum()} of {len(inputs)} inputs are not in it')
        return self.embeddings[places]

    def _find(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row of each input, int[n], and whether the row is the input's, bool[n]."""
        inputs = np.asarray(inputs)
        places, known = self._look_up(content_hashes(inputs))
        for form in FORMS:  # as a set stores them
            rest = ~known
            if rest.any():
                places[rest], known[rest] = self._look_up(hashes_as_stored(inputs[rest], form))
        return places, known

    def _look_up(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return places, self.hashes[places] == hashes


def read(file: epath.PathLike, ids: str = 'inputs', answers: str = 'representation') -> Victim:
    """Reads a file of embeddings as a victim that knows the inputs of the file only.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + '/answers.npz'
    >>> np.savez(path, inputs=np.eye(4, dtype=np.float32), embeddings=np.ones((4, 2)))
    >>> read(path).answer(np.eye(4)[:1]).tolist()
    [[1.0, 1.0]]

    Args:
        file: an .npz with arrays, or a .parquet with columns: 'embeddings', and `ids`.
        ids: the array or column of the inputs: the inputs themselves, or their `content_hashes`.
        answers: the kind of an answer; see `Victim`.

    Raises:
        UserError: the file cannot be read, lacks one of the two, or holds NaN, other types or
            lengths, whole numbers outside of int32, or two different embeddings of one input.
    """
    path = files.absolute(file)
    with files.advised('put it back from a copy, or name another file in victim.source'):
        names = (EMBEDDINGS, ids)
        arrays = _read_parquet(path, names) if path.suffix == '.parquet' else _read_npz(path)
    for name in names:
        if name not in arrays:
            has = ', '.join(sorted(arrays)) or 'no array'
            raise UserError(f'{path} has no {name!r}: it has {has}')
    embeddings = _checked_embeddings(path, arrays[EMBEDDINGS])
    given = np.asarray(arrays[ids])
    if given.ndim == 0 or len(given) != len(embeddings):
        raise UserError(
            f'{path}: {ids} is {list(given.shape)} and {EMBEDDINGS} {list(embeddings.shape)}: '
            'both have a row for each input'
        )
    hashes = _hashes_of(path, ids, given)
    _check_alike(path, hashes, embeddings)
    whole = hashlib.blake2b(hashes.tobytes() + embeddings.tobytes(), digest_size=8)
    table = Table(hashes, embeddings, str(path))
    shape = given.shape[1:] if given.ndim > 1 else None
    address = f'{path.stem} {whole.hexdigest()}'
    dim = embeddings.shape[1]
    return Victim(address, dim, table.answer, False, answers, shape, knows=table.knows)


def _checked_embeddings(path: epath.Path, embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings as float32 [N, D].

    Raises:
        UserError: they are no finite real numbers [N, D].
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind not in 'fiu' or not embeddings.size:
        raise UserError(
            f'{path}: {EMBEDDINGS} is {embeddings.dtype} {list(embeddings.shape)}; it must hold '
            'real numbers [N, D], a row for each input'
        )
    _check_finite(path, EMBEDDINGS, embeddings)
    return np.ascontiguousarray(embeddings, np.float32)


def _check_finite(path: epath.Path, name: str, numbers: np.ndarray) -> None:
    """Raises UserError if a row of real numbers [N, ...] is not finite as float32."""
    if numbers.dtype.kind != 'f':
        return
    with np.errstate(over='ignore'):
        finite = np.isfinite(numbers.astype(np.float32, copy=False))
    rows = finite.all(axis=tuple(range(1, numbers.ndim)))
    if not rows.all():
        row = np.argmin(rows)
        raise UserError(
            f'{path}: row {row} of {name} holds {numbers[row][~finite[row]].flat[0]}, and '
            f'{(~rows).sum()} of {len(rows)} rows are not finite as float32; take these rows out'
        )


def _hashes_of(path: epath.Path, ids: str, given: np.ndarray) -> np.ndarray:
    """Returns the hashes of a file's inputs, which the file holds or which are computed."""
    if given.dtype.kind in 'fiu' and given.ndim > 1:
        _check_finite(path, ids, given)
        try:
            return content_hashes(given)
        except UserError as error:
            raise UserError(f'{path}: {ids}: {error}') from None
    texts = given.astype(str) if given.dtype.kind in 'SUO' else given
    if (
        texts.dtype.kind != 'U'
        or texts.ndim != 1
        or any(not _is_hash(text) for text in texts.ravel())
    ):
        raise UserError(
            f'{path}: {ids} is {given.dtype} {list(given.shape)}; it must hold the inputs [N, ...] '
            'or their hashes [N], of ssl_extract.victims.content_hashes'
        )
    return texts.astype(f'S{DIGITS}')


def _is_hash(text: str) -> bool:
    return len(text) == DIGITS and set(text) <= set('0123456789abcdef')


def _check_alike(path: epath.Path, hashes: np.ndarray, embeddings: np.ndarray) -> None:
    """Raises UserError if an input that occurs twice has two different embeddings."""
    _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    twice = np.flatnonzero(first[place] != np.arange(len(hashes)))
    again = embeddings[twice].astype(np.float64)  # in which no square overflows
    norms = np.linalg.norm(again, axis=1)
    apart = np.linalg.norm(again - embeddings[first[place[twice]]], axis=1)
    other = twice[apart > _SAME * norms]
    if len(other):
        raise UserError(
            f'{path}: rows {first[place[other[0]]]} and {other[0]} are of the same input and '
            f'their {EMBEDDINGS} differ; keep one of them'
        )


def _read_npz(path: epath.Path) -> dict[str, np.ndarray]:
    if path.suffix != '.npz':
        raise UserError(f'victim.source: embeddings({str(path)!r}): write a .npz or .parquet file')
    return files.read_npz(path, sealed=False)


def _read_parquet(path: epath.Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads columns by name; where one is missing, all that there are come back empty."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path}: reading parquet needs pyarrow: pip install 'ssl_extract[parquet]'"
        ) from None
    with files.reading(path):
        there = parquet.read_schema(str(path)).names
        if not {*names} <= {*there}:
            return dict.fromkeys(there, np.empty(0))
        table = parquet.read_table(str(path), columns=[*names])
        columns = {name: table[name].combine_chunks() for name in names}
    return {name: _as_array(path, name, column) for name, column in columns.items()}


def _as_array(path: epath.Path, name: str, column: Any) -> np.ndarray:
    """Returns a column as an array; lists within lists are the further axes.

    Raises:
        UserError: a value is missing, lists have several lengths, or hold other values.
    """
    from pyarrow import ExtensionArray, compute, types

    def check(flags: Any, fault: str) -> None:
        if (first := compute.index(flags, True).as_py()) >= 0:
            row = first // math.prod(shape[1:])
            raise UserError(f'{path}: row {row} of {name} {fault}; mend or take out such rows')

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    shape, values = [len(column)], column
    check(values.is_null(), 'is missing')
    while any(is_list(values.type) for is_list in lists):
        lengths = compute.list_value_length(values)
        first = lengths[0].as_py() if len(lengths) else 0
        check(compute.not_equal(lengths, first), f'holds a list of another length than {first}')
        shape.append(first)
        values = values.flatten()
        check(values.is_null(), 'has missing values')
    if types.is_nested(values.type) or isinstance(values, ExtensionArray):
        raise UserError(f'{path}: {name} is a column of {column.type}; write lists of numbers')
    return values.to_numpy(zero_copy_only=False).reshape(shape)
