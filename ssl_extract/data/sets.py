"""The `Dataset` type and the hashes of its content."""

import hashlib
from typing import NamedTuple

import jax
import numpy as np

from ssl_extract import augment
from ssl_extract.data import decoding
from ssl_extract.data.content import hash_rows
from ssl_extract.data.records import Records, take
from ssl_extract.errors import UserError
from ssl_extract.padding import PADDING, STORED_TOKEN

_DECODED = 4096  # inputs decoded at a time
_TOKENS = 2**24  # float32 holds every whole number below


class Dataset(NamedTuple):
    """Inputs as they are stored.

    Attributes:
        inputs: [N, ...] of any shape and number type: uint8 images [N, H, W, 3], int16 waveforms
            [N, T], int32 tokens [N, T], float32 vectors [N, D]; an array in memory, or `Records`.
        labels: int32 [N], or None if the set, or an input of the set, has none.
        num_classes: of the labels; 0 without labels.
        name: the set and the slice, as in 'cifar10/train[:20000]'.
        decode: the name of the decoder from stored inputs to what encoders see (`DECODERS`); '' for
            'images' of uint8 and 'identity' of floats.
    """

    inputs: np.ndarray | Records
    labels: np.ndarray | None = None
    num_classes: int = 0
    name: str = 'data'
    decode: str = ''


def decoder(dataset: Dataset) -> decoding.Decoder:
    """Returns the set's decoder, `stored [B, ...] -> inputs [B, ...]`; always the same object.

    >>> vectors = Dataset(np.ones((3, 16), np.float32))
    >>> decoder(vectors)(vectors.inputs).shape
    (3, 16)

    Raises:
        UserError: the name is unknown, or is '' and the stored type has no default decoder.
    """
    return decoding.make(dataset.decode, dataset.inputs.dtype, dataset.name)


