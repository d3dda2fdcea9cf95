"""The format of requests to a service and of its replies, JSON or npz.

    POST URL/v1/answers   {"inputs": [...], "dtype": "uint8"}   or an .npz with `inputs`
    reply                 {"answers": [[...], null], "granted": [true, false], "billed": 1, ...}

A page of the docs describes the format for those who write a service.
"""

import io
import json
import zipfile
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from ssl_extract.errors import UserError, one_line
from ssl_extract.runtime import files
from ssl_extract.victims.answers import check_answers

JSON, NPZ = 'application/json', 'application/x-npz'
TYPES = {'json': JSON, 'npz': NPZ}
_GRID = 1e-4  # how far a float may be from a whole number of 255ths to be sent as uint8
_NUMBERS = (int, float)  # of JSON; a bool is no int here
_SHOWN = 120  # characters of a reply in a message
_LONGEST_NAME = 500  # characters of what a service calls itself


class Reply(NamedTuple):
    """A service's reply.

    Attributes:
        answers: float32[B, D], zeros where refused.
        granted: bool[B].
        billed: queries that the service billed for the request.
    """

    answers: np.ndarray
    granted: np.ndarray
    billed: int


class ReplyError(UserError):
    """A reply that is not of the format; nothing of it can be used."""


def stored(inputs: np.ndarray, dtype: str) -> np.ndarray:
    """Returns inputs as they are sent.

    >>> stored(np.array([[0.2, 1.0]], np.float32), 'uint8').tolist()
    [[51, 255]]

    Args:
        inputs: [B, ...], as encoders see them.
        dtype: 'float32', or 'uint8' for images in [0, 1], as 255ths.

    Raises:
        UserError: the inputs are not exact in that type.
    """
    if dtype == 'float32':
        sent, back = inputs.astype(np.float32), inputs
        exact = bool((sent == back).all())
    else:
        scaled = np.asarray(inputs, np.float64) * 255
        sent = np.rint(scaled).clip(0, 255).astype(np.uint8)
        exact = bool((np.abs(scaled - sent) <= _GRID).all())
    if not exact:
        other = 'uint8' if dtype == 'float32' else 'float32'
        raise UserError(
            f'victim.source: http(dtype={dtype!r}): the inputs are {inputs.dtype} that {dtype} '
            f'cannot hold exactly, so nothing was sent; write dtype={other!r}'
        )
    return sent


def pack(inputs: np.ndarray, body: str) -> bytes:
    """Returns the body of a request: the same bytes for the same inputs.

    Args:
        inputs: uint8 or float32 [B, ...].
        body: 'json' or 'npz'.
    """
    if body == 'json':
        fields = {'inputs': inputs.tolist(), 'dtype': inputs.dtype.name}
        return json.dumps(fields, separators=(',', ':')).encode()
    buffer = io.BytesIO()
    np.savez(buffer, inputs=inputs)
    return buffer.getvalue()


def unpack(
    content: bytes, kind: str, *, count: int, dim: int, field: str = '', most: int = 2**31
) -> Reply:
    """Reads a reply.

    >>> content = b'{"answers": [[1, 2], null], "granted": [true, false], "billed": 1}'
    >>> unpack(content, JSON, count=2, dim=2).answers.tolist()
    [[1.0, 2.0], [0.0, 0.0]]

    Args:
        content: the body.
        kind: the content type, with or without parameters.
        count: B, inputs that were sent.
        dim: D, the width of an answer.
        field: of a plain service, the field of the answers, which are all granted; '' is the format
            of this package.
        most: bytes that the arrays of an .npz may have.

    Raises:
        ReplyError: the reply is another; one line.
    """
    kind = _plain(kind)
    if kind not in TYPES.values():
        raise ReplyError(f'it answered with {kind!r} and not with JSON or npz: {shown(content)!r}')
    try:
        fields = json.loads(content) if kind == JSON else _arrays(content, most)
        if not field:
            return _read(fields, count, dim)
        answers = check_answers('', _entries(_field(fields, field), field), count, dim)
        return Reply(answers, np.ones(count, bool), count)
    except ReplyError:
        raise
    except UserError as error:
        raise ReplyError(str(error).removeprefix('victim : ')) from error
    except Exception as error:  # of many types, as readers of broken files raise; of memory too
        raise ReplyError(f'its reply is no {kind}: {shown(str(error))}') from error


