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
        labels: the name of the array int[N] of classes; a file without 'labels' has no labels.
            The number of classes is the largest label of the file plus 1.
        splits: the name of an array of N texts, the split of each row, for 'train' and
            'test[:100]'; a file without 'split' has 'all' only.
        decode: the name of the decoder; '' for 'images' of uint8 and 'identity' of floats.
        split: 'all[:80%]', 'train', ...

    Raises:
        UserError: the file cannot be read, an array is not in it or has another length, or the
            split does not exist.
    """
    arrays = files.read_npz(epath.Path(path).expanduser(), sealed=False)
    values = _get(arrays, path, inputs)
    length = len(values) if values.ndim else 0
    classes = _get(arrays, path, labels, optional='labels', length=length)
    belongs = _get(arrays, path, splits, optional='split', length=length)
    if classes is not None and classes.dtype.kind not in 'iu':
        raise UserError(f'{path}: {labels} must hold integers, got {classes.dtype}')
    if belongs is not None and belongs.dtype.kind != 'U':
        raise UserError(f'{path}: {splits} must hold the names of splits, got {belongs.dtype}')
    names = [] if belongs is None else np.unique(belongs).tolist()
    rows = {name: np.flatnonzero(belongs == name) for name in names}
    chosen = select(split, {'all': np.arange(length)} | rows)
    if classes is None:
        return Dataset(values[chosen], decode=decode)
    return Dataset(values[chosen], classes[chosen], int(classes.max()) + 1, decode=decode)


def _get(
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
