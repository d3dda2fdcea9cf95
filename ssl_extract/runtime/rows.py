"""Rows of numbers that come part by part, in memory or in a file."""

import pathlib
import tempfile
from typing import IO

import numpy as np
from etils import epath

from ssl_extract.runtime import files

MAPPED_BYTES = 2**26  # from which on rows lie in a file
_BLOCK_BYTES = 2**24  # copied at a time


class Rows:
    """Rows [N, D] in the order in which their parts came.

    Many rows lie in a file without a name, whose pages the system drops and reads again as it
    needs. The file is gone with the last array that was taken, however the process ends.

    >>> rows = Rows(epath.Path('.'))
    >>> rows.append(np.array([[1.0], [2.0]])), rows.append(np.array([[3.0]]))
    (None, None)
    >>> rows.take(np.array([2, 0])).tolist()
    [[3.0], [1.0]]
    """

    def __init__(self, folder: epath.PathLike):
        """Makes no rows.

        Args:
            folder: where the file lies; for a bucket, the system's folder of temporary files.
        """
        self._file = None
        self._folder = epath.Path(folder)
        self._parts: list[np.ndarray] = []
        self._count = 0

    def __del__(self):
        """Lets go of the file, which the arrays that were taken keep."""
        if self._file:
            # The disk may be full, which `append` has told. When the interpreter ends, modules such
            # as contextlib may be gone.
            try:  # noqa: SIM105
                self._file.close()
            except OSError:
                pass

    def append(self, part: np.ndarray) -> None:
        """Adds rows [n, D] of the type and width of those before.

        Raises:
            OSError: the disk is full.
        """
        self._count += len(part)
        self._parts.append(part)
        if self._file or sum(x.nbytes for x in self._parts) > MAPPED_BYTES:
            self._spill()

    def take(self, order: np.ndarray) -> np.ndarray:
        """Returns the rows int[n] as an array [n, D], which may be changed.

        Raises:
            OSError: the disk is full.
        """
        if self._file is None:
            return np.concatenate(self._parts)[order]
        like = self._like
        shape = self._count, *like.shape[1:]
        whole = np.memmap(self._file, like.dtype, mode='c', shape=shape)
        if np.array_equal(order, np.arange(len(order))):
            return whole[: len(order)]
        ordered, block = Rows(self._folder), max(1, _BLOCK_BYTES // max(1, like[:1].nbytes))
        for start in range(0, len(order), block):
            ordered.append(np.asarray(whole[order[start : start + block]]))
        return ordered.take(np.arange(len(order)))

    def _spill(self) -> None:
        """Writes the parts in memory to the file."""
        if self._file is None:
            self._file, self._like = _open(self._folder), self._parts[0]
        with files.named(self._folder):
            for part in self._parts:
                self._file.write(np.ascontiguousarray(part, self._like.dtype).data)
            self._file.flush()
        self._parts = []


def _open(folder: epath.Path) -> IO[bytes]:
    if not files.is_local(folder):
        return tempfile.TemporaryFile()
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)
