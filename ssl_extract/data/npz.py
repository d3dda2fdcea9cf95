"""Arrays in a NumPy archive: `npz(path="vectors.npz")`."""

from collections.abc import Mapping

import numpy as np
from etils import epath

from ssl_extract.data.loading import register
from ssl_extract.data.sets import Dataset
from ssl_extract.data.splits import select
from ssl_extract.errors import UserError
from ssl_extract.runtime import files


@register('npz')
def npz(
    path: str,
    inputs: str = 'inputs',
    labels: str = 'labels',
    splits: str = 'split',
    decode: str = '',
    *,
    split: str,
) -> Dataset:
    """Reads arrays of N rows; the split 'all' holds all rows, in the order of the file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + '/vectors.npz'
    >>> np.savez(path, inputs=np.ones((4, 3)), labels=np.array([0, 1, 0, 1]))
    >>> npz(path, split='all[:3]').labels.tolist()
    [0, 1, 0]

    Args:
        path: the .npz; a relative path is one of the working directory.
        inputs: the name of the array [N, ...] of inputs, of any number type.
        labels: the name of the array [N] of classes; a file without 'labels' has no labels. Classes
            are integers, of which there are as many as the largest of the file plus 1, or texts,
            which are numbered by their sorted order.
        splits: the name of an array of N texts, the split of each row, for 'train' and
            'test[:100]'; a file without 'split' has 'all' only.
        decode: the name of the decoder; '' for 'images' of uint8 and 'identity' of floats. 'waves'
            is for waveforms int16 [N, T] with -32768 behind the end of a clip.
        split: 'all[:80%]', 'train', ...

    Raises:
        UserError: the file cannot be read, an array is not in it or has another length, or the
            split does not exist.
    """
    arrays = files.read_npz(epath.Path(path).expanduser(), sealed=False)
    values = get(arrays, path, inputs)
    length = len(values) if values.ndim else 0
    classes, num_classes = get_classes(arrays, path, labels, length)
    belongs = get_splits(arrays, path, splits, length)
    names = [] if belongs is None else np.unique(belongs).tolist()
    rows = {name: np.flatnonzero(belongs == name) for name in names}
    chosen = select(split, {'all': np.arange(length)} | rows)
    chosen_labels = None if classes is None else classes[chosen]
    return Dataset(values[chosen], chosen_labels, num_classes, decode=decode)


def get_classes(
    arrays: Mapping[str, np.ndarray], path: str, name: str, length: int
) -> tuple[np.ndarray | None, int]:
    """Returns classes int[N] and their number; texts are numbered by their sorted order.

    Raises:
        UserError: the array is missing under a name other than 'labels', has another length, or
            holds neither integers nor texts.
    """
    values = get(arrays, path, name, optional='labels', length=length)
    if values is None or not length:
        return None, 0
    if values.dtype.kind == 'U':
        names, classes = np.unique(values, return_inverse=True)
        return classes, len(names)
    if values.dtype.kind not in 'iu':
        raise UserError(f'{path}: {name} must hold integers or texts, got {values.dtype}')
    return values, int(values.max()) + 1


def get_splits(
    arrays: Mapping[str, np.ndarray], path: str, name: str, length: int
) -> np.ndarray | None:
    """Returns the name of the split of each row, or None without an array 'split'.

    Raises:
        UserError: the array is missing under another name, has another length, or holds no texts,
            or the text 'all'.
    """
    values = get(arrays, path, name, optional='split', length=length)
    if values is not None and values.dtype.kind != 'U':
        raise UserError(f'{path}: {name} must hold the names of splits, got {values.dtype}')
    if values is not None and 'all' in values:
        raise UserError(f"{path}: {name} holds 'all', which is the split of all rows: rename it")
    return values


def get(
    arrays: Mapping[str, np.ndarray],
    path: str,
    name: str,
    *,
    optional: str = '',
    length: int | None = None,
) -> np.ndarray | None:
    """Returns an array of `length` rows, or None if it is missing under the name `optional`."""
    if name not in arrays:
        if name == optional:
            return None
        raise UserError(f'{path} has no array {name!r}: it has {", ".join(sorted(arrays))}')
    array = arrays[name]
    if length is not None and array.shape != (length,):
        raise UserError(
            f'{path}: {name} must be [{length}], a value for each input, got {list(array.shape)}'
        )
    return array
