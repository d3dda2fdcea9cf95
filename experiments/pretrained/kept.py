"""Answers of a pretrained encoder on disk, each computed once for all runs of all experiments."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from ssl_extract.runtime import files


def answered(
    folder: pathlib.Path,
    names: Sequence[str],
    compute: Callable[[list[int]], np.ndarray],
    batch: int,
) -> np.ndarray:
    """Returns the answers [n, D] to n inputs, of which those that are not kept are computed.

    Args:
        folder: of the answers, in files of at most `batch`.
        names: the hash of each input's content.
        compute: answers the inputs of these row numbers.
        batch: inputs that are computed before their answers are written.
    """
    kept = _kept(folder)
    new = list({name: row for row, name in enumerate(names) if name not in kept}.values())
    for start in range(0, len(new), batch):
        rows = new[start : start + batch]
        answers = compute(rows)
        part = [names[row] for row in rows]
        files.write_npz(folder / f'{part[0]}.npz', names=part, answers=answers)
        kept.update(zip(part, answers, strict=True))
    return np.stack([kept[name] for name in names])


@functools.cache
def _kept(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the answers on disk by the hash of the input; one dict for the whole process."""
    answers: dict[str, np.ndarray] = {}
    for path in files.find(folder, '*.npz'):
        with files.advised('remove it; its answers are then computed again'):
            part = files.read_npz(path)
        answers |= dict(zip(part['names'].tolist(), part['answers'], strict=True))
    return answers
