"""Progress bars."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm


def progress(iterable: Iterable[Any] | None = None, **kwargs: Any) -> tqdm.tqdm:
    """Makes a tqdm bar with rate and ETA; a log file gets a line every 20 seconds instead."""
    interactive = sys.stderr.isatty()
    return tqdm.tqdm(
        iterable, mininterval=0.2 if interactive else 20, delay=1, dynamic_ncols=True, **kwargs
    )
