"""Two programs measured in turn, each in a process of its own.

A process apart keeps the thread pools and the memory settings of two libraries from each other: the
one that is not measured waits for a message. Neither library is imported here.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import multiprocessing
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

Measured = TypeVar('Measured')
STRIDES = {'cifar': 1, 'patch': 2}  # of the 3x3 stem


class Setup(NamedTuple):
    """A ResNet of basic blocks, and the batch that it is trained on.

    Attributes:
        stem: a key of `STRIDES`.
        width: channels of the first stage.
        stages: blocks of each stage.
        batch_size: images of a step.
        side: of the images.
    """

    stem: str
    width: int
    stages: tuple[int, ...]
    batch_size: int
    side: int = 32

    @property
    def spec(self) -> str:
        """Returns the network as a config names it."""
        return f'resnet18(stem="{self.stem}", width={self.width}, stages={self.stages})'

    @property
    def dim(self) -> int:
        """Returns the width of a representation."""
        return self.width * 2 ** (len(self.stages) - 1)

    def images(self, count: int, seed: int = 0) -> np.ndarray:
        """Draws images, uint8 [count, side, side, 3]."""
        shape = (count, self.side, self.side, 3)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


SETUPS = {
    'resnet18': Setup('cifar', 64, (2, 2, 2, 2), batch_size=64),
    'small': Setup('patch', 32, (1, 1, 1), batch_size=256),
}
INSTALL = 'pip install torch --index-url https://download.pytorch.org/whl/cpu'
BUSY = 0.5  # processes of others; PyTorch's threads spin where one waits for another


class Work(NamedTuple):
    """A piece of work to repeat.

    Attributes:
        run: does it once and returns what to wait for.
        wait: waits for what `run` returned.
        images: that `run` works on.
    """

    run: Callable[[], Any]
    wait: Callable[[Any], Any]
    images: int


class Ratio(NamedTuple):
    """Rates of two sides, in images per second, round by round."""

    ours: list[float]
    theirs: list[float]

    def summary(self) -> dict[str, float]:
        """Summarizes: median rates, and median, smallest and largest of the rounds' ratios.

        >>> Ratio([2.0, 9.0, 4.0], [2.0, 3.0, 2.0]).summary()['ratio']
        2.0
        """
        ratios = np.divide(self.ours, self.theirs)
        return {
            'ours': float(np.median(self.ours)),
            'theirs': float(np.median(self.theirs)),
            'ratio': float(np.median(ratios)),
            'smallest': float(ratios.min()),
            'largest': float(ratios.max()),
        }


def cores() -> int:
    """Counts the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count() or 1


def processor() -> str:
    """Returns the name of the processor, or its architecture where the system has no name."""
    about = pathlib.Path('/proc/cpuinfo')
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def images_per_second(work: Work, seconds: float) -> float:
    """Measures `work` for about `seconds`, after two runs that count for nothing."""
    work.wait(work.run())  # memory and caches were the other side's
    start = time.perf_counter()
    work.wait(work.run())
    repeats = max(1, round(seconds / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(repeats):
        result = work.run()
    work.wait(result)
    return work.images * repeats / (time.perf_counter() - start)


def alternate(
    ours: Callable[[], Measured], theirs: Callable[[], Measured], rounds: int
) -> tuple[list[Measured], list[Measured]]:
    """Calls both sides in turn, ours first in each of the rounds."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@contextlib.contextmanager
def processes(modules: Sequence[str]) -> Iterator[list[Callable]]:
    """Starts a process for each module; gives `call(function, *args)` for each."""
    fresh = multiprocessing.get_context('spawn')
    with contextlib.ExitStack() as stack:
        calls = []
        for module in modules:
            process = concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh)
            calls.append(functools.partial(_result, stack.enter_context(process), module))
        yield calls


def _result(process: concurrent.futures.Executor, module: str, function: str, *args: Any) -> Any:
    return process.submit(_call, module, function, *args).result()


def _call(module: str, function: str, *args: Any) -> Any:
    return getattr(importlib.import_module(module), function)(*args)
