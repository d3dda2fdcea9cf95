"""Slurm sweeps: runs as array jobs, watched from one process.

Each missing run is one task of an array job, on one node. Runs that would wait for a stage of
another run are in a second array job, which starts after the first: see `jobs.waves`. A run that
needs more time than a job has is put into the queue again, and goes on from its last checkpoint.

The ids of the jobs lie in `WORKDIR/slurm`. So the process that waits may end: the jobs go on, and
the same command waits for them again and submits only runs that are neither finished nor queued.
Jobs are looked up with squeue, which needs no accounting database.
"""

import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.registry import parse_call
from ssl_extract.runtime import files, locks, progress
from ssl_extract.sweeps import jobs as jobs_lib
from ssl_extract.sweeps import local
from ssl_extract.sweeps.jobs import Job, Outcome

EVERY = 10.0  # seconds between two looks at the queue
# Seconds until a job that left the queue counts as failed where its log shows no error: that long a
# file that a node wrote may be unseen elsewhere, by NFS.
PATIENCE = 90.0
NUM_TIMEOUTS = 100  # after which a run is not put into the queue again
_SHARED = ('name', 'timeout_min', 'mem_gb', 'cpus_per_task', 'gpus_per_node')  # of all of submitit
_SINGLE = ('nodes', 'tasks_per_node', 'ntasks_per_node')  # a run is one process
_USAGE = '--slurm=\'partition="gpu", gpus_per_node=1, timeout_min=60\''


