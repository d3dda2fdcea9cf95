"""Jobs of a sweep: one for each missing run, their order and their logs."""

import datetime
import os
import platform
from collections.abc import Iterable
from typing import NamedTuple

from etils import epath

from ssl_extract.runtime import files

_ERROR = 'error: '  # the beginning of the last line of a failed run's log


class Job(NamedTuple):
    """A run that is to be computed.

    Attributes:
        number: the number of the run in the experiment, from 0.
        id: the hash of the run's resolved config.
        name: the run in a few words.
        missing: the addresses of the stages that are still to be made.
    """

    number: int
    id: str
    name: str
    missing: frozenset[str] = frozenset()


class Outcome(NamedTuple):
    """The end of a job: `error` is one line, or '' of a finished run."""

    job: Job
    error: str


def waves(jobs: Iterable[Job]) -> list[list[Job]]:
    """Groups jobs so that no two of a wave have to make the same stage.

    The first of several jobs that share a stage makes it; the others are of later waves.

    >>> jobs = [Job(0, 'a', 'mse', {'victim'}), Job(1, 'b', 'infonce', {'victim'})]
    >>> [[job.number for job in wave] for wave in waves([*jobs, Job(2, 'c', 'mse', {'other'})])]
    [[0, 2], [1]]

    Args:
        jobs: in the order of the experiment, which each wave keeps.
    """
    left, made, result = [*jobs], set(), []
    while left:
        wave, later, making = [], [], set()
        for job in left:
            missing = job.missing - made
            if making.isdisjoint(missing):
                wave.append(job)
                making |= missing
            else:
                later.append(job)
        left, made = later, made | making
        result.append(wave)
    return result


def log_of(workdir: epath.PathLike, run_id: str) -> epath.Path:
    """Returns the log of a run, which all attempts at the run add to.

    Args:
        workdir: the folder of all results.
        run_id: the id of the run.
    """
    return epath.Path(workdir) / 'logs' / f'{run_id}.log'


def is_finished(workdir: epath.PathLike, run_id: str) -> bool:
    """Returns whether a run is finished.

    Args:
        workdir: the folder of all results.
        run_id: the id of the run.
    """
    return (epath.Path(workdir) / 'runs' / run_id / 'run.json').exists()


def log(workdir: epath.PathLike, run_id: str, line: str) -> None:
    """Adds a line to the log of a run.

    Args:
        workdir: the folder of all results.
        run_id: the id of the run.
        line: the line.

    Raises:
        OSError: the log cannot be written, as on a full disk.
    """
    path = log_of(workdir, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.named(path), open(path, 'a') as file:
        file.write(f'{line}\n')


def heading(what: str) -> str:
    """Returns the first line of an attempt in a log, with time, process and machine.

    Args:
        what: the attempt.
    """
    time = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
    return f'== {time}, process {os.getpid()} on {platform.node()}: {what}'


def logged_error(workdir: epath.PathLike, run_id: str) -> str:
    """Returns the error in the last line of a run's log; '' where the last line is none.

    Args:
        workdir: the folder of all results.
        run_id: the id of the run.
    """
    path = log_of(workdir, run_id)
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[-1] if lines and lines[-1].startswith(_ERROR) else ''


def failure(workdir: epath.PathLike, outcome: Outcome) -> str:
    """Writes the failure of a run in one line.

    >>> outcome = Outcome(Job(7, '0af3', 'direct, mse'), 'error: the loss is nan')
    >>> failure('w', outcome)
    'run 7 (direct, mse) failed: the loss is nan; its log: w/logs/0af3.log'

    Args:
        workdir: the folder of all results.
        outcome: the end of the run's job.
    """
    job, reason = outcome.job, outcome.error.removeprefix(_ERROR)
    where = os.fspath(log_of(workdir, job.id))
    return f'run {job.number} ({job.name}) failed: {reason}; its log: {where}'
