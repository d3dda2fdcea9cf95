"""Bodies of requests and answers: JSON and npz."""

import io
import json
import math
import zipfile
from typing import Any, NamedTuple

import numpy as np
from starlette.exceptions import HTTPException

from ssl_extract.runtime import files
from ssl_extract.victims.wire import JSON, NPZ, holds_numbers

HEADER_BYTES = 65_536  # of a body, beside the numbers
JSON_BYTES = 28  # of one number: sign, 17 digits, exponent, comma, space
_MEMBER = 'inputs.npy'
_DTYPES = ('uint8', 'float32')
_VERSION = (1, 0)  # of the format of an array; later ones have headers of up to 4 GB
_OUTSIDE = 1e-3  # of the range of images: views are computed with rounding


class Reply(NamedTuple):
    """The answer to one request.

    Attributes:
        answers: float32 [B, D], zeros where refused.
        granted: bool [B].
        remaining: queries of the budget that are left after the request; None is no limit.
    """

    answers: np.ndarray
    granted: np.ndarray
    remaining: int | None


def largest(kind: str, shape: tuple[int, ...], most: int) -> int:
    """Returns the bytes of the largest body with `most` inputs of a shape.

    >>> largest(NPZ, (8, 8, 3), 1000)
    833536
    """
    return HEADER_BYTES + most * math.prod(shape) * (JSON_BYTES if kind == JSON else 4)


def read(kind: str, body: bytes, shape: tuple[int, ...], most: int) -> np.ndarray:
    """Reads the inputs of a request as the victim sees them, float32 [B, ...].

    uint8 becomes a float in [0, 1]; floats stay as they are.

    Args:
        kind: `JSON` or `NPZ`.
        body: of the request.
        shape: of one input.
        most: inputs in one request.

    Raises:
        HTTPException: 400 for a body that holds no such inputs, 413 for more than `most`.
    """
    inputs = _read_json(body) if kind == JSON else _read_npz(body, shape, most)
    if inputs.ndim != 1 + len(shape) or inputs.shape[1:] != shape or not len(inputs):
        raise HTTPException(
            400, f'inputs are {list(inputs.shape)}; send [B, {", ".join(map(str, shape))}], B >= 1'
        )
    if len(inputs) > most:
        raise HTTPException(413, f'{len(inputs)} inputs in one request; send at most {most}')
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float32) / 255
    if not np.isfinite(inputs).all():
        raise HTTPException(400, 'inputs hold NaN, infinity or numbers too large for float32')
    if len(shape) == 3 and shape[-1] == 3:
        low, high = float(inputs.min()), float(inputs.max())
        if low < -_OUTSIDE or high > 1 + _OUTSIDE:
            raise HTTPException(
                400, f'images have values of {low:.4g} to {high:.4g}; send floats from 0 to 1'
            )
    return inputs


def write(kind: str, reply: Reply) -> bytes:
    """Writes the answer to a request.

    Args:
        kind: `JSON` or `NPZ`.
        reply: the answer.
    """
    billed = int(reply.granted.sum())
    if kind == NPZ:
        buffer = io.BytesIO()
        remaining = -1 if reply.remaining is None else reply.remaining
        np.savez(
            buffer,
            answers=reply.answers,
            granted=reply.granted,
            billed=np.int64(billed),
            remaining=np.int64(remaining),
        )
        return buffer.getvalue()
    rows = zip(reply.answers.tolist(), reply.granted.tolist(), strict=True)
    value = {
        'answers': [row if granted else None for row, granted in rows],
        'granted': reply.granted.tolist(),
        'billed': billed,
        'remaining': reply.remaining,
    }
    return json.dumps(value, allow_nan=False).encode()


def _read_json(body: bytes) -> np.ndarray:
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise HTTPException(400, 'the body is no JSON') from None
    if not isinstance(value, dict) or value.keys() != {'inputs', 'dtype'}:
        raise HTTPException(400, 'send {"inputs": [[...], ...], "dtype": "uint8" or "float32"}')
    dtype = _dtype_of(value['dtype'])
    if not holds_numbers(value['inputs']):
        raise HTTPException(400, f'inputs are not {dtype}: send lists of numbers')
    try:
        numbers = np.array(value['inputs'])
    except (ValueError, OverflowError, RecursionError):  # rows of several lengths, or too deep
        raise HTTPException(400, 'inputs are no array: rows differ in length') from None
    if numbers.dtype.kind not in ('iu' if dtype == np.uint8 else 'iuf'):
        raise HTTPException(400, f'inputs are {numbers.dtype} and not {dtype}')
    if dtype == np.uint8 and numbers.size and not 0 <= numbers.min() <= numbers.max() <= 255:
        raise HTTPException(400, 'inputs of uint8 are whole numbers from 0 to 255')
    with np.errstate(over='ignore'):
        return numbers.astype(dtype)


def _refuse_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity, which are no JSON


def _dtype_of(name: Any) -> np.dtype:
    if name not in _DTYPES:
        raise HTTPException(400, 'dtype is another; send "uint8" or "float32"')
    return np.dtype(name)


def _read_npz(body: bytes, shape: tuple[int, ...], most: int) -> np.ndarray:
    """Reads the array `inputs` of an npz: nothing is unpickled, and no more is unpacked than fits.

    The sizes in the archive and in the array's header are claims. The array's header is read first,
    and then exactly the bytes of the array that it describes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if archive.namelist() != [_MEMBER]:
                raise HTTPException(400, 'an npz holds one array, inputs: np.savez(f, inputs=x)')
            files.check_packing(archive)
            with archive.open(_MEMBER) as file:
                return _read_npy(file, shape, most)
    except HTTPException:
        raise
    except Exception:  # the libraries raise errors of many types for damaged archives
        raise HTTPException(400, 'the body is no npz: np.savez(f, inputs=x) makes one') from None


def _read_npy(file: Any, shape: tuple[int, ...], most: int) -> np.ndarray:
    if np.lib.format.read_magic(file) != _VERSION:
        raise ValueError('the array is of another version')
    with files.HEADERS:
        claimed, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype not in map(np.dtype, _DTYPES):
        raise HTTPException(400, f'inputs are {dtype}; send uint8 or float32')
    count = math.prod(claimed)
    if count > most * math.prod(shape):
        raise HTTPException(413, f'inputs are {list(claimed)}; send at most {most} in one request')
    content = file.read(max(0, count) * dtype.itemsize)
    if len(content) != count * dtype.itemsize or file.read(1):
        raise ValueError('the array has another length')
    return np.frombuffer(content, dtype).reshape(claimed, order='F' if fortran else 'C')
