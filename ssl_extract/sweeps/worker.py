"""Worker processes: one run after the other, as the parent process asks.

A worker reads a line of JSON for each run, `{"number": 7, "id": "0af3"}`, and answers with a line
`{"error": ""}`; its first line says whether it is ready. It ends at once when the pipe from its
parent closes, so that no worker outlives a parent that was killed. Between two runs it keeps what
it compiled.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

from etils import epath

from ssl_extract.sweeps import jobs


class Runner(NamedTuple):
    """The runs that a worker can compute.

    Attributes:
        workdir: the folder of all results, and of the logs.
        compute: `(number, id) -> None` computes and writes a run; raises where that fails.
    """

    workdir: epath.PathLike
    compute: Callable[[int, str], Any]


def serve(set_up: Callable[[], Runner], explain: Callable[[Exception], str]) -> int:
    """Computes runs until the parent process closes the pipe; a failed run ends nothing.

    What a run prints goes to its log.

    Args:
        set_up: makes the runner; an error there ends the worker.
        explain: writes an error in one line that starts with 'error: ', and prints what it knows
            beyond the line to stderr.

    Returns:
        The exit code of a worker that could not be set up, 2; else the process ends here.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's, shortly before the time is up
    requests, answers = _take_streams()
    try:
        runner = set_up()
    except Exception as error:
        _answer(answers, explain(error))
        return 2
    _answer(answers, '')
    while True:
        request = requests.get()
        try:
            with _logged(runner.workdir, request):
                error = _attempt(runner, request, explain)
        except OSError as failed:  # of the log, as on a full disk: the run cannot tell
            error = explain(failed)
        _answer(answers, error)


def _attempt(runner: Runner, request: dict[str, Any], explain: Callable) -> str:
    """Computes one run and returns its error in one line, which is the last of its log."""
    try:
        runner.compute(request['number'], request['id'])
    except Exception as error:
        line = explain(error)
        with contextlib.suppress(OSError):  # of a log on a full disk; the parent tells the line
            print(line, file=sys.stderr)
        return line
    return ''


def _take_streams() -> tuple[queue.Queue, TextIO]:
    """Keeps stdin and stdout for the parent; what the runs read is empty, and print is stderr."""
    requests: queue.Queue = queue.Queue()
    lines, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), 'w')
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)

    def read() -> None:
        for line in lines:
            requests.put(json.loads(line))
        os._exit(0)  # the parent has no more runs, or has ended

    threading.Thread(target=read, daemon=True).start()
    return requests, answers


def _answer(answers: TextIO, error: str) -> None:
    answers.write(json.dumps({'error': error}) + '\n')
    answers.flush()


@contextlib.contextmanager
def _logged(workdir: epath.PathLike, request: dict[str, Any]) -> Iterator[None]:
    """Lets all that the process prints go to the log of a run, what libraries in C print too."""
    jobs.log(workdir, request['id'], jobs.heading(f'run {request["number"]}'))
    before = os.dup(1), os.dup(2)
    file = os.open(jobs.log_of(workdir, request['id']), os.O_WRONLY | os.O_APPEND)
    try:
        for number in (1, 2):
            os.dup2(file, number)
        yield
    finally:
        _flush()
        for number, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, number)
            os.close(kept)
        os.close(file)
        _flush()  # what a full disk kept back is of this run, and not for the next one's log


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
