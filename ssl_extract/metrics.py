"""Training metrics as numbered parts, and the progress bar.

A part holds the rows between two checkpoints and is written just before the later one, so that
after a restart the parts and the checkpoint agree; a part written twice has the same content both
times.
"""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm
from etils import epath

from ssl_extract import files


def write_part(folder: epath.Path, step: int, rows: list[dict[str, Any]]) -> None:
    """Writes the rows that ended at `step`."""
    files.write_jsonl(folder / f'part-{step:010d}.jsonl', rows)


def read_parts(folder: epath.Path) -> list[dict[str, Any]]:
    """All rows so far, in order."""
    parts = sorted(folder.glob('part-*.jsonl')) if folder.exists() else []
    return [row for part in parts for row in files.read_jsonl(part)]


def progress(iterable: Iterable[Any] | None = None, **kwargs: Any) -> tqdm.tqdm:
    """A tqdm bar with rate and ETA; on a log file instead of a terminal, a line now and then."""
    interactive = sys.stderr.isatty()
    return tqdm.tqdm(
        iterable, mininterval=0.2 if interactive else 20, delay=1, dynamic_ncols=True, **kwargs
    )
