"""Rates of repeated work, and the matrix-product rate of a device."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RUNS = 5  # of one measurement


def rates(work: Callable[[], Any], seconds: float) -> list[float]:
    """Measures the calls a second of a work in each of `RUNS` runs, after a call that warms up.

    Args:
        work: returns what to wait for.
        seconds: of all runs together; a run has at least one call.
    """
    jax.block_until_ready(work())
    start = time.perf_counter()
    jax.block_until_ready(work())
    repeats = max(1, round(seconds / RUNS / (time.perf_counter() - start)))
    measured = []
    for _ in range(RUNS):
        start = time.perf_counter()
        for _ in range(repeats):
            result = work()
        jax.block_until_ready(result)
        measured.append(repeats / (time.perf_counter() - start))
    return measured


def rate(work: Callable[[], Any], seconds: float) -> float:
    """Measures the calls a second of a work: the median of `rates`."""
    return float(np.median(rates(work, seconds)))


def matmul_rate(seconds: float, size: int = 2048) -> float:
    """Measures the floating-point operations a second of a float32 matrix product."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.dot)
    return rate(lambda: product(x, x), seconds) * 2 * size**3