class Task(NamedTuple):
    """What a node calls: computes one run in a worker process.

    Attributes:
        command: the command of a worker.
        workdir: the folder of all results.
        job: the run.
    """

    command: tuple[str, ...]
    workdir: str
    job: Job

    def __call__(self) -> None:
        """Computes the run.

        Raises:
            RuntimeError: the run failed; its log says why.
        """
        for outcome in local.compute([self.job], self.command, self.workdir):
            if outcome.error:
                raise RuntimeError(jobs_lib.failure(self.workdir, outcome))

    def checkpoint(self) -> Any:
        """Returns the submission that goes on when the time of the job is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def read_options(text: str) -> dict[str, Any]:
    """Reads what a job gets: the arguments of submitit's executor, without the prefix slurm_.

    >>> read_options('partition="gpu", gpus_per_node=1, timeout_min=60')
    {'slurm_partition': 'gpu', 'gpus_per_node': 1, 'timeout_min': 60}

    Args:
        text: arguments as in a call, of literals.

    Raises:
        UserError: the text is no list of named literals, lacks the time, or asks for several nodes.
    """
    _, unnamed, options = parse_call(f'slurm({text})', '--slurm')
    if unnamed or not isinstance(options.get('timeout_min'), int):
        raise UserError(
            f'--slurm={text}: name each argument, and write timeout_min, the minutes of a job, as '
            f'in {_USAGE}; a run that takes longer goes on in another job'
        )
    if wrong := [name for name in options if name in _SINGLE]:
        raise UserError(f'--slurm={text}: leave out {wrong[0]}: a run is one process on one node')
    return {
        name if name in _SHARED or name.startswith('slurm_') else f'slurm_{name}': value
        for name, value in options.items()
    }


def compute(
    jobs: Sequence[Job],
    command: Sequence[str],
    workdir: epath.PathLike,
    options: Mapping[str, Any],
    env: Mapping[str, str],
) -> Iterator[Outcome]:
    """Submits the jobs that are not in the queue, and yields the end of each job as they end.

    Args:
        jobs: the runs to compute.
        command: the command of a worker, which calls `worker.serve`.
        workdir: the folder of all results, which all nodes see.
        options: as `read_options` returns them.
        env: variables of the environment of the jobs.

    Raises:
        UserError: there is no Slurm here, submitit is missing, or Slurm refuses the job.
    """
    workdir = epath.Path(workdir)
    with locks.lock(workdir / 'locks' / 'slurm.lock', 'the submission of jobs'):
        queue = _queue()
        if queue is None:
            raise UserError('--slurm: squeue fails here; write the command where sbatch works')
        ids = {job: _id_of(workdir, job) for job in jobs}
        new, after = [job for job in jobs if ids[job] not in queue], ''
        queued = len(jobs) - len(new)
        progress.say(f'{len(jobs)} runs: {len(new)} are submitted, {queued} were in the queue')
        for wave in jobs_lib.waves(new):
            submitted = _submit(wave, command, workdir, options, env, after)
            after = submitted[0].partition('_')[0]
            for job, slurm_id in zip(wave, submitted, strict=True):
                ids[job] = slurm_id
                files.write_json(_record(workdir, job), {'job': slurm_id})
                jobs_lib.log(workdir, job.id, jobs_lib.heading(f'Slurm job {slurm_id} submitted'))
    yield from _wait(ids, workdir)


def _wait(ids: dict[Job, str], workdir: epath.Path) -> Iterator[Outcome]:
    """Yields the end of each job, which files in the workdir and the queue tell."""
    waiting, left = dict(ids), {}
    while waiting:
        queue = _queue()
        if queue is None:
            progress.note(workdir / 'slurm', 'squeue does not answer; waiting for files alone')
        for job, slurm_id in [*waiting.items()]:
            error = ''
            if not jobs_lib.is_finished(workdir, job.id):
                if queue is None or slurm_id in queue:
                    continue
                error = jobs_lib.logged_error(workdir, job.id)
                if not error and time.monotonic() < left.setdefault(
                    job, time.monotonic() + PATIENCE
                ):
                    continue
                error = error or f'error: its job {slurm_id} left the queue before the run ended'
            del waiting[job]
            yield Outcome(job, error)
        if waiting:
            time.sleep(EVERY)


def _submit(
    wave: Sequence[Job],
    command: Sequence[str],
    workdir: epath.Path,
    options: Mapping[str, Any],
    env: Mapping[str, str],
    after: str,
) -> list[str]:
    """Submits one array job and returns the ids of its tasks.

    Args:
        wave: the runs.
        command, workdir, options, env: see `compute`.
        after: the id of the job that must end first, or ''.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    exports = [f'export {name}={shlex.quote(value)}' for name, value in env.items()]
    options = {'name': 'ssl_extract', **options}
    options['slurm_setup'] = [*exports, *options.get('slurm_setup', ())]
    if after:
        options['slurm_dependency'] = f'afterany:{after}'
    try:
        executor = submitit.AutoExecutor(
            workdir / 'slurm', cluster='slurm', slurm_max_num_timeout=NUM_TIMEOUTS
        )
        executor.update_parameters(**options)
        tasks = [Task(tuple(command), str(workdir), job) for job in wave]
        with executor.batch():
            submitted = [executor.submit(task) for task in tasks]
    except (NameError, AssertionError, ValueError, FailedJobError, FailedSubmissionError) as error:
        raise UserError(f'--slurm: {" ".join(str(error).split())}') from error
    return [job.job_id for job in submitted]


def check() -> None:
    """Checks that jobs can be submitted here.

    Raises:
        UserError: there is no sbatch, or submitit is not installed.
    """
    if shutil.which('sbatch') is None:
        raise UserError(
            '--slurm: there is no sbatch here; write the command where jobs are submitted'
        )
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(f'--slurm: {error}; pip install "ssl_extract[slurm]"') from error


def _queue() -> set[str] | None:
    """Returns the ids of the user's jobs that are not over; None where squeue does not answer."""
    command = ['squeue', '--me', '--noheader', '--array', '--format=%i']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else {*done.stdout.split()}


def _record(workdir: epath.Path, job: Job) -> epath.Path:
    return workdir / 'slurm' / f'run-{job.id}.json'


def _id_of(workdir: epath.Path, job: Job) -> str:
    """Returns the id of the Slurm job of a run; '' of a run that was never submitted."""
    path = _record(workdir, job)
    return files.read_json(path)['job'] if path.exists() else ''
