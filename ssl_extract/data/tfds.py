"""TFDS image sets, read without TensorFlow and decoded once.

Decoded images lie under the cache folder in numbered parts of 2,048 images. A slice decodes the
parts that it touches, and a killed run goes on after the last part. The names of folder and part
hold a hash of everything that the images depend on: the content of the prepared files that the part
is read from, the split, the size. The files are read whole at each loading, about a gigabyte a
second, since their lengths and times do not tell contents apart.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.core import read_only_builder
from tqdm import tqdm

from ssl_extract.checks import check_memory, shown
from ssl_extract.data.splits import parse_split
from ssl_extract.errors import UserError
from ssl_extract.runtime import files

_PART = 2048  # images
_CHUNK = 256  # images decoded between two steps of the progress bar
_BLOCK = 2**20  # bytes hashed at a time
_FORMAT = 2  # of the cache; caches of another format are ignored


def load(
    name: str, split: str, size: int | None, data_dir: str, cache_dir: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Loads images uint8 [N, H, W, 3], labels int32 [N] (-1 for none) and the number of classes.

    For arguments and errors see `ssl_extract.data.load`.
    """
    builder = find(name, data_dir)
    image_key, label_key = keys_of(name, builder.info.features)
    lengths = {key: info.num_examples for key, info in builder.info.splits.items()}
    pieces = parse_split(split, lengths, name)
    count = sum(piece.stop - piece.start for piece in pieces)
    check_memory(
        f'size={size}: {count:,} images',
        count * 3 * (size or 0) ** 2,
        f"write less, or the name 'records(name={name!r})', which reads images as they are needed",
    )
    cache = epath.Path(cache_dir or '~/.cache/ssl_extract').expanduser()
    images, labels = [], []
    for piece in pieces:
        folder = cache / _folder_name(builder, piece.split, size)
        parts = range(piece.start // _PART, (piece.stop - 1) // _PART + 1)
        ranges = {i: (i * _PART, min((i + 1) * _PART, lengths[piece.split])) for i in parts}
        paths = dict(zip(parts, _part_paths(folder, builder, piece.split, ranges), strict=True))
        decoded = {i: _read_part(paths[i], stop - start) for i, (start, stop) in ranges.items()}
        missing = [i for i in parts if decoded[i] is None]
        if missing:
            files.remove_temporary(folder, age=files.DAY)
            source = open_source(name, builder, piece.split)
            total = sum(ranges[i][1] - ranges[i][0] for i in missing)
            with tqdm(total=total, desc=f'decoding {name}', unit='image', disable=None) as bar:
                for i in missing:
                    decoded[i] = _decode(name, source, ranges[i], image_key, label_key, size, bar)
                    write_cached(paths[i], images=decoded[i][0], labels=decoded[i][1])
        for i in parts:
            rows = slice(max(piece.start - i * _PART, 0), piece.stop - i * _PART)
            images.append(decoded[i][0][rows])
            labels.append(decoded[i][1][rows])
    check_one_size(name, images)
    num_classes = builder.info.features[label_key].num_classes if label_key else 0
    return np.concatenate(images), np.concatenate(labels), num_classes


def fit(image: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes the central square of an image to [size, size, 3] by Pillow, bilinear, antialiased.

    Args:
        image: uint8 [h, w, 1 or 3].
        size: side in pixels; None keeps [h, w, 3].
    """
    height, width, _ = image.shape
    image = np.broadcast_to(image, (height, width, 3))
    if size is None or (height, width) == (size, size):
        return np.array(image)
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image)).resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
    )


def find(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Opens the prepared copy of a set by its files, without the code of the builder.

    Raises:
        UserError: there is none; the message says how to prepare one.
    """
    option = f' --data_dir={data_dir}' if data_dir else ''
    where = data_dir or 'the default folder of TFDS'
    short = name if len(name) < 100 else 'NAME'
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir or None)
    except (tfds.core.DatasetNotFoundError, ValueError, OSError, ImportError):
        raise UserError(
            f'no prepared copy of data set {shown(name)} in {where}: give '
            'data_dir its folder, or prepare it once: '
            f"pip install 'ssl_extract[prepare]' && tfds build {short} "
            '--file_format=array_record'
            f"{option}; 'digits' needs no preparation"
        ) from None


def open_source(name: str, builder: tfds.core.DatasetBuilder, split: str, **how: Any) -> Any:
    """Opens a split, or a slice of one, for random access.

    Args:
        name: of the set, for an error message.
        builder: of `find`.
        split: in the language of TFDS.
        **how: more arguments of `as_data_source`, such as `decoders`.

    Raises:
        UserError: the files have a format that TensorFlow alone reads.
    """
    try:
        source = builder.as_data_source(split=split, **how)
    except NotImplementedError:
        raise UserError(
            f'{name} in {builder.data_dir} is prepared as {builder.info.file_format.value}, which '
            f'cannot be read without TensorFlow: tfds build {name} --file_format=array_record'
        ) from None
    _allow_open(len(builder.info.splits[split].file_instructions))
    return source


def _allow_open(count: int) -> None:
    """Lets this process open so many more files, as far as the system allows.

    A file stays open once a row of it is read. ImageNet has 1,024 files, and many systems let a
    process open no more, unless it asks for it.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
    with contextlib.suppress(ValueError):  # a system may allow less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keys_of(name: str, features: Mapping[str, Any]) -> tuple[str, str | None]:
    """Returns the names of the features that hold the image and the class, None for no class.

    Raises:
        UserError: no feature, or more than one, is the image.
    """
    images = {
        key: feature
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and feature.shape[-1] in (1, 3)
        and feature.np_dtype == np.uint8
    }
    if 'image' not in images and len(images) != 1:
        raise UserError(
            f'{name} has no single 8-bit gray or RGB image per example (its features are '
            f'{", ".join(sorted(features))}): choose an image-classification set'
        )
    classes = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    label = 'label' if 'label' in classes else classes[0] if len(classes) == 1 else None
    return ('image' if 'image' in images else next(iter(images))), label


def _decode(
    name: str,
    source: Any,
    bounds: tuple[int, int],
    image_key: str,
    label_key: str | None,
    size: int | None,
    bar: tqdm,
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes one part: images uint8 [n, H, W, 3] and labels int32 [n]."""

    def parse(example: Mapping[str, Any]) -> tuple[np.ndarray, int]:
        return fit(example[image_key], size), int(example[label_key]) if label_key else -1

    parsed = []
    for start in range(*bounds, _CHUNK):
        indices = list(range(start, min(start + _CHUNK, bounds[1])))
        parsed += read(name, source, indices, parse)
        bar.update(len(indices))
    images, labels = zip(*parsed, strict=True)
    check_one_size(name, [image[None] for image in images])
    return np.stack(images), np.array(labels, np.int32)


def read(
    name: str, source: Any, rows: list[int], parse: Callable[[Any], Any] = lambda example: example
) -> list[Any]:
    """Reads examples of an opened set.

    Args:
        name: of the set, for an error message.
        source: of `open_source`.
        rows: their numbers.
        parse: of each example, which may raise any error where the example is damaged.

    Raises:
        UserError: the files are damaged, or too many to be open at once.
    """
    try:
        return [parse(example) for example in source.__getitems__(rows)]
    except Exception as error:  # of the reader, the parser or Pillow
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        many = os.strerror(errno.EMFILE) in reason
        raise UserError(
            f'{name}: images {min(rows)} to {max(rows)} cannot be read ({reason}): '
            f'{"let the process open more files, ulimit -n" if many else "prepare the set again"}'
        ) from error


def check_one_size(name: str, batches: list[np.ndarray]) -> None:
    """Raises UserError if batches [n, H, W, 3] of the set `name` differ in H or W."""
    shapes = {batch.shape[1:3] for batch in batches}
    if len(shapes) > 1:
        shown = ' and '.join(f'{h}x{w}' for h, w in sorted(shapes)[:2])
        raise UserError(f'{name} has images of {shown}: give their common size, e.g. size=32')


def _folder_name(builder: tfds.core.DatasetBuilder, split: str, size: int | None) -> str:
    origin = {
        'format': _FORMAT,
        'part': _PART,
        'folder': str(builder.data_dir),
        'features': repr(builder.info.features),
        'split': split,
        'size': size,
    }
    digest = hashlib.sha256(json.dumps(origin, default=str).encode()).hexdigest()[:16]
    return f'{builder.info.name}-{builder.info.version}-{split}-{size or "original"}-{digest}'


def _part_paths(
    folder: epath.Path,
    builder: tfds.core.DatasetBuilder,
    split: str,
    ranges: Mapping[int, tuple[int, int]],
) -> list[epath.Path]:
    """Names each part by its number and the content of the files that hold its rows.

    The files of a split follow one another: file k holds the rows from `ends[k] - lengths[k]` up to
    `ends[k]`. A name also depends on where a part begins in its first file.
    """
    info = builder.info.splits[split]
    lengths, ends = info.shard_lengths, np.cumsum(info.shard_lengths)
    contents: dict[int, str] = {}
    paths = []
    for index, (start, stop) in ranges.items():
        first, last = np.searchsorted(ends, [start, stop - 1], side='right')
        for k in range(first, last + 1):
            if k not in contents:
                contents[k] = hash_file(builder.info.name, info.filepaths[k], lengths[k])
        origin = [int(start - ends[first] + lengths[first]), stop - start]
        origin += [contents[k] for k in range(first, last + 1)]
        digest = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
        paths.append(folder / f'part-{index:05d}-{digest}.npz')
    return paths


def hash_file(name: str, path: epath.Path, count: int) -> str:
    """Hashes the content of a file of the set `name`: 32 hexadecimal digits.

    Args:
        name: of the set.
        path: of the file.
        count: the records that the set says to be in it.

    Raises:
        UserError: the file cannot be read, or has another number of records.
    """
    _check_count(name, path, count)
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open('rb') as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise UserError(f'{name}: {error}: prepare the set again') from None
    return digest.hexdigest()


def _check_count(name: str, path: epath.Path, count: int) -> None:
    """Raises UserError if an array_record file has another number of records than the set says."""
    if '.array_record' not in path.name:
        return
    from array_record.python import array_record_module  # few runs need it

    try:
        found = array_record_module.ArrayRecordReader(str(path)).num_records()
    except Exception as error:  # of the reader, whatever the damage is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'{name}: {path}: {reason}: prepare the set again') from None
    if found != count:
        raise UserError(
            f'{name}: {path} has {found:,} records in place of {count:,}: prepare the set again'
        )


def _read_part(path: epath.Path, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads a part of the cache; None if it is missing or damaged."""
    part = read_cached(path) or {}
    images, labels = part.get('images'), part.get('labels')
    if images is None or labels is None:
        return None
    sound = images.dtype == np.uint8 and images.shape[:1] == labels.shape == (count,)
    return (images, labels) if sound else None


def read_cached(path: epath.Path) -> dict[str, np.ndarray] | None:
    """Reads a file of the cache; None if it is missing or damaged, and to be made again."""
    if not path.exists():
        return None
    try:
        return files.read_npz(path)
    except Exception:  # whatever the damage is
        return None


def write_cached(path: epath.Path, **arrays: np.ndarray) -> None:
    """Writes a file of the cache.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        files.write_npz(path, **arrays)
    except OSError as error:
        raise UserError(
            f'cannot write {path} ({error}): make the folder writable, or load the set with '
            'another cache_dir'
        ) from error
