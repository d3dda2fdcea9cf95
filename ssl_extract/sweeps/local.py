"""Local sweeps: runs in worker processes of this machine.

A worker takes one run after the other and keeps its compiled programs between them. A worker that
dies fails its run alone, and another one takes its place. The workers end with this process,
however it ends: see `worker`.
"""

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.sweeps import jobs as jobs_lib
from ssl_extract.sweeps.jobs import Job, Outcome
from ssl_extract.sweeps.places import ANYWHERE, Place


class _Worker(NamedTuple):
    """A worker process, its place, and its job; None before its first."""

    process: subprocess.Popen
    place: Place
    job: Job | None


def compute(
    jobs: Iterable[Job],
    command: Sequence[str],
    workdir: epath.PathLike,
    *,
    places: Sequence[Place] = (ANYWHERE,),
    env: Mapping[str, str] | None = None,
    log: IO | None = None,
) -> Iterator[Outcome]:
    """Yields the end of each job, as they end; the jobs are started in their order.

    Args:
        jobs: the runs to compute.
        command: the command of a worker, which calls `worker.serve`.
        workdir: the folder of all results; what a run prints goes to its log there.
        places: one for each worker.
        env: variables of the environment of the workers that differ.
        log: a file for what workers print before their first run; None is stderr.

    Raises:
        UserError: no worker can be started, or the last one could not be replaced.
    """
    waiting = collections.deque(jobs)
    workers: dict[int, _Worker] = {}
    selector = selectors.DefaultSelector()

    def start(place: Place) -> None:
        process = _start(command, place, {**os.environ, **(env or {}), **place.env}, log)
        selector.register(process.stdout, selectors.EVENT_READ, process.pid)
        workers[process.pid] = _Worker(process, place, None)

    try:
        for place in places[: len(waiting)]:
            start(place)
        while workers:
            for key, _ in selector.select():
                worker = workers[key.data]
                line = worker.process.stdout.readline()
                died = not line.endswith('\n')
                error = _end(worker.process) if died else json.loads(line)['error']
                if worker.job:
                    if died:
                        jobs_lib.log(workdir, worker.job.id, error)
                    yield Outcome(worker.job, error)
                if waiting and not died and (worker.job or not error):
                    job = waiting.popleft()
                    workers[key.data] = worker._replace(job=job)
                    _ask(worker.process, job)
                    continue
                del workers[key.data]
                selector.unregister(worker.process.stdout)
                _stop(worker.process)
                if waiting and worker.job:
                    start(worker.place)
                elif waiting and not workers:
                    raise UserError(f'a worker could not start: {error.removeprefix("error: ")}')
    finally:
        for worker in workers.values():
            _stop(worker.process)
        selector.close()


def _start(
    command: Sequence[str], place: Place, env: dict[str, str], log: IO | None
) -> subprocess.Popen:
    """Starts a worker, bound to the cores of its place from its first instruction on.

    JAX and BLAS count the cores when they are imported. A new process inherits the cores of the
    thread that starts it.
    """
    before = os.sched_getaffinity(0) if place.cores else ()
    if place.cores:
        os.sched_setaffinity(0, place.cores)
    try:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=env, text=True)
    finally:
        if place.cores:
            os.sched_setaffinity(0, before)


def _ask(process: subprocess.Popen, job: Job) -> None:
    """Gives a worker its next job; one that has just died is noticed at the end of its output."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps({'number': job.number, 'id': job.id}) + '\n')
        process.stdin.flush()


def _end(process: subprocess.Popen) -> str:
    """Waits for a worker whose output has ended, and says how it ended."""
    code = process.wait()
    if code >= 0:
        return f'error: its worker ended with exit code {code}'
    hint = ' (by hand, or for want of memory)' if code == -signal.SIGKILL else ''
    return f'error: its worker was killed by {signal.Signals(-code).name}{hint}'


def _stop(process: subprocess.Popen) -> None:
    """Ends a worker: it may be in the middle of a run, which it goes on with another time."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # of what it did not read
            stream.close()
