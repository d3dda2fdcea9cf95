"""The measurement of every piece, and the record of a run of the suite."""

import datetime
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jaxlib
import numpy as np

import ssl_extract
from benchmarks import comparison, pieces, timing
from benchmarks.pieces import PIECES, Case, Piece
from ssl_extract.pipeline import provenance
from ssl_extract.runtime import parallel, progress


def measure(piece: Piece, seconds: float, peak: float) -> dict[str, Any]:
    """Measures one piece.

    Args:
        piece: to compile and to repeat.
        seconds: of the repetition, all runs together.
        peak: floating-point operations a second of one device's matrix product.

    Returns:
        `inputs_per_second` of each run, and its `median`, `low` and `high` quartile; `compile_s`,
        tracing, lowering and compilation; `program_mib`, of one device, or None; `device_mib`, the
        largest use of a device so far, or None; `gflop` of a call on all devices; `share` of
        `peak`; `host_ms` of a step in each turn, or None.
    """
    program_mib = operations = None
    start = time.perf_counter()
    if piece.program is not None:
        function, args = piece.program
        program = parallel.compile_ahead(function, *args)
        program_mib, compile_s = program.memory / 2**20, program.seconds
        operations = program.flops
        devices = parallel.data_mesh().size
    else:
        jax.block_until_ready(piece.call())
        compile_s, devices = time.perf_counter() - start, 1
    calls = timing.rates(piece.call, seconds)
    per_second = float(np.median(calls))
    if operations is None:
        operations = piece.operations()
        compile_s = max(0.0, compile_s - 1 / per_second)  # the first call did the work too
    turn = min(pieces.LOG_EVERY, max(1, round(seconds * per_second)))
    rates = [piece.inputs * rate for rate in calls]
    low, median, high = (float(x) for x in np.percentile(rates, [25, 50, 75]))
    return {
        'inputs_per_second': rates,
        'low': low,
        'median': median,
        'high': high,
        'compile_s': compile_s,
        'program_mib': program_mib,
        'device_mib': device_mib(),
        'gflop': operations * devices / 1e9,
        'share': operations * per_second / peak,
        'host_ms': piece.host_ms(turn) if piece.host_ms else None,
    }


def device_mib() -> float | None:
    """Returns the largest use of a device in this process so far; None where JAX does not tell."""
    stats = jax.local_devices()[0].memory_stats() or {}
    used = stats.get('peak_bytes_in_use')
    return None if used is None else used / 2**20


def plan(
    names: Sequence[str], encoders: Sequence[str], batch_sizes: Sequence[int], side: int, chain: str
) -> list[tuple[str, Case]]:
    """Lists the pieces to measure, each once; see `WITHOUT_ENCODER` and `WITHOUT_BATCH`.

    >>> [(name, case.encoder, case.batch_size) for name, case in plan(
    ...     ['augmentation', 'knn'], ['vit', 'resnet18'], [64], 32, '')]
    [('augmentation', '', 64), ('knn', 'vit', 64), ('knn', 'resnet18', 64)]

    Args:
        names: keys of `PIECES`.
        encoders: specs.
        batch_sizes: images of a call.
        side: of the images.
        chain: the defense.
    """
    cases = [
        (
            name,
            Case(
                '' if name in pieces.WITHOUT_ENCODER else encoder,
                pieces.POINTS if name in pieces.WITHOUT_BATCH else size,
                side,
                chain,
            ),
        )
        for encoder in encoders
        for size in batch_sizes
        for name in names
    ]
    return list(dict.fromkeys(cases))


def run(cases: Sequence[tuple[str, Case]], seconds: float, command: str) -> dict[str, Any]:
    """Measures all cases and returns the record of the run, to be written as JSON.

    Args:
        cases: as `plan` lists them, all with one side and one defense.
        seconds: of a measurement.
        command: the command line.
    """
    record = describe(command)
    peak = timing.matmul_rate(seconds)
    rows = []
    with progress.progress(total=len(cases), desc='benchmarks', unit='row') as bar:
        for name, case in cases:
            bar.set_postfix_str(f'{name}, batch {case.batch_size}')
            measured = measure(PIECES[name](case), seconds, peak)
            place = {'row': name, 'encoder': case.encoder, 'batch_size': case.batch_size}
            rows.append(place | measured)
            bar.update()
    measurement = {'seconds': seconds, 'matmul_gflops': peak / 1e9}
    return record | measurement | {'settings': settings(cases), 'rows': rows}


def settings(cases: Sequence[tuple[str, Case]]) -> dict[str, Any]:
    """Returns what all rows of a run share; runs of other settings are not compared."""
    _, case = cases[0]
    return {'size': case.side, 'defense': case.defense, 'points': pieces.POINTS}


def describe(command: str) -> dict[str, Any]:
    """Describes the command, the date, the machine, the versions and the package's folder."""
    record = provenance.describe(command)
    own = {'jaxlib': jaxlib.__version__, 'ssl_extract': ssl_extract.__version__}
    return record | {
        'versions': record['versions'] | own,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'processor': comparison.processor(),
        'cores': comparison.cores(),
        'load': os.getloadavg()[0],
        'package': str(pathlib.Path(ssl_extract.__file__).parent),
    }
