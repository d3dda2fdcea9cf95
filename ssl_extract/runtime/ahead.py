"""Work done ahead of its use by threads, through Grain."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item, Result = TypeVar('Item'), TypeVar('Result')
_MOST_THREADS = 16
_LEAST_BUFFER = 4  # results


def ahead(read: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yields `read(item)` for each item in order, while threads compute the next results.

    A thread for each core computes a whole result, two results for each thread are kept, and more
    are not begun. Threads suffice where `read` decodes images or reads files: these let other
    threads run. A result depends on its item alone, so that a reader that begins at another item
    gives the same. No process is forked, which JAX does not bear.

    >>> list(ahead(lambda item: 2 * item, range(3)))
    [0, 2, 4]

    Args:
        read: a pure function, whose results are not None; called by several threads at once.
        items: of any length, such as a `range`.
    """
    import grain  # takes a second, and few runs need it

    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    threads = min(cores or 1, _MOST_THREADS)
    options = grain.ReadOptions(threads, max(_LEAST_BUFFER, 2 * threads))
    results = iter(grain.MapDataset.source(items).map(read).to_iter_dataset(options))
    try:
        yield from results
    finally:
        results.close()
