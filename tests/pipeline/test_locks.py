"""Two real processes that want one stage or account: one has it, the other waits and says so."""

import fcntl
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssl_extract.runtime import locks

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = """
import os, pathlib, sys, time
from ssl_extract.pipeline.context import Workspace
from ssl_extract.pipeline.stage import cached
from etils import epath

workdir, go = epath.Path(sys.argv[1]), sys.argv[2]

def make(folder):
    with open(workdir / 'made.txt', 'a') as log:
        print(os.getpid(), file=log)
    while not (workdir / go).exists():
        time.sleep(0.02)
    return {'by': os.getpid()}

print(cached(Workspace(workdir, mesh=None), 'mark', {'stage': 'mark', 'n': 1}, make)['by'])
"""

ACCOUNT = """
import os, pathlib, sys, time
import numpy as np
import ssl_extract

workdir, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])

def fn(inputs):
    with open(workdir / 'made.txt', 'a') as log:
        log.writelines(f'{int(row[0])} ' for row in inputs)
    time.sleep(0.4)
    return inputs[:, :2]

victim = ssl_extract.victims.from_function(fn, dim=2, address='v')
oracle = ssl_extract.make_oracle(victim, 'gaussian_noise(stddev=1.0)', budget=number)
inputs = np.arange(60, dtype=np.float32)[:number, None].repeat(3, axis=1)
answers = ssl_extract.collect(oracle, inputs, folder=workdir / 'account', batch_size=8)
print(answers.bill.billed, hash(answers.representations[:40].tobytes()))
"""


def start(workdir, argument, program=PROGRAM):
    command = [sys.executable, '-c', program, str(workdir), str(argument)]
    env = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), 'PYTHONHASHSEED': '0'}
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(path):
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def waits(process):
    """The line in which a process says that it waits; '' if it ends without one."""
    line = process.stderr.readline()
    while line and 'waiting' not in line:
        line = process.stderr.readline()
    return line


def finish(process):
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return printed.split(), [line for line in said.splitlines() if 'waiting' in line]


@pytest.fixture
def first(tmp_path):
    """A process that is making the stage."""
    process = start(tmp_path, 'never')
    wait_for(tmp_path / 'made.txt')
    yield process
    process.kill()
    process.communicate()


def made_by(workdir):
    return (workdir / 'made.txt').read_text().split()


def test_the_second_waits_says_so_in_one_line_and_reads_what_the_first_made(tmp_path):
    first = start(tmp_path, 'go')
    wait_for(tmp_path / 'made.txt')
    second = start(tmp_path, 'go')
    line = waits(second)
    (tmp_path / 'go').touch()
    printed, waiting = finish(first)
    assert printed == [str(first.pid)] and waiting == []
    printed, waiting = finish(second)
    (folder,) = (tmp_path / 'mark').iterdir()
    who = f'{first.pid} on {platform.node()}'
    assert line == f'  waiting for another process ({who}): mark/{folder.name}\n' and not waiting
    assert printed == [str(first.pid)]
    assert made_by(tmp_path) == [str(first.pid)]
    assert sorted(path.name for path in folder.iterdir()) == ['result.json', 'spec.json']


def test_a_holder_that_has_not_written_its_name_yet_has_none(tmp_path, capsys):
    path = tmp_path / 'mark.lock'
    path.with_suffix('.holder').touch()
    held = path.open('w')
    fcntl.flock(held, fcntl.LOCK_EX)
    threading.Timer(0.2, held.close).start()
    with locks.lock(path, 'mark'):
        assert capsys.readouterr().err == '  waiting for another process: mark\n'


def test_a_killed_process_lets_go_and_the_next_makes_it(tmp_path, first):
    second = start(tmp_path, '.')
    waits(second)
    first.send_signal(signal.SIGKILL)
    printed, _ = second.communicate(timeout=120)
    assert second.returncode == 0 and printed.split() == [str(second.pid)]
    assert made_by(tmp_path) == [str(first.pid), str(second.pid)]


def test_other_stages_do_not_wait(tmp_path, first):
    other = PROGRAM.replace("'n': 1", "'n': 2")
    env = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', other, str(tmp_path), '.']
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'waiting' not in done.stderr and first.poll() is None


def test_two_budgets_of_one_account_ask_each_query_once_and_leave_a_store_for_all(tmp_path):
    small = start(tmp_path, 40, ACCOUNT)
    wait_for(tmp_path / 'made.txt')
    large = start(tmp_path, 60, ACCOUNT)
    (billed, digest), waited = finish(small)
    assert (billed, waited) == ('40', [])
    (billed, same), waited = finish(large)
    assert (billed, same) == ('60', digest)
    who = f'{small.pid} on {platform.node()}'
    assert waited in ([], [f'  waiting for another process ({who}): {tmp_path / "account"}'])
    sent = sorted(map(int, made_by(tmp_path)))
    assert sent == list(range(60))
    (billed, same), _ = finish(start(tmp_path, 40, ACCOUNT))
    assert (billed, same) == ('40', digest) and len(made_by(tmp_path)) == 60
