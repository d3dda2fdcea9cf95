"""Images in class subfolders: `folder(path="photos")`."""

import numpy as np
from etils import epath
from PIL import Image

from ssl_extract.checks import check_memory
from ssl_extract.data.class_folders import choose, list_files
from ssl_extract.data.loading import Side, register
from ssl_extract.data.sets import Dataset
from ssl_extract.data.tfds import fit
from ssl_extract.errors import UserError
from ssl_extract.runtime.progress import progress

_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # 8 bits or fewer


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
    files = list_files(path, 'image')
    chosen, labels = choose(files, split)
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
    return Dataset(np.stack(images), labels, len(files.kinds))


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