def checked(dataset: Dataset) -> Dataset:
    """Returns the set as JAX holds it, with the name of the decoder written out.

    64-bit numbers become 32-bit numbers, and labels int32. Labels become None if any is negative,
    which means "no label" in TFDS.

    >>> checked(Dataset(np.ones((3, 16)), np.array([0, 1, 1]), 2)).decode
    'identity'

    Raises:
        UserError: there is no input, JAX does not have the number type, values are too large or
            not finite, labels are not [N] integers in [0, num_classes), there is no decoder, or
            inputs do not have the type, the padding or the numbers of the decoder; the message
            names the set.
    """
    inputs, name = dataset.inputs, dataset.name
    if not isinstance(inputs, Records):
        inputs = np.asarray(inputs)
    if inputs.ndim < 1 or inputs.size == 0:
        raise UserError(f'{name}: inputs must be [N, ...] with N >= 1, got {list(inputs.shape)}')
    if not isinstance(inputs, Records):
        inputs = _as_jax_holds_them(inputs, name)
    decode = decoding.name_of(dataset.decode, inputs.dtype, name)
    _check_padding(inputs, decoding.padding_of(decode), f'{name}: decode={decode!r}')
    if decode == 'tokens':
        _check_tokens(inputs, name)
    labels = None if dataset.labels is None else np.asarray(dataset.labels)
    if labels is not None and (
        labels.shape != (len(inputs),) or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise UserError(
            f'{name}: labels must be {len(inputs)} integers, one for each input, '
            f'got {labels.dtype} {list(labels.shape)}'
        )
    if labels is None or labels.min() < 0:
        return Dataset(inputs, None, 0, name, decode)
    if labels.max() >= dataset.num_classes:
        raise UserError(
            f'{name}: num_classes={dataset.num_classes}, but a label is {labels.max()}: write '
            f'{labels.max() + 1} or more'
        )
    if labels.max() > np.iinfo(np.int32).max:
        raise UserError(f'{name}: a label is {labels.max()}: number the classes from 0')
    return Dataset(inputs, labels.astype(np.int32), int(dataset.num_classes), name, decode)


def _as_jax_holds_them(inputs: np.ndarray, name: str) -> np.ndarray:
    if inputs.dtype.kind not in 'biuf':
        raise UserError(f'{name}: inputs are integers or floats, got {inputs.dtype}')
    dtype = jax.dtypes.canonicalize_dtype(inputs.dtype)
    if dtype.kind in 'iu' and dtype != inputs.dtype:
        bounds = np.iinfo(dtype)
        if inputs.min() < bounds.min or inputs.max() > bounds.max:
            raise UserError(f'{name}: inputs {inputs.dtype} hold numbers too large for {dtype}')
    with np.errstate(over='ignore'):
        inputs = inputs.astype(dtype, copy=False)
    if dtype.kind == 'f':
        finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
        if not finite.all():
            raise UserError(
                f'{name}: {np.sum(~finite)} of {len(inputs)} inputs hold NaN or infinity '
                f'(first: row {np.argmin(finite)})'
            )
    return inputs


def _check_padding(inputs: np.ndarray, padding: np.generic | None, name: str) -> None:
    """Checks that inputs [N, T] have the type of `padding`, and padding behind their end only."""
    if padding is None:
        return
    if inputs.ndim != 2 or inputs.dtype != padding.dtype:
        raise UserError(
            f'{name} takes {padding.dtype} [N, T], got {inputs.dtype} {list(inputs.shape)}'
        )
    for start in range(0, len(inputs), _DECODED):
        held = inputs[start : start + _DECODED] != padding
        ends = np.count_nonzero(held, axis=1)
        wrong = (ends == 0) | (held != (np.arange(inputs.shape[1]) < ends[:, None])).any(axis=1)
        if wrong.any():
            row, value = start + np.argmax(wrong), padding.item()
            raise UserError(
                f'{name}: row {row} has {value} before its end, or nothing else: {value} is '
                'padding, which stands behind the end of an input alone'
            )


def _check_tokens(inputs: np.ndarray, name: str) -> None:
    """Checks that tokens [N, T] are numbers that float32 holds exactly."""
    wrong = ((inputs < STORED_TOKEN) | (inputs >= _TOKENS)).any(axis=1)
    if wrong.any():
        raise UserError(
            f'{name}: tokens are numbers from 0 to {_TOKENS - 1}, with {STORED_TOKEN} behind them; '
            f'{wrong.sum()} of {len(wrong)} rows hold others (first: row {np.argmax(wrong)})'
        )


def require_labels(dataset: Dataset) -> np.ndarray:
    """Returns the labels, int32 [N].

    Raises:
        UserError: the set has no labels.
    """
    if dataset.labels is None:
        raise UserError(f'{dataset.name} has no labels: choose a labeled set or split')
    return dataset.labels


def check_images(dataset: Dataset, user: str) -> None:
    """Checks that images lie in [0, 1] once they are decoded; other inputs pass.

    Args:
        dataset: the set.
        user: what takes images in [0, 1], for an error message.

    >>> check_images(Dataset(np.ones((2, 8, 8, 3), np.float32)), 'flip')

    Raises:
        UserError: an image has a value below 0 or above 1; the message names the set.
    """
    decode = decoder(dataset)
    if decode is decoding.images or dataset.inputs.ndim < 4:
        return
    for start in range(0, len(dataset.inputs), _DECODED):
        decoded = np.asarray(decode(dataset.inputs[start : start + _DECODED]))
        if decoded.ndim == 4 and not (decoded.min() >= 0 and decoded.max() <= 1):
            raise UserError(
                f'{dataset.name} has values of {decoded.min():.4g} to {decoded.max():.4g}, and '
                f'{user} takes images in [0, 1]: store them as uint8, or divided by their largest '
                'value'
            )


def check_kind(dataset: Dataset, kind: str, user: str) -> None:
    """Checks that inputs are what an augmentation takes; see `augment.takes`.

    Args:
        dataset: the set.
        kind: 'images', 'waves' or 'tokens'; '' is any.
        user: the augmentation, for an error message.

    >>> check_kind(Dataset(np.array([[2, 7, -1]]), decode='tokens'), 'tokens', 'token_swap')

    Raises:
        UserError: the inputs are of another kind, or of other values; the message names the set.
    """
    decode = decoding.name_of(dataset.decode, dataset.inputs.dtype, dataset.name)
    known = decode if decode in ('images', 'waves', 'tokens') else ''
    if kind and kind != known and (known or kind == 'tokens'):
        advice = f"write {augment.fitting(known)}, or 'none'" if known else "write 'none'"
        raise UserError(
            f'{dataset.name} has {known or "no tokens"}, and {user} takes {kind}: {advice}'
        )
    if kind == 'waves':
        check_waves(dataset, user)
    elif kind == 'images':
        check_images(dataset, user)


def check_unpadded(dataset: Dataset, user: str) -> None:
    """Checks that inputs may have any numbers: not so tokens and padded waveforms.

    Args:
        dataset: the set.
        user: what changes numbers, for an error message.

    Raises:
        UserError: the decoder of the set has padding; the message names the set.
    """
    if decoding.padding_of(dataset.decode) is not None:
        raise UserError(
            f'{user} changes single numbers, and {dataset.name} has {dataset.decode} with padding: '
            "write plan 'repeat(m=4)', or 'views(m=4)'"
        )


def check_waves(dataset: Dataset, user: str) -> None:
    """Checks that waveforms lie in [-1, 1] once they are decoded, with -1 behind their end.

    Args:
        dataset: the set.
        user: what takes waveforms, for an error message.

    >>> check_waves(Dataset(np.array([[0.5, -0.25, -1.0]], np.float32)), 'gain')

    Raises:
        UserError: inputs are no [N, T], or a value is another; the message names the set.
    """
    decode = decoder(dataset)
    if decode is decoding.waves:
        return
    for start in range(0, len(dataset.inputs), _DECODED):
        decoded = np.asarray(decode(dataset.inputs[start : start + _DECODED]))
        if not (decoded.min() >= PADDING and decoded.max() <= 1):
            raise UserError(
                f'{dataset.name} has values of {decoded.min():.4g} to {decoded.max():.4g}, and '
                f"{user} takes waveforms in [-1, 1]: store them as int16, decode='waves', or "
                'divided by their largest value'
            )
        _check_padding(decoded, decoded.dtype.type(PADDING), dataset.name)


def hashes(inputs: np.ndarray | Records, padding: np.generic | None = None) -> np.ndarray:
    """Returns a hash of each input's content, type and shape: 32 hexadecimal digits, bytes [N].

    Args:
        inputs: [N, ...].
        padding: the value behind the end of an input [T], which does not count, so that the hash is
            the same in a longer row; None counts all.

    >>> a, b, c = hashes(np.array([[0, 1], [0, 2], [0, 1]], np.uint8))
    >>> a == c, a == b, len(a)
    (True, False, 32)
    """
    return inputs.contents() if isinstance(inputs, Records) else hash_rows(inputs, padding)


def digest(dataset: Dataset) -> str:
    """Returns a hash of the whole content: 16 hexadecimal digits.

    The content is the inputs and labels in order, the number of classes and the name of the
    decoder. Of `Records` the hashes of the inputs count.
    """
    decode = decoding.name_of(dataset.decode, dataset.inputs.dtype, dataset.name)
    whole = hashlib.blake2b(f'{dataset.num_classes} {decode} '.encode(), digest_size=8)
    inputs = dataset.inputs
    for array in (inputs.contents() if isinstance(inputs, Records) else inputs, dataset.labels):
        if array is not None:
            whole.update(f'{array.dtype.str}{array.shape}'.encode())
            whole.update(np.ascontiguousarray(array))
    return whole.hexdigest()


def distinct(dataset: Dataset) -> Dataset:
    """Returns the set without repetitions: the first occurrence of each input, in order."""
    _, first = np.unique(hashes(dataset.inputs), return_index=True)
    keep = np.sort(first)
    labels = None if dataset.labels is None else dataset.labels[keep]
    return dataset._replace(inputs=take(dataset.inputs, keep), labels=labels)
