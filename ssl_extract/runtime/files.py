"""Whole files, written atomically, with checksums, in folders or buckets.

A file appears under its name complete or not at all: it is written under a temporary name, brought
to the disk, and then renamed; in a bucket an upload appears when it is complete. Nothing is edited
in place. JSON documents, lists of rows and arrays hold a SHA-256 of their content, and a file whose
content differs from it is refused.

Of several processes the first one writes, renames and removes; in the others these functions return
at once: see `runtime.hosts`.
"""

import contextlib
import csv
import glob
import hashlib
import io
import json
import math
import os
import shutil
import threading
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.runtime import hosts

CHECKSUM = 'sha256'
# Held while the header of an array is read. NumPy parses it as Python, and Python 3.11 counts the
# depth of a syntax tree for all threads at once: two of them get a SystemError now and then
# (github.com/python/cpython/issues/106905).
HEADERS = threading.Lock()
DAY = 86_400.0  # seconds; no file is written for longer
_MARK = f'{CHECKSUM}='.encode()  # before the checksum of an archive, at the end of the file
_HEADERS = {  # of an array, by the version of the format; 3.0 is 2.0 with other names of fields
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_DEFLATED = 1032  # bytes that one byte of a compressed file can stand for
_TEMPORARY = '.tmp'
_ORBAX_TEMPORARY = '.orbax-checkpoint-tmp'  # in the names of folders that Orbax is writing


class DamagedError(UserError):
    """A file that is missing, cannot be parsed, or holds other content than was written."""


@contextlib.contextmanager
def advised(advice: str) -> Iterator[None]:
    """Ends the message of a `DamagedError` that the block raises with what to do.

    Raises:
        UserError: a file was damaged. It is no `DamagedError`, so that the innermost advice stands.
    """
    try:
        yield
    except DamagedError as error:
        raise UserError(f'{error}: {advice}') from error


def find(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
    """Returns the paths below `folder` that match `pattern`, sorted; [] where it does not exist.

    Only `pattern` has wildcards: `*`, `?` and `[` in the folder's name stand for themselves.
    """
    return sorted(epath.Path(glob.escape(os.fspath(folder))).glob(pattern))


def find_together(folder: epath.Path, pattern: str) -> list[epath.Path]:
    """Returns the paths in `folder` that match, as the first of several processes sees them."""
    return [folder / name for name in hosts.agreed(lambda: [p.name for p in find(folder, pattern)])]


def write_bytes(path: epath.PathLike, content: bytes | memoryview) -> None:
    """Writes `content` to `path`, creating its folder; on return it is on the disk.

    Raises:
        OSError: of the operating system, with a path.
    """
    if not hosts.is_first():
        return
    path = epath.Path(path)
    if not is_local(path):
        path.write_bytes(content)  # an object appears when its upload is complete
        return
    created = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f'.{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}'
    try:
        with named(path):
            with temporary.open('wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for folder in created:
        _sync(folder.parent)


@contextlib.contextmanager
def named(path: epath.PathLike) -> Iterator[None]:
    """Names `path` in an error of the system that names no file, as of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = os.fspath(path)
        raise


def rename(path: epath.Path, target: epath.Path) -> None:
    """Renames a file within its folder; on return the new name is on the disk."""
    if hosts.is_first():
        path.replace(target)
        _sync(target.parent)


def remove(path: epath.Path) -> None:
    """Removes a file."""
    if hosts.is_first():
        path.unlink()


def is_local(path: epath.PathLike) -> bool:
    """Returns whether a path is no bucket."""
    return '://' not in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path whose meaning no longer depends on the process; a bucket stays as it is.

    >>> os.fspath(absolute('gs://bucket/runs'))
    'gs://bucket/runs'
    """
    path = epath.Path(path).expanduser()
    return path.absolute() if is_local(path) else path


def remove_temporary(folder: epath.PathLike, below: bool = True, age: float = 0.0) -> None:
    """Removes what killed processes left half written; the caller holds the folder's lock.

    Args:
        folder: may not exist.
        below: whether to look into the folders below.
        age: in seconds; younger files stay. In a folder without a lock another process may be
            writing them: see `DAY`.
    """
    if not hosts.is_first():
        return
    oldest = time.time() - age
    for root, folders, names in os.walk(folder):  # nothing in a bucket, where writes are whole
        for name in names:
            path = os.path.join(root, name)
            if name.startswith('.') and name.endswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    if os.path.getmtime(path) <= oldest:
                        os.unlink(path)
        for name in folders:
            if _ORBAX_TEMPORARY in name and below:
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)
        folders[:] = [name for name in folders if below and _ORBAX_TEMPORARY not in name]


def write_text(path: epath.PathLike, content: str) -> None:
    """Writes `content` as UTF-8."""
    write_bytes(path, content.encode())


def as_json(value: Any) -> str:
    """Writes a value as one JSON document; a NaN raises a ValueError."""
    return json.dumps(value, indent=1, allow_nan=False) + '\n'


def as_jsonl(rows: list[dict[str, Any]]) -> str:
    """Writes one JSON object a line; a NaN raises a ValueError."""
    return ''.join(json.dumps(row, allow_nan=False) + '\n' for row in rows)


def as_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Writes rows as CSV; None is an empty cell.

    >>> as_csv([['a', 'b'], [0.5, None]])
    'a,b\\n0.5,\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def write_json(path: epath.PathLike, value: dict[str, Any]) -> None:
    """Writes one JSON object with its checksum; a NaN raises a ValueError."""
    write_text(path, as_json(value | {CHECKSUM: checksum(value)}))


def write_jsonl(path: epath.PathLike, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON object a line, and their checksum last; a NaN raises a ValueError."""
    write_text(path, as_jsonl([*rows, {CHECKSUM: checksum(rows)}]))


def write_npz(path: epath.PathLike, **arrays: np.ndarray) -> None:
    """Writes arrays by name as one uncompressed .npz; its comment is the checksum of the rest."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer, 'a') as archive:
        archive.comment = _MARK + bytes(64)
    content = buffer.getbuffer()
    content[-64:] = hashlib.sha256(content[:-64]).hexdigest().encode()
    write_bytes(path, content)


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """Reads one JSON object, without its checksum; one written by hand may have none.

    Raises:
        DamagedError: the file is missing, is no JSON object, or its content differs.
    """
    with reading(path):
        value = json.loads(epath.Path(path).read_bytes())
        if not isinstance(value, dict):
            raise ValueError('it is no JSON object')
        _check(value.pop(CHECKSUM, None), value)
    return value


def read_jsonl(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads one JSON object a line.

    Raises:
        DamagedError: the file is missing, a line is no JSON, or the content differs.
    """
    with reading(path):
        rows = [json.loads(line) for line in epath.Path(path).read_bytes().splitlines()]
        if not rows or set(rows[-1]) != {CHECKSUM}:
            raise ValueError('its last line, the checksum, is missing')
        _check(rows.pop()[CHECKSUM], rows)
    return rows


def read_npz(path: epath.PathLike, sealed: bool = True) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz.

    Args:
        path: the file.
        sealed: whether `write_npz` wrote it; False for an .npz of another program.

    Raises:
        DamagedError: the file is missing or no .npz, claims larger arrays than it holds, or its
            content differs.
    """
    with reading(path):
        content = epath.Path(path).read_bytes()
        head, end = memoryview(content)[:-64], content[-64:]
        if sealed and (
            head[-len(_MARK) :] != _MARK or hashlib.sha256(head).hexdigest().encode() != end
        ):
            raise ValueError('its content is not what was written')
        with HEADERS:
            _check_claims(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)


def check_packing(archive: zipfile.ZipFile) -> None:
    """Checks that an archive is packed as NumPy packs, which can be unpacked up to a limit.

    Raises:
        ValueError: it is packed otherwise, and the reader would unpack it whole.
    """
    for entry in archive.infolist():
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f'it is packed by method {entry.compress_type}, and not as np.savez_compressed does'
            )


def _check_claims(content: bytes) -> None:
    """Checks the sizes that an .npz claims against its own, before memory is taken for them.

    Raises:
        ValueError: an array is larger than what the archive can hold of it, is no array of numbers
            or texts, or has the name of another.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if len({*archive.namelist()}) < len(archive.namelist()):
            raise ValueError('two of its arrays have one name')
        check_packing(archive)
        for entry in archive.infolist():
            if not entry.filename.endswith('.npy'):
                raise ValueError(f'{entry.filename} is no array; take it out')
            with archive.open(entry) as member:
                shape, _, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
                claimed = member.tell() + math.prod(shape) * dtype.itemsize
            if dtype.hasobject:
                raise ValueError(f'{entry.filename} holds Python objects, which are not loaded')
            packed = entry.compress_type != zipfile.ZIP_STORED
            room = min(entry.file_size, len(content) * (_DEFLATED if packed else 1))
            if claimed > room:
                raise ValueError(
                    f'{entry.filename} claims {dtype} {list(shape)}, which is more than it holds'
                )


def checksum(value: Any) -> str:
    """Returns the SHA-256 of a value as JSON, whatever the order of its keys."""
    value = json.loads(json.dumps(value, allow_nan=False))  # its keys become texts before sorting
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _check(stored: str | None, value: Any) -> None:
    if stored is not None and stored != checksum(value):
        raise ValueError('its content is not what was written')


@contextlib.contextmanager
def reading(path: epath.PathLike) -> Iterator[None]:
    """Turns what a damaged file makes a reader raise, of many types, into one line."""
    try:
        yield
    except PermissionError:
        raise
    except MemoryError as error:
        raise UserError(f'{path} needs more memory than there is ({error})') from error
    except Exception as error:
        reason = (str(error).splitlines() or [''])[0] or type(error).__name__
        raise DamagedError(f'cannot read {path} ({reason})') from error


def _sync(folder: epath.Path) -> None:
    """Brings the names in a folder to the disk."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
