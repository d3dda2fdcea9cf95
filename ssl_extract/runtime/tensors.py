"""Arrays by name and their description, in one .safetensors file."""

import hashlib
import json
import os
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from ssl_extract.runtime import files

_KEY = 'about'  # of the description, in the header of the file


def write(path: epath.PathLike, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes arrays and a description, with the SHA-256 of both, whole or not at all.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + '/a.safetensors'
    >>> write(path, {'weights': np.ones(3, np.float32)}, {'seed': 1})
    >>> read(path)[1]['seed']
    1

    Args:
        path: the file; its folder is made.
        arrays: of any shapes and number types, by name.
        about: the description, as JSON.
    """
    sealed = about | {files.CHECKSUM: _seal(arrays, about)}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {_KEY: json.dumps(sealed, allow_nan=False)}
    files.write_bytes(path, safetensors.numpy.save(whole, header))


def read(path: epath.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write` wrote.

    Args:
        path: a file on a local disk.

    Returns:
        The arrays, and the description with its checksum under 'sha256'.

    Raises:
        DamagedError: the file is missing, cannot be parsed, or its content differs.
    """
    with files.reading(path), safetensors.safe_open(os.fspath(path), 'numpy') as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = file.metadata() or {}
        if _KEY not in header:
            raise ValueError('it holds arrays without a description: another program wrote it')
        about = json.loads(header[_KEY])
        if about[files.CHECKSUM] != _seal(arrays, about):
            raise ValueError('its content is not what was written')
    return arrays, about


def _seal(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> str:
    """Returns the SHA-256 of arrays and description, without the checksum itself."""
    described = {name: value for name, value in about.items() if name != files.CHECKSUM}
    digest = hashlib.sha256(files.checksum(described).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f'{name} {array.dtype} {array.shape} '.encode() + array.tobytes())
    return digest.hexdigest()
