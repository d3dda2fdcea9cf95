"""Sets of speech: `speech_folder(path=...)` and `speech_npz(path=...)`.

Rows are waveforms, int16 [N, T] with padding behind the end of a clip, decoded by 'waves'.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from etils import epath

from ssl_extract.data import waves
from ssl_extract.data.class_folders import File, choose, list_files
from ssl_extract.data.loading import register
from ssl_extract.data.npz import get, get_classes, get_splits
from ssl_extract.data.sets import Dataset
from ssl_extract.data.splits import select
from ssl_extract.data.waves import Rate, Seconds
from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.runtime.progress import progress

_ENDINGS = ('.wav', '.flac')
_CUT_OFF = re.compile(r'^data : \d+ \(should be (\d+)\)', re.MULTILINE)  # in libsndfile's log
_MOST = 2**40  # samples; libsndfile reports more for a file that does not say its length
_ORDER = 2022  # the seed of the order of clips
_CONDITION = re.compile(r'\s*(\w+)\s*<\s*(-?\d+)\s*')


@register('speech_folder', rate=lambda rate, **_: rate)
def speech_folder(
    path: str, rate: Rate = 16_000, seconds: Seconds | None = None, *, split: str
) -> Dataset:
    """Reads the .wav and .flac files of `path/CLASS/`, such as a folder for each speaker.

    Splits, classes and order are those of `folder`: 'all', and 'train' and 'test' where there are
    such subfolders. Channels become their mean. Slices count files: parts of a file are never in
    two slices that share no file. Reading needs the extra `audio`.

    >>> import soundfile, tempfile
    >>> root = epath.Path(tempfile.mkdtemp()) / 'ann'
    >>> root.mkdir(); soundfile.write(str(root / '0.wav'), np.zeros(80), 8_000)
    >>> speech_folder(str(root.parent), rate=16_000, split='all').inputs.shape
    (1, 160)

    Args:
        path: the folder; a relative path is one of the working directory.
        rate: the sampling rate, in Hz, to which files of another rate are resampled.
        seconds: the width of a row; a longer clip is cut into equal parts, of which each is a row.
            None makes rows as wide as the longest clip of the folder.
        split: 'all[:80%]', 'train', 'train[:100]+test', ...

    Raises:
        UserError: the folder has no class subfolders, a class has no clip, a file cannot be read as
            sound or is cut off, or the extra is missing.
    """
    listed = list_files(path, 'clip')
    _check_endings(listed.all)
    chosen, labels = choose(listed, split)
    sizes = listed.all if seconds is None else chosen
    lengths = {file.path: _length(file, rate) for file in sizes}
    width = waves.width_of([*lengths.values()], rate, seconds)
    waves.check_rows([lengths[file.path] for file in chosen], width)
    clips = [_read(file, rate) for file in progress(chosen, desc=f'reading {path}', unit='clip')]
    rows, labels = waves.rows_of(clips, labels, width)
    return Dataset(rows, labels, len(listed.kinds), decode='waves')


@register('speech_npz', rate=lambda rate=0, to_rate=None, **_: to_rate or rate)
def speech_npz(
    path: str,
    rate: Rate,
    audio: str = 'audio',
    lengths: str = 'length',
    labels: str = 'labels',
    splits: str = 'split',
    test_where: str = '',
    to_rate: Rate | None = None,
    seconds: Seconds | None = None,
    *,
    split: str,
) -> Dataset:
    """Reads clips that lie one behind the other in an array, with the length of each.

    The split 'all' holds all clips in a fixed random order, which does not depend on the labels:
    slices hold all classes in about the proportions of the whole, and a slice holds the same clips
    whatever the labels are. Slices count clips.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + '/clips.npz'
    >>> np.savez(path, audio=np.ones(5, np.int16), length=[2, 3], labels=['no', 'yes'])
    >>> speech_npz(path, 8_000, split='all').inputs.shape
    (2, 3)

    Args:
        path: the .npz; a relative path is one of the working directory.
        rate: the sampling rate of the file, in Hz.
        audio: the name of the array int16 of all samples.
        lengths: the name of the array int[N] of the clips' lengths, in samples.
        labels: the name of an array [N] of classes, whole numbers as in `npz` or texts, which are
            numbered by their sorted order. A file without 'labels' has no labels.
        splits: the name of an array of N texts, the split of each clip; a file without 'split' has
            'all' only. With the name of the speakers each speaker is a split.
        test_where: a condition on an array int[N], such as 'index<5': clips that meet it are the
            split 'test', all others 'train'. '' takes `splits`.
        to_rate: the sampling rate, in Hz, to which clips are resampled; None keeps `rate`.
        seconds: see `speech_folder`.
        split: 'all[:80%]', 'train', ...

    Raises:
        UserError: the file cannot be read, an array is not in it or does not fit, or the split does
            not exist.
    """
    arrays = files.read_npz(epath.Path(path).expanduser(), sealed=False)
    samples, counts = _clips(arrays, path, audio, lengths)
    classes, num_classes = get_classes(arrays, path, labels, len(counts))
    order = np.random.default_rng(_ORDER).permutation(len(counts))
    belongs = _belongs(arrays, path, splits, test_where, len(counts))
    names = [] if belongs is None else np.unique(belongs).tolist()
    rows = {name: order[belongs[order] == name] for name in names}
    chosen, new_rate = select(split, {'all': order} | rows), to_rate or rate
    resampled = [waves.new_length(int(count), rate, new_rate) for count in counts]
    width = waves.width_of(resampled, new_rate, seconds)
    waves.check_rows([resampled[row] for row in chosen], width)
    starts = np.cumsum(counts) - counts
    clips = [
        waves.stored(samples[starts[row] : starts[row] + counts[row]] / 2**15, rate, new_rate)
        for row in chosen
    ]
    chosen_labels = None if classes is None else classes[chosen]
    return Dataset(*waves.rows_of(clips, chosen_labels, width), num_classes, decode='waves')


def _length(file: File, rate: int) -> int:
    """Returns the samples of a file at `rate`, by its header."""
    with _opened(file) as sound:
        return waves.new_length(sound.frames, sound.samplerate, rate)


def _read(file: File, rate: int) -> np.ndarray:
    """Reads one clip, int16 [n]."""
    with _opened(file) as sound:
        frames = sound.read(dtype='float32', always_2d=True)
        missing = sound.frames - len(frames)
        own_rate = sound.samplerate
    if missing:
        raise UserError(f'{file.path} is cut off, by {missing} samples: repair or remove it')
    if not np.abs(frames).max() <= 1:
        raise UserError(
            f'{file.path} has samples outside of [-1, 1], up to {np.abs(frames).max():.4g}: divide '
            'them by their largest'
        )
    return waves.stored(frames.mean(axis=1), own_rate, rate)


@contextlib.contextmanager
def _opened(file: File) -> Iterator[Any]:
    """Opens a file as a `soundfile.SoundFile`; what its reader raises becomes one line."""
    soundfile = _soundfile()
    try:
        with file.path.open('rb') as content, soundfile.SoundFile(content) as sound:
            _check_header(file, sound)
            yield sound
    except (soundfile.SoundFileError, OSError) as error:
        reason = getattr(error, 'error_string', error)
        raise UserError(
            f'{file.path} cannot be read as sound ({reason}): repair or remove it'
        ) from error


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: of the package without its library
        raise UserError(
            "speech_folder reads sound by soundfile: pip install 'ssl_extract[audio]'"
        ) from None
    return soundfile


def _check_header(file: File, sound: Any) -> None:
    """Checks that a file holds as much as its header says, of which libsndfile is silent."""
    if _CUT_OFF.search(sound.extra_info):
        raise UserError(f'{file.path} is cut off, by its header: convert it again, or remove it')
    if not 0 < sound.frames < _MOST:
        raise UserError(
            f'{file.path} holds no samples, or its header does not say how many: convert it again, '
            'or remove it'
        )


def _check_endings(listed: list[File]) -> None:
    for file in listed:
        if file.path.suffix.lower() not in _ENDINGS:
            raise UserError(
                f'{file.path} is no {" or ".join(_ENDINGS)}: convert or remove it; clips lie '
                'directly in the folder of their class'
            )


def _clips(
    arrays: Mapping[str, np.ndarray], path: str, audio: str, lengths: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all samples int16 [S] and the length of each clip int64 [N]."""
    samples, counts = get(arrays, path, audio), get(arrays, path, lengths)
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise UserError(
            f'{path}: {audio} must be int16 [S], clips one behind the other, got {samples.dtype} '
            f"{list(samples.shape)}; rows of one length: npz(..., decode='waves')"
        )
    if counts.dtype.kind not in 'iu' or counts.ndim != 1:
        raise UserError(
            f'{path}: {lengths} must be integers [N], got {counts.dtype} {list(counts.shape)}'
        )
    counts = counts.astype(np.int64)
    if len(counts) and counts.min() < 1:
        raise UserError(f'{path}: {lengths} holds {counts.min()}: a clip has a sample at least')
    if counts.sum() != len(samples):
        raise UserError(
            f'{path}: {lengths} adds up to {counts.sum():,}, and {audio} has {len(samples):,} '
            'samples: write the number of samples of each clip'
        )
    return samples, counts


def _belongs(
    arrays: Mapping[str, np.ndarray], path: str, splits: str, where: str, count: int
) -> np.ndarray | None:
    """Returns the name of the split of each clip, or None without splits."""
    if not where:
        return get_splits(arrays, path, splits, count)
    if 'split' in arrays or splits != 'split':
        raise UserError(
            f'{path}: test_where={where!r} beside splits={splits!r}: write one of the two'
        )
    condition = _CONDITION.fullmatch(where)
    if condition is None:
        raise UserError(f"test_where={where!r}: write an array and a number, such as 'index<5'")
    values = get(arrays, path, condition.group(1), length=count)
    if values.dtype.kind not in 'iu':
        raise UserError(f'{path}: test_where={where!r} compares integers, got {values.dtype}')
    return np.where(values < int(condition.group(2)), 'test', 'train')
