"""The flags `--workers` and `--slurm` of the command `run`."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from ssl_extract import report
from ssl_extract.cli import arguments
from ssl_extract.errors import UserError
from ssl_extract.pipeline import plan as planning
from ssl_extract.pipeline import run as pipeline
from ssl_extract.runtime import files, memory, progress
from ssl_extract.sweeps import jobs as jobs_lib
from ssl_extract.sweeps import local, places, slurm
from ssl_extract.sweeps.jobs import Job, Outcome


def is_asked(values: Any) -> bool:
    """Returns whether the flags of `run` ask for other processes.

    Args:
        values: the flags.
    """
    return values.workers is not None or values.slurm is not None


def main(request: Any, argv: list[str]) -> int:
    """Computes the missing runs in other processes, and writes the report on all finished runs.

    This process checks all runs first. It leaves accelerators to the others.

    Args:
        request: the flags, as `running.read` returns them.
        argv: the program's name and flags.

    Returns:
        The exit code: 0, or 1 where a run failed.

    Raises:
        UserError: a flag or a field of the config is wrong; nothing was started.
    """
    values, folder = request.values, files.absolute(request.workdir)
    if values.workers is not None and values.slurm is not None:
        raise UserError('--workers and --slurm: write one of the two')
    if values.hosts:
        raise UserError(
            '--hosts is of one run in several processes: leave out --workers and --slurm'
        )
    if values.config.training.replicas > 1:
        raise UserError(
            f'training.replicas={values.config.training.replicas}: each process of --workers and '
            '--slurm takes one run at a time; write 1, or leave out these flags'
        )
    if not files.is_local(folder):
        raise UserError(
            f'workdir={request.workdir}: processes share a folder, since a bucket has no locks; '
            'write a folder'
        )
    start = _slurm(values.slurm) if values.workers is None else _local(values.workers)
    jax.config.update('jax_platforms', 'cpu')

    total, jobs = _jobs(request, folder)
    if total > len(jobs):
        print(f'{total - len(jobs)} of {total} runs: finished before', file=sys.stderr, flush=True)
    failed = _follow(start(jobs, argv, folder), len(jobs), folder) if jobs else []
    if pipeline.write_results(folder):
        report.write_from(folder, [folder], request.title)
        print(f'report: {folder / "report.html"}', file=sys.stderr, flush=True)
    if failed:
        again = arguments.shown_command(argv)
        print(
            f'{len(failed)} of {total} runs failed; to compute what is missing, write: {again}',
            file=sys.stderr,
            flush=True,
        )
    return 1 if failed else 0


def _jobs(request: Any, folder: epath.Path) -> tuple[int, list[Job]]:
    """Checks all runs; returns how many there are and a job for each that is not finished."""
    config, fixed = request.values.config, request.fixed
    runs = pipeline.prepare(config, folder, fixed)
    pipeline.list_comparisons(config, fixed, runs)
    plans = [planning.plan_one(number, run) for number, run in enumerate(runs)]
    plans = pipeline.pick(plans, request.values.run_index)
    plans = [*{plan['id']: plan for plan in reversed(plans)}.values()][::-1]  # each id once
    jobs = [
        Job(plan['run'], plan['id'], plan['name'], frozenset(_missing(plan)))
        for plan in plans
        if not plan['done']
    ]
    pipeline.forget()
    return len(plans), [job for wave in jobs_lib.waves(jobs) for job in wave]


def _missing(plan: dict[str, Any]) -> Iterator[str]:
    return (stage['address'] for stage in plan['stages'] if not stage['done'])


def _local(workers: int) -> Any:
    """Returns the function that starts local workers."""
    if memory.is_cpu_only():
        shares = places.on_cpu(workers)
    else:
        shares = places.on_accelerators(workers, jax.config.jax_platforms)

    def start(jobs: list[Job], argv: list[str], folder: epath.Path) -> Iterator[Outcome]:
        progress.say(f'{len(jobs)} runs in {min(workers, len(jobs))} processes; {_logs(folder)}')
        log = folder / 'logs' / 'workers.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'a') as file:
            env = _environment()
            yield from local.compute(jobs, _command(argv), folder, places=shares, env=env, log=file)

    return start


def _slurm(text: str) -> Any:
    """Returns the function that submits jobs to Slurm and waits for them."""
    options = slurm.read_options(text)
    slurm.check()

    def start(jobs: list[Job], argv: list[str], folder: epath.Path) -> Iterator[Outcome]:
        progress.say(f'the jobs go on after Ctrl-C, and this command waits again; {_logs(folder)}')
        yield from slurm.compute(jobs, _command(argv), folder, options, _environment())

    return start


def _follow(outcomes: Iterator[Outcome], count: int, folder: epath.Path) -> list[Outcome]:
    """Shows progress and a line for each failure; returns the failures."""
    failed = []
    with progress.progress(total=count, desc='runs', unit='run') as bar:
        for outcome in outcomes:
            if outcome.error:
                failed.append(outcome)
                progress.say(jobs_lib.failure(folder, outcome))
            bar.update()
        bar.delay = 0  # the last state is shown, even of a single run
    return failed


def _logs(folder: epath.Path) -> str:
    return f'their logs: {folder / "logs"}'


def _command(argv: list[str]) -> list[str]:
    """Returns the command of a worker, which reads the same flags."""
    return [sys.executable, '-P', '-m', 'ssl_extract.cli.working', *argv]


def _environment() -> dict[str, str]:
    """Lets a worker import what this process can import."""
    return {'PYTHONPATH': os.pathsep.join(path or os.getcwd() for path in sys.path)}
