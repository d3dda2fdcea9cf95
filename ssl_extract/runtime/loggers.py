"""Training metrics as numbered parts of a folder.

A part holds the rows between two checkpoints and is written just before the later checkpoint, so
that the parts and the checkpoint agree after a restart. A part that is written twice has the same
content both times.
"""

from typing import Any

from etils import epath

from ssl_extract.runtime import files


def write_part(folder: epath.Path, step: int, rows: list[dict[str, Any]]) -> None:
    """Writes the rows since the last part; `step` is the last of them."""
    files.write_jsonl(folder / f'part-{step:010d}.jsonl', rows)


def read_parts(folder: epath.Path) -> list[dict[str, Any]]:
    """Returns all rows so far, in order."""
    parts = files.find(folder, 'part-*.jsonl')
    return [row for part in parts for row in files.read_jsonl(part)]
