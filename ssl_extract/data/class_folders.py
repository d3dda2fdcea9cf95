"""Class subfolders of files, their splits and their order."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from etils import epath

from ssl_extract.data.splits import select
from ssl_extract.errors import UserError


class File(NamedTuple):
    """A file of a class, before it is read."""

    path: epath.Path
    split: str
    kind: str
    position: tuple[float, str]


class Files(NamedTuple):
    """The files of a folder with class subfolders.

    Attributes:
        all: the files of all splits, in the order of the split 'all'.
        kinds: the sorted names of the classes.
    """

    all: list[File]
    kinds: list[str]


def list_files(path: str, what: str) -> Files:
    """Lists the files of `path/CLASS/`, or of `path/SPLIT/CLASS/` if there is a 'train' or 'test'.

    The order is fixed and stratified, drawn from the files' names. Names that begin with a dot, and
    files beside the class folders, are left out.

    Args:
        path: the folder; a relative path is one of the working directory.
        what: a file of the set, 'image' or 'clip', for an error message.

    Raises:
        UserError: the folder has no class subfolders, or a class has no file.
    """
    root = epath.Path(path).expanduser()
    try:
        subfolders = _subfolders(root, what)
        names = {subfolder.name for subfolder in subfolders}
        parts = {'all': subfolders}
        if names & {'train', 'test'}:
            parts = {subfolder.name: _subfolders(subfolder, what) for subfolder in subfolders}
        files = [
            file
            for split, kinds in parts.items()
            for kind in kinds
            for file in _list_class(kind, split, what)
        ]
    except OSError as error:
        raise UserError(f'cannot read the folder {root} ({error})') from None
    return Files(
        sorted(files, key=lambda file: (file.position, file.kind)),
        sorted({file.kind for file in files}),
    )


def choose(files: Files, split: str) -> tuple[list[File], np.ndarray]:
    """Returns the files that `split` names, and their classes int[N].

    Raises:
        UserError: see `ssl_extract.data.splits.parse_split`.
    """
    rows = {
        name: np.array([row for row, file in enumerate(files.all) if file.split == name])
        for name in sorted({file.split for file in files.all})
    }
    everything = {'all': np.arange(len(files.all))}
    chosen = [files.all[row] for row in select(split, everything | rows)]
    return chosen, np.array([files.kinds.index(file.kind) for file in chosen])


def _list_class(kind: epath.Path, split: str, what: str) -> Iterable[File]:
    """Lists one class of one split, evenly spread over positions 0 to 1."""
    paths = sorted(_visible(kind), key=lambda path: _scramble(path.name))
    if not paths:
        raise UserError(f'{kind} has no {what}: a class needs at least one')
    for rank, path in enumerate(paths):
        position = ((rank + 0.5) / len(paths), _scramble(path.name))
        yield File(path, split, kind.name, position)


def _subfolders(root: epath.Path, what: str) -> list[epath.Path]:
    if not root.is_dir():
        raise UserError(f'there is no folder {root}')
    subfolders = [path for path in _visible(root) if path.is_dir()]
    if not subfolders:
        raise UserError(f'{root} has no class subfolders: put each {what} in the one of its class')
    return subfolders


def _visible(root: epath.Path) -> list[epath.Path]:
    return sorted(path for path in root.iterdir() if not path.name.startswith('.'))


def _scramble(name: str) -> str:
    """Returns an arbitrary but fixed key; names often follow the order in which files arose."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
