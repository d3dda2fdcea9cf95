"""Clips of sound as rows of one array: int16, mono, of one sampling rate."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from ssl_extract import padding
from ssl_extract.checks import check_memory
from ssl_extract.errors import UserError
from ssl_extract.ranges import Range

Rate = Annotated[int, Range(1, 2**20)]  # in Hz
Seconds = Annotated[float, Range(above=0, most=2**16)]
_LOUDEST = 2**15 - 1  # of stored samples; the value below -32767 is padding


def stored(samples: np.ndarray, rate: int, to_rate: int) -> np.ndarray:
    """Resamples a clip and rounds it to int16, clipped to -32767..32767.

    SciPy's polyphase filter resamples: SciPy is there in any case, and the same samples come out on
    every machine. A clip of `to_rate` keeps its int16 samples.

    Args:
        samples: float [n] in [-1, 1].
        rate: of the samples, in Hz.
        to_rate: of the result, in Hz.

    Returns:
        int16 [new_length(n, rate, to_rate)].

    >>> stored(np.array([0.0, 0.5, -1.0]), 8_000, 8_000).tolist()
    [0, 16384, -32767]
    """
    if rate != to_rate:
        from scipy.signal import resample_poly  # takes a second to import

        common = math.gcd(rate, to_rate)
        samples = resample_poly(samples.astype(np.float64), to_rate // common, rate // common)
    return np.clip(np.rint(samples * 2.0**15), -_LOUDEST, _LOUDEST).astype(np.int16)


def new_length(length: int, rate: int, to_rate: int) -> int:
    """Returns the samples of a resampled clip of `length` samples.

    >>> new_length(1_001, 44_100, 16_000)
    364
    """
    return -(-length * to_rate // rate)


def width_of(lengths: Sequence[int], to_rate: int, seconds: float | None) -> int:
    """Returns the samples of a row: of the longest clip, or of `seconds`.

    Args:
        lengths: of all clips of a set, resampled, so that all its splits have rows of one width.
        to_rate: in Hz.
        seconds: the longest part of a clip; None keeps clips whole.

    Raises:
        UserError: `seconds` is less than one sample.
    """
    if seconds is None:
        return max(lengths)
    width = round(seconds * to_rate)
    if width < 1:
        raise UserError(f'seconds={seconds}: less than a sample of {to_rate} Hz: write more')
    return width


def check_rows(lengths: Sequence[int], width: int) -> None:
    """Raises UserError where clips of these lengths do not fit into memory as rows of `width`."""
    count = sum(-(-length // width) for length in lengths)
    check_memory(f'{count:,} rows of {width:,} samples', count * width * 2)


def rows_of(
    clips: Sequence[np.ndarray], labels: np.ndarray | None, width: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pads clips to rows; a clip longer than a row is cut into equal parts, one behind the other.

    A clip has as few parts as possible, equal to a sample, so that no part is a short remainder and
    nothing is left out.

    Args:
        clips: int16, one array each.
        labels: int[N], a class for each clip; None without labels.
        width: samples of a row.

    Returns:
        int16 [M, width] and the labels of the M rows.

    >>> rows, labels = rows_of([np.ones(3, np.int16), np.ones(1, np.int16)], np.array([4, 7]), 2)
    >>> rows.tolist(), labels.tolist()
    ([[1, 1], [1, -32768], [1, -32768]], [4, 4, 7])
    """
    parts = [np.array_split(clip, -(-len(clip) // width)) for clip in clips]
    rows = np.full((sum(map(len, parts)), width), padding.STORED_WAVE, np.int16)
    for row, part in zip(rows, (part for cut in parts for part in cut), strict=True):
        row[: len(part)] = part
    return rows, None if labels is None else np.repeat(labels, [len(cut) for cut in parts])
