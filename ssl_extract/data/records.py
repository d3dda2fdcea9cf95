"""Images that are read from TFDS's array_record files as they are needed.

`Records` stands where an array uint8 [N, H, W, 3] would: the rows that are asked for are read and
decoded then, to the numbers of the loader in memory, `data.tfds`. In memory are the labels, and
the hashes of the images from their first use. Both are computed once and lie under the cache
folder, in one file for each array_record file. The name of such a file depends on the content of
the array_record file, which is read whole for it, once for each slice that is opened.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from ssl_extract.data import tfds as tfds_sets
from ssl_extract.data.content import hash_rows
from ssl_extract.data.splits import Piece, parse_split
from ssl_extract.errors import UserError
from ssl_extract.runtime.ahead import ahead
from ssl_extract.runtime.progress import progress

_BLOCK = 256  # images read at a time
_FORMAT = 1  # of the cache; caches of another format are ignored


class _File(NamedTuple):
    """One array_record file of a split.

    Attributes:
        path: of the file.
        split: the split that the file belongs to.
        start: the first row of the file in its split.
        stop: the row of the split behind the last of the file.
        part: the rows of a slice among those of the file.
    """

    path: epath.Path
    split: str
    start: int
    stop: int
    part: slice


class Files:
    """A slice of a prepared set, opened.

    Args:
        name: of the set, as in 'cifar10:3.0.2'.
        split: the slice, in the language of TFDS.
        size: the side to which images are resized; None leaves them as they are.
        data_dir: the folder of prepared sets; '' for the default of TFDS.
        cache_dir: the folder of what is computed once; '' for ~/.cache/ssl_extract.

    Raises:
        UserError: there is no such set or slice, or its files are damaged.
    """

    def __init__(self, name: str, split: str, size: int | None, data_dir: str, cache_dir: str):
        self.name, self.size = name, size
        self.builder = tfds_sets.find(name, data_dir)
        info = self.builder.info
        self.image_key, self.label_key = tfds_sets.keys_of(name, info.features)
        lengths = {key: part.num_examples for key, part in info.splits.items()}
        pieces = parse_split(split, lengths, name)
        self.source = tfds_sets.open_source(name, self.builder, split)
        self.parts = [file for piece in pieces for file in _files_of(self.builder, piece)]
        self.num_classes = info.features[self.label_key].num_classes if self.label_key else 0
        cache = epath.Path(cache_dir or '~/.cache/ssl_extract').expanduser()
        self.cache = cache / f'records-{info.name}-{info.version}'
        self.side = self._decode(self.source, [0])[0].shape

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads images uint8 [n, H, W, 3] by their row numbers, int [n]."""
        images = np.empty((len(rows), *self.side), np.uint8)
        for start in range(0, len(rows), _BLOCK):
            block = self._decode(self.source, rows[start : start + _BLOCK].tolist())
            images[start : start + _BLOCK] = self._checked(block)
        return images

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Returns the classes of all images, int32; -1 for none."""
        if not self.label_key:
            return np.full(len(self.source), -1, np.int32)

        def parse(example: bytes) -> int:
            message = tf_example_pb2.Example.FromString(example)
            (label,) = message.features.feature[self.label_key].int64_list.value
            return label

        def read(source: Any, rows: list[int]) -> np.ndarray:
            return np.array(tfds_sets.read(self.name, source, rows, parse), np.int32)

        # TFDS would parse all features, which takes ten times as long.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        return self._column('labels', [self.label_key], read, deserialize_method=raw)

    @functools.cached_property
    def contents(self) -> np.ndarray:
        """Returns the hashes of all images, bytes; see `data.hashes`."""

        def read(source: Any, rows: list[int]) -> np.ndarray:
            return hash_rows(np.stack(self._checked(self._decode(source, rows))))

        return self._column('hashes', [self.image_key, self.size], read)

    def _decode(self, source: Any, rows: list[int]) -> list[np.ndarray]:
        examples = tfds_sets.read(self.name, source, rows)
        return [tfds_sets.fit(example[self.image_key], self.size) for example in examples]

    def _checked(self, images: list[np.ndarray]) -> list[np.ndarray]:
        for image in images:
            if image.shape != self.side:
                tfds_sets.check_one_size(self.name, [np.empty((1, *self.side)), image[None]])
        return images

    @functools.cached_property
    def _fingerprints(self) -> list[str]:
        """Returns the hash of each array_record file."""

        def read(file: _File) -> str:
            return tfds_sets.hash_file(self.name, file.path, file.stop - file.start)

        hashes = ahead(read, self.parts)
        bar = progress(hashes, total=len(self.parts), desc=f'reading {self.name}', unit='file')
        return list(bar)

    def _column(
        self,
        kind: str,
        origin: list[Any],
        read: Callable[[Any, list[int]], np.ndarray],
        **how: Any,
    ) -> np.ndarray:
        """Returns a value for each image, from the cache where it is there.

        Args:
            kind: of the values, for names of files.
            origin: what the values depend on, beside the array_record file and its features.
            read: reads values of rows of an opened file; called by several threads.
            **how: the files are opened; see `tfds.open_source`.
        """
        features = repr(self.builder.info.features)
        paths, stored = [], []
        for fingerprint, file in zip(self._fingerprints, self.parts, strict=True):
            text = json.dumps([_FORMAT, fingerprint, features, *origin])
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            paths.append(self.cache / f'{kind}-{digest}.npz')
            stored.append(_read_values(paths[-1], file.stop - file.start))
        missing = [k for k, values in enumerate(stored) if values is None]
        blocks = []
        for k in missing:
            file = self.parts[k]
            rows = f'{file.split}[{file.start}:{file.stop}]'
            source = tfds_sets.open_source(self.name, self.builder, rows, **how)
            numbers = [*range(len(source))]
            starts = range(0, len(source), _BLOCK)
            blocks += [(k, source, numbers[start : start + _BLOCK]) for start in starts]
        # A file's values are written once its last block is there, so that a killed run goes on
        # with the next file. The file is closed then: a large set has more files than a process may
        # open.
        total, done = sum(len(rows) for _, _, rows in blocks), []
        with progress(total=total, desc=f'{kind} of {self.name}', unit='image') as bar:
            computed = ahead(lambda block: read(*block[1:]), blocks)
            for (k, source, rows), values in zip(blocks, computed, strict=True):
                done.append(values)
                bar.update(len(rows))
                if rows[-1] + 1 == len(source):
                    source.data_source.__exit__(None, None, None)
                    stored[k], done = np.concatenate(done), []
                    tfds_sets.write_cached(paths[k], values=stored[k])
        pairs = zip(stored, self.parts, strict=True)
        return np.concatenate([values[file.part] for values, file in pairs])


class Records:
    """Images uint8 [N, H, W, 3] in files, of which rows are read when they are asked for.

    An index is a row number, a slice or an integer array, and gives an array. Several threads may
    read at once. `np.asarray` of the whole is refused.

    Args:
        opened: the files.
        rows: int [N], rows of the opened slice; None is all of them.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, opened: Files, rows: np.ndarray | None = None):
        self.opened = opened
        self.rows = np.arange(len(opened.source)) if rows is None else rows
        self.shape = (len(self.rows), *opened.side)
        self.size = self.nbytes = int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = np.asarray(self.rows[rows])
        return self.opened.read(chosen) if chosen.ndim else self.opened.read(chosen[None])[0]

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        del args, kwargs
        name = self.opened.name
        raise UserError(
            f'records(name={name!r}): {len(self):,} images would take '
            f'{self.nbytes / 2**30:,.1f} GiB, all in memory at once, which is needed here: write '
            f'{name!r} in place of records(...), and a slice that fits'
        )

    def select(self, rows: Any) -> 'Records':
        """Returns the images of some rows, int [M], bool [N] or a slice, without reading them."""
        return Records(self.opened, self.rows[rows])

    def contents(self) -> np.ndarray:
        """Returns the hash of each image, bytes [N]; see `data.hashes`."""
        return self.opened.contents[self.rows]

    def labels(self) -> np.ndarray:
        """Returns the class of each image, int32 [N]; -1 for none."""
        return self.opened.labels[self.rows]


