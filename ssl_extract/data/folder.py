"""Images in class subfolders: `folder(path="photos")`."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from ssl_extract.checks import check_memory
from ssl_extract.data.loading import Side, register
from ssl_extract.data.sets import Dataset
from ssl_extract.data.splits import select
from ssl_extract.data.tfds import fit
from ssl_extract.errors import UserError
from ssl_extract.runtime.progress import progress

_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # 8 bits or fewer


class _File(NamedTuple):
    """An image file, before it is read."""

    path: epath.Path
    split: str
    kind: str
    position: tuple[float, str]


@register('folder')
def folder(path: str, *, split: str, size: Side | None) -> Dataset:
    """Reads the images of `path/CLASS/`; classes are numbered by their sorted names.

    The split 'all' holds every image. If there is a subfolder 'train' or 'test', the subfolders of
    `path` are splits, each with class subfolders, and 'all' is the union of the splits. The order
    within a split is fixed and stratified: 'all[:80%]' and 'all[80%:]' hold all classes in the
    proportions of the whole, in an order drawn from the files' names. Gray becomes RGB;
    transparency is left out. Files whose names begin with a dot, and files beside the class
    folders, are no part of the set.

    >>> import pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for kind in ('cat', 'dog'):
    ...     (root / kind).mkdir(); Image.new('L', (8, 8)).save(root / kind / '0.png')
    >>> folder(str(root), split='all', size=4).inputs.shape
    (2, 4, 4, 3)

    Args:
        path: the folder; a relative path is one of the working directory.
        split: 'all[:80%]', 'train', 'train[:100]+test', ...
        size: side in pixels, see `load`; None keeps the images, which must be of one size then.

    Raises:
        UserError: the folder has no class subfolders, a class has no image, a file cannot be read
            as an image of 8 bits, or images differ in size and no `size` is given.
    """
    files = _list(epath.Path(path).expanduser())
    kinds = {kind: label for label, kind in enumerate(sorted({file.kind for file in files}))}
    files.sort(key=lambda file: (file.position, kinds[file.kind]))
    rows = {
        name: np.array([row for row, file in enumerate(files) if file.split == name])
        for name in sorted({file.split for file in files})
    }
    chosen = [files[row] for row in select(split, {'all': np.arange(len(files))} | rows)]
    check_memory(f'size={size}: {len(chosen):,} images', len(chosen) * 3 * (size or 0) ** 2)
    images = []
    for file in progress(chosen, desc=f'reading {path}', unit='image'):
        images.append(fit(_read(file.path), size))
        if images[-1].shape != images[0].shape:
            first, other = ('x'.join(map(str, i.shape[:2])) for i in (images[0], images[-1]))
            raise UserError(
                f'{chosen[0].path} is {first} and {file.path} is {other}: give their common size, '
                'e.g. size=32'
            )
    labels = np.array([kinds[file.kind] for file in chosen])
    return Dataset(np.stack(images), labels, len(kinds))


def _list(root: epath.Path) -> list[_File]:
    """Lists the files of each split and class, each class in a separate order."""
    try:
        subfolders = _subfolders(root)
        names = {subfolder.name for subfolder in subfolders}
        parts = {'all': subfolders}
        if names & {'train', 'test'}:
            parts = {subfolder.name: _subfolders(subfolder) for subfolder in subfolders}
        return [
            file
            for split, kinds in parts.items()
            for kind in kinds
            for file in _list_class(kind, split)
        ]
    except OSError as error:
        raise UserError(f'cannot read the folder {root} ({error})') from None


def _list_class(kind: epath.Path, split: str) -> Iterable[_File]:
    """Lists one class of one split, evenly spread over positions 0 to 1."""
    paths = sorted(_visible(kind), key=lambda path: _scramble(path.name))
    if not paths:
        raise UserError(f'{kind} has no image: a class needs at least one')
    for rank, path in enumerate(paths):
        position = ((rank + 0.5) / len(paths), _scramble(path.name))
        yield _File(path, split, kind.name, position)


def _subfolders(root: epath.Path) -> list[epath.Path]:
    if not root.is_dir():
        raise UserError(f'there is no folder {root}')
    subfolders = [path for path in _visible(root) if path.is_dir()]
    if not subfolders:
        raise UserError(f'{root} has no class subfolders: put each image in the one of its class')
    return subfolders


def _visible(root: epath.Path) -> list[epath.Path]:
    return sorted(path for path in root.iterdir() if not path.name.startswith('.'))


def _scramble(name: str) -> str:
    """Returns an arbitrary but fixed key; names often follow the order in which images arose."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _read(path: epath.Path) -> np.ndarray:
    """Reads one image, uint8 [H, W, 3]."""
    try:
        with path.open('rb') as file, Image.open(file) as image:
            mode, pixels = image.mode, np.asarray(image.convert('RGB'))
    except Exception as error:  # Pillow raises many types for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'{path} cannot be read as an image ({reason}): repair or remove it'
        ) from error
    if mode not in _MODES:  # a conversion would clip it
        raise UserError(f'{path} has pixels of mode {mode}: save it with 8 bits, gray or RGB')
    return pixels
