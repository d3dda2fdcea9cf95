"""Whole files, written atomically, in a folder or a bucket.

A file appears under its name complete or not at all: it is written under a temporary name and then
renamed. Nothing is edited in place.
"""

import io
import json
import uuid
import zipfile
import zlib
from typing import Any

import numpy as np
from etils import epath

from ssl_extract.errors import UserError


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes `content` to `path`, creating its folder."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f'.{path.name}.{uuid.uuid4().hex[:8]}.tmp'
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: epath.PathLike, content: str) -> None:
    """Writes `content` as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes one JSON document; a NaN raises a ValueError."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def write_jsonl(path: epath.PathLike, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON object a line; a NaN raises a ValueError."""
    write_text(path, ''.join(json.dumps(row, allow_nan=False) + '\n' for row in rows))


def write_npz(path: epath.PathLike, **arrays: np.ndarray) -> None:
    """Writes arrays by name as one uncompressed .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_json(path: epath.PathLike) -> Any:
    """Reads one JSON document.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(epath.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}: {_first_line(error)}') from error


def read_jsonl(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads one JSON object a line."""
    return [json.loads(line) for line in epath.Path(path).read_text().splitlines()]


def read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz.

    Raises:
        UserError: the file is missing, truncated or not an .npz; the message names the file.
    """
    try:
        with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'cannot read {path}: {_first_line(error)}') from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
