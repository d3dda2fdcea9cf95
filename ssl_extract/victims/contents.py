"""Hashes of inputs by their content.

A victim is asked images as floats, k / 255 with the rounding of the hardware, and a file may hold
bytes. Floats are therefore recognized as bytes where bytes can be meant: in an image, and in a file
of bytes. All other inputs are recognized by every bit of their float32 or int32 numbers.
"""

import jax.numpy as jnp
import numpy as np

from ssl_extract import data
from ssl_extract.errors import UserError

DIGITS = 32  # of a hash
_ROUNDING = np.float32(2**-22)  # by how much, as a share, a float32 k / 255 may be off
# How decoders make floats of stored numbers: the factor between them, the bounds of the numbers,
# the rounding, and the type under which the numbers are hashed.
FORMS = {
    'images': (255, (0, 255), _ROUNDING, np.uint8),
    'tokens': (1, (-1, 2**24 - 1), np.float32(0), np.int32),
    'waves': (2**15, (-(2**15), 2**15 - 1), np.float32(0), np.int32),
}


def content_hashes(inputs: np.ndarray) -> np.ndarray:
    """Returns a hash of each input as a victim is asked it: 32 hexadecimal digits, bytes [N].

    An image [H, W, C] has one hash, as it is stored in uint8 and as floats in [0, 1]. Of any other
    input, every bit of the float32 or int32 numbers counts.

    >>> stored = np.array([0, 51, 7, 255], np.uint8).reshape(1, 2, 2, 1)
    >>> bool(content_hashes(stored) == content_hashes(stored / 255))
    True

    Args:
        inputs: [N, ...], as a data set stores them or as encoders see them.

    Raises:
        UserError: the inputs are no real numbers [N, ...], or hold whole numbers outside of int32.
    """
    inputs = _as_asked(np.asarray(inputs))
    hashes = data.hashes(inputs)
    if inputs.ndim != 4:
        return hashes
    of_bytes = hashes_as_stored(inputs, 'images')
    return np.where(of_bytes == b'', hashes, of_bytes)


def hashes_as_stored(inputs: np.ndarray, form: str) -> np.ndarray:
    """Returns the hashes of the numbers whose floats the inputs are, bytes [N]; b'' of others.

    >>> clips = np.array([[16384, -32768]], np.int16)
    >>> bool((hashes_as_stored(clips / np.float32(2**15), 'waves') == content_hashes(clips)).all())
    True

    Args:
        inputs: [N, ...], as encoders see them.
        form: of the stored numbers, one of `FORMS`.
    """
    scale, (low, high), rounding, dtype = FORMS[form]
    hashes = np.zeros(len(inputs), f'S{DIGITS}')
    floats = _as_asked(inputs)
    if floats.dtype != np.float32:
        return hashes
    with np.errstate(over='ignore'):
        scaled = floats * np.float32(scale)
    numbers = np.rint(scaled).clip(low, high)
    whole = _each(np.abs(scaled - numbers) <= np.abs(numbers) * rounding)
    hashes[whole] = data.hashes(numbers[whole].astype(dtype))
    return hashes


def _as_asked(inputs: np.ndarray) -> np.ndarray:
    """Returns inputs [N, ...] as a victim is asked them: uint8, float32 without -0, or int32.

    Raises:
        UserError: the inputs are of another type, or outside of int32.
    """
    if jnp.issubdtype(inputs.dtype, jnp.floating) and inputs.ndim:
        with np.errstate(over='ignore'):
            return inputs.astype(np.float32) + np.float32(0)
    if inputs.dtype.kind not in 'biu' or not inputs.ndim:
        raise UserError(
            f'inputs are {inputs.dtype} {list(inputs.shape)}; they must be real numbers [N, ...]'
        )
    if inputs.dtype == np.uint8:
        return inputs
    asked = inputs.astype(np.int32)
    same = _each(asked == inputs)
    if not same.all():
        row = np.argmin(same)
        value = inputs[row][asked[row] != inputs[row]].flat[0]
        raise UserError(f'row {row} of the inputs holds {value}; whole numbers are int32')
    return asked


def _each(flags: np.ndarray) -> np.ndarray:
    """Returns whether all flags [N, ...] of each input hold, bool[N]."""
    return flags.all(axis=tuple(range(1, flags.ndim)))