def read_object(content: bytes, kind: str = JSON) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        content: the body of a reply.
        kind: its content type.

    Raises:
        ReplyError: the content is none.
    """
    if _plain(kind) != JSON:
        raise ReplyError(f'it answered with {_plain(kind)!r} and not with JSON: {shown(content)!r}')
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f'it answered with no JSON: {shown(content)!r}') from error
    if not isinstance(value, dict):
        raise ReplyError(f'it answered with no JSON object: {shown(content)!r}')
    return value


def holds_numbers(value: Any, kinds: Collection[type] = _NUMBERS) -> bool:
    """Tells whether a JSON value is a list of numbers, or of such lists, and of nothing else.

    It is asked before NumPy, which makes every entry as wide as the longest text among them.

    >>> holds_numbers([[1, 2.5]]), holds_numbers([1, 'a']), holds_numbers([True])
    (True, False, False)

    Args:
        value: what `json` made.
        kinds: the types of a number.
    """
    todo = [[value]]
    while todo:
        entries = todo.pop()
        types = set(map(type, entries))
        if types == {list}:
            todo += entries
        elif not types <= {*kinds}:
            return False
    return isinstance(value, list)


def is_name(value: Any) -> bool:
    """Tells whether a value is a text that a service may call itself: one printable line.

    >>> is_name('tiles  1'), is_name('tiles\\n1'), is_name('1' * 501)
    (True, False, False)
    """
    return isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable()


def shown(content: bytes | str) -> str:
    """Returns the beginning of a text that a service sent, in one printable line."""
    text = content[:1000].decode('utf-8', 'replace') if isinstance(content, bytes) else content
    return one_line(text)[:_SHOWN]


def _plain(kind: str) -> str:
    """Returns a content type without its parameters."""
    return shown(kind.partition(';')[0].strip().lower())


def _read(fields: Any, count: int, dim: int) -> Reply:
    granted = _array(fields, 'granted', [bool])
    if granted.shape != (count,) or granted.dtype != bool:
        raise ReplyError(f'"granted" must hold true or false for each of {count} inputs')
    answers = _field(fields, 'answers')
    if isinstance(answers, list):
        if [row is not None for row in answers] != granted.tolist():
            raise ReplyError(
                f'"answers" must have a row for each of {count} inputs, null where it is not '
                f'granted, and it has {len(answers)}'
            )
        rows = [row for row in answers if row is not None]
        answers = _entries(rows, 'answers') or np.zeros((0, dim))
    else:
        answers = _array(fields, 'answers')
        if answers.shape[:1] != (count,):
            raise ReplyError(f'"answers" are {list(answers.shape)}, of {count} inputs')
        answers = answers[granted]
    whole = np.zeros((count, dim), np.float32)
    whole[granted] = check_answers('', answers, int(granted.sum()), dim)
    return Reply(whole, granted, _whole(fields, 'billed'))


def _field(fields: Any, name: str) -> Any:
    if not isinstance(fields, dict) or name not in fields:
        has = ', '.join(map(shown, fields)) if isinstance(fields, dict) else type(fields).__name__
        raise ReplyError(f'its reply has no {name!r}: it has {shown(has) or "nothing"}')
    return fields[name]


def _array(fields: dict[str, Any], name: str, kinds: Collection[type] = _NUMBERS) -> np.ndarray:
    value = _entries(_field(fields, name), name, kinds)
    try:
        return np.asarray(value)
    except ValueError:  # lists of several lengths
        raise ReplyError(f'{name!r} is no array') from None


def _entries(value: Any, name: str, kinds: Collection[type] = _NUMBERS) -> Any:
    """Returns a value, after a look at the entries of a list."""
    if isinstance(value, list) and not holds_numbers(value, kinds):
        words = ' or '.join(kind.__name__ for kind in kinds)
        raise ReplyError(f'{name!r} is no array of {words}')
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = _array(fields, name)
    if value.shape != () or value.dtype.kind not in 'iu' or value < 0:
        raise ReplyError(f'{name!r} must be a whole number of at least 0')
    return int(value)


def _arrays(content: bytes, most: int) -> dict[str, np.ndarray]:
    """Reads the arrays of an .npz, after their sizes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files.check_packing(archive)
        if sum(entry.file_size for entry in archive.infolist()) > most:
            raise ValueError('its arrays are too large')
    with files.HEADERS, np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
