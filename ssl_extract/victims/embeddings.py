"""Victims that are files: embeddings of fixed inputs.

An input is recognized by its content, so that neither the order of the file nor that of a data set
matters. A file that must not hold the inputs holds their hashes (`content_hashes`) instead.
"""

import hashlib
from typing import Any

import numpy as np
from etils import epath

from ssl_extract import data
from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.victims.model import Victim

EMBEDDINGS = 'embeddings'
_GRID = 1e-4  # a float32 k / 255, times 255, is at most this far from k
_SAME = 1e-4  # by how much, as a share of its norm, two embeddings of one input may differ
_DIGITS = 32  # of a hash


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
        hashes = content_hashes(inputs)
        places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return places, self.hashes[places] == hashes


def content_hashes(inputs: np.ndarray) -> np.ndarray:
    """Returns a hash of each input as a victim is asked it: 32 hexadecimal digits, bytes [N].

    An image has one hash, as it is stored in uint8 and as floats in [0, 1].

    >>> stored = np.array([[0, 51], [7, 255]], np.uint8)
    >>> bool((content_hashes(stored) == content_hashes(stored / 255)).all())
    True

    Args:
        inputs: [N, ...], as a data set stores them or as encoders see them.
    """
    inputs = np.asarray(inputs)
    if inputs.dtype == np.uint8:
        return data.hashes(inputs)
    if inputs.dtype.kind != 'f':
        return data.hashes(inputs.astype(np.int32))
    floats = inputs.astype(np.float32) + np.float32(0)  # which makes a 0 of -0
    scaled = floats * np.float32(255)
    pixels = np.rint(scaled).clip(0, 255)
    whole = (np.abs(scaled - pixels) <= _GRID).reshape(len(inputs), -1).all(axis=1)
    hashes = np.empty(len(inputs), f'S{_DIGITS}')
    hashes[whole] = data.hashes(pixels[whole].astype(np.uint8))
    hashes[~whole] = data.hashes(floats[~whole])
    return hashes


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
            lengths, or two different embeddings of one input.
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
    with np.errstate(over='ignore'):
        embeddings = np.ascontiguousarray(embeddings, np.float32)
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise UserError(
            f'{path}: {(~finite).sum()} of {len(finite)} rows of {EMBEDDINGS} hold NaN or infinity '
            f'(first: row {np.argmin(finite)}); take these rows out'
        )
    return embeddings


def _hashes_of(path: epath.Path, ids: str, given: np.ndarray) -> np.ndarray:
    """Returns the hashes of a file's inputs, which the file holds or which are computed."""
    if given.dtype.kind in 'fiu' and given.ndim > 1:
        return content_hashes(given)
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
    return texts.astype(f'S{_DIGITS}')


def _is_hash(text: str) -> bool:
    return len(text) == _DIGITS and set(text) <= set('0123456789abcdef')


def _check_alike(path: epath.Path, hashes: np.ndarray, embeddings: np.ndarray) -> None:
    """Raises UserError if an input that occurs twice has two different embeddings."""
    _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    twice = np.flatnonzero(first[place] != np.arange(len(hashes)))
    norms = np.linalg.norm(embeddings[twice], axis=1)
    apart = np.linalg.norm(embeddings[twice] - embeddings[first[place[twice]]], axis=1)
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
        return {name: _as_array(name, table[name].combine_chunks()) for name in names}


def _as_array(name: str, column: Any) -> np.ndarray:
    """Returns a column as an array; lists within lists are the further axes.

    Raises:
        ValueError: a value is missing, or lists have several lengths.
    """
    from pyarrow import compute, types

    shape, values = [len(column)], column
    while types.is_list(values.type) or types.is_fixed_size_list(values.type):
        lengths = compute.list_value_length(values).unique().to_pylist()
        if len(lengths) > 1:
            raise ValueError(f'{name}: its lists are of several lengths')
        shape.append((lengths or [0])[0])
        values = values.flatten()
    if None in shape or values.null_count:
        raise ValueError(f'{name}: values are missing')
    return values.to_numpy(zero_copy_only=False).reshape(shape)
