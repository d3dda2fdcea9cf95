"""Progress bars, and lines on what is used again."""

import os
import sys
from collections.abc import Iterable
from typing import Any

import tqdm
from etils import epath

from ssl_extract.runtime import hosts

_visited: set[str] = set()  # places of `note`


class _Bar(tqdm.tqdm):
    """A bar whose clock starts with the first update, which compiles and says nothing of speed."""

    running = False

    def update(self, n: float | None = 1) -> bool | None:
        """Counts `n` more; see `tqdm.tqdm.update`."""
        if self.running or self.disable:
            return super().update(n)
        self.running = True
        self.unpause()  # the clock starts here, and from what is counted by now
        self.n += n
        self.initial = self.last_print_n = self.n
        return None

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Takes the bar off the screen, where it was drawn; see `tqdm.tqdm.clear`."""
        if self.running:
            super().clear(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> bool | None:
        """Draws the bar again, but for one that was not drawn yet; see `tqdm.tqdm.refresh`."""
        return super().refresh(*args, **kwargs) if self.running else None


def progress(iterable: Iterable[Any] | None = None, **kwargs: Any) -> tqdm.tqdm:
    """Makes a tqdm bar with rate and ETA; a log file gets a line every 20 seconds instead.

    The first update counts for neither rate nor ETA: it takes the time of the compilation.
    """
    interactive = sys.stderr.isatty()
    return _Bar(
        iterable,
        mininterval=0.2 if interactive else 20,
        delay=1,
        dynamic_ncols=True,
        disable=not hosts.is_first(),
        **kwargs,
    )


def note(place: epath.PathLike, found: str) -> None:
    """Says what was found at a place, in one line, when this process first comes there.

    A line thus tells of an earlier process only: what this process keeps, it finds without a word.

    Args:
        place: a folder.
        found: the line; '' where nothing was there.
    """
    if found and os.fspath(place) not in _visited:
        say(found)
    _visited.add(os.fspath(place))


def say(line: str) -> None:
    """Prints a line on stderr, above a bar that is shown; of several processes the first does."""
    if not hosts.is_first():
        return
    with tqdm.tqdm.external_write_mode(file=sys.stderr):
        print(f'  {line}', file=sys.stderr, flush=True)
