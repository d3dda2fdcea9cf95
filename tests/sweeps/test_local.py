"""The pool of local workers, in real processes whose runs are a line of Python each."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssl_extract.errors import UserError
from ssl_extract.sweeps import jobs as jobs_lib
from ssl_extract.sweeps import local, places
from ssl_extract.sweeps.jobs import Job

ROOT = pathlib.Path(__file__).parent.parent.parent
WORKER = """
import os, pathlib, sys, time
from ssl_extract.sweeps import worker

def compute(number, id):
    print('computes', number, flush=True)
    print('cores', sorted(os.sched_getaffinity(0)), 'process', os.getpid(), flush=True)
    exec(os.environ.get(f'RUN_{number}', ''))

def set_up():
    exec(os.environ.get('SET_UP', ''))
    return worker.Runner(sys.argv[1], compute)

sys.exit(worker.serve(set_up, lambda error: f'error: {error}'))
"""
ENDLESS = 'time.sleep(600)'
# A parent process of a worker that never ends its run.
PARENT = f"""
import sys
from ssl_extract.sweeps import local
from ssl_extract.sweeps.jobs import Job
command = [sys.executable, '-c', {WORKER!r}, sys.argv[1]]
list(local.compute([Job(0, 'run0', 'x')], command, sys.argv[1], env={{'RUN_0': {ENDLESS!r}}}))
"""


def jobs(count):
    return [Job(number, f'run{number}', f'name {number}') for number in range(count)]


def compute(workdir, count, workers=1, **env):
    """(number, error) of each run, as they ended; the environment says what a run does."""
    command = [sys.executable, '-c', WORKER, str(workdir)]
    shares = places.share(sorted(os.sched_getaffinity(0)), workers)
    outcomes = local.compute(
        jobs(count),
        command,
        workdir,
        places=[places.Place(cores) for cores in shares],
        env={'PYTHONPATH': str(ROOT), **env},
    )
    return [(outcome.job.number, outcome.error) for outcome in outcomes]


def log(workdir, number):
    return jobs_lib.log_of(workdir, f'run{number}').read_text()


def process_in(workdir, number):
    """The process that computes a run, as soon as its log names it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = jobs_lib.log_of(workdir, f'run{number}')
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) == 3:
            return int(lines[2].split()[-1])
        time.sleep(0.01)
    raise AssertionError(f'run {number} never started')


def is_alive(process):
    """Whether a process runs; one that ended and was not waited for is a zombie."""
    try:
        return pathlib.Path(f'/proc/{process}/stat').read_text().split()[2] != 'Z'
    except FileNotFoundError:
        return False


def test_a_failed_run_stops_no_other_and_its_log_ends_with_the_error(tmp_path):
    ended = compute(tmp_path, 3, workers=2, RUN_1='raise ValueError("one line")')
    assert sorted(ended) == [(0, ''), (1, 'error: one line'), (2, '')]
    head, said, cores, last = log(tmp_path, 1).splitlines()
    assert head.startswith('== 20') and head.endswith(': run 1') and said == 'computes 1'
    assert last == 'error: one line' == jobs_lib.logged_error(tmp_path, 'run1')
    assert jobs_lib.logged_error(tmp_path, 'run0') == ''
    if len(os.sched_getaffinity(0)) > 1:  # no two workers on one core
        taken = {log(tmp_path, n).splitlines()[2].split('] ')[0] for n in range(3)}
        assert all(',' not in cores for cores in taken) or len(os.sched_getaffinity(0)) > 2


def test_a_killed_worker_fails_its_run_alone_and_is_replaced(tmp_path):
    killer = threading.Thread(
        target=lambda: os.kill(process_in(tmp_path, 0), signal.SIGKILL), daemon=True
    )
    killer.start()
    ended = compute(tmp_path, 3, RUN_0=ENDLESS)
    line = 'error: its worker was killed by SIGKILL (by hand, or for want of memory)'
    assert ended == [(0, line), (1, ''), (2, '')]
    assert log(tmp_path, 0).splitlines()[-1] == line
    first, second = (log(tmp_path, number).split()[-1] for number in (1, 2))
    assert first == second  # one process after the other run
    assert compute(tmp_path, 1, RUN_0='os._exit(3)') == [
        (0, 'error: its worker ended with exit code 3')
    ]


def test_a_run_whose_log_cannot_be_written_fails_alone(tmp_path):
    """The disk is full before run 0, and at the end of run 1."""
    (tmp_path / 'logs').mkdir()
    os.symlink('/dev/full', jobs_lib.log_of(tmp_path, 'run0'))
    fill = 'os.dup2(os.open("/dev/full", os.O_WRONLY), 2); raise ValueError("one line")'
    (_, error), *others = compute(tmp_path, 3, RUN_1=fill)
    assert error.startswith('error: [Errno 28] No space left') and 'run0.log' in error
    assert others == [(1, 'error: one line'), (2, '')]
    assert 'one line' not in log(tmp_path, 2)
    first, second = (log(tmp_path, number).split()[-1] for number in (1, 2))
    assert first == second  # one process


def test_a_worker_that_cannot_start_is_one_error(tmp_path):
    with pytest.raises(UserError, match='a worker could not start: no such device$'):
        compute(tmp_path, 2, workers=2, SET_UP='raise ValueError("no such device")')
    with pytest.raises(
        UserError, match='a worker could not start: its worker ended with exit code 5'
    ):
        compute(tmp_path, 1, SET_UP='os._exit(5)')


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path, number):
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    worker = process_in(tmp_path, 0)
    assert is_alive(worker)
    parent.send_signal(number)
    parent.wait()
    deadline = time.monotonic() + 30
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(worker)


def test_runs_that_share_stages_are_in_waves():
    needs = ['va', 'va', 'v', 'wb', 'b', 'cd', 'ac', '']
    todo = [Job(number, str(number), '', frozenset(need)) for number, need in enumerate(needs)]
    waves = [[job.number for job in wave] for wave in jobs_lib.waves(todo)]
    assert waves == [[0, 3, 5, 7], [1, 2, 4, 6]]
    seeds = [Job(n, str(n), '', frozenset({'victim', f'account {n % 3}'})) for n in range(9)]
    waves = [[job.number for job in wave] for wave in jobs_lib.waves(seeds)]
    assert waves == [[0], [1, 2, 3, 6], [4, 5, 7, 8]]


def test_more_workers_than_cores_are_refused():
    cores = len(os.sched_getaffinity(0))
    shares = [place.cores for place in places.on_cpu(cores)]
    assert sorted(sum(shares, ())) == sorted(os.sched_getaffinity(0))
    with pytest.raises(UserError, match=f'--workers={cores + 1}: there are {cores} cores here'):
        places.on_cpu(cores + 1)