def take(inputs: np.ndarray | Records, rows: Any) -> np.ndarray | Records:
    """Returns some rows of inputs: an array of an array, and `Records` of `Records`.

    >>> take(np.arange(5), np.array([3, 0])).tolist()
    [3, 0]

    Args:
        inputs: [N, ...].
        rows: int [M], bool [N] or a slice.
    """
    return inputs.select(rows) if isinstance(inputs, Records) else inputs[rows]


def blocks(inputs: np.ndarray | Records, parts: Sequence[Any]) -> Iterator[np.ndarray]:
    """Yields `inputs[part]` for each part in order; `Records` are read ahead by threads.

    >>> [block.tolist() for block in blocks(np.arange(5), [slice(0, 2), slice(2, 4)])]
    [[0, 1], [2, 3]]

    Args:
        inputs: [N, ...].
        parts: slices, or int [M].
    """
    if isinstance(inputs, Records):
        return ahead(inputs.__getitem__, parts)
    return (inputs[part] for part in parts)


def _files_of(builder: tfds.core.DatasetBuilder, piece: Piece) -> list[_File]:
    """Lists the files that hold rows of a piece; the files of a split follow one another."""
    info, found, start = builder.info.splits[piece.split], [], 0
    for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
        stop = start + length
        part = slice(max(piece.start - start, 0), min(piece.stop, stop) - start)
        if part.start < part.stop:
            found.append(_File(epath.Path(path), piece.split, start, stop, part))
        start = stop
    return found


def _read_values(path: epath.Path, count: int) -> np.ndarray | None:
    """Reads the values of a file's images from the cache; None if they are to be made again."""
    values = (tfds_sets.read_cached(path) or {}).get('values')
    return values if values is not None and values.shape == (count,) else None
