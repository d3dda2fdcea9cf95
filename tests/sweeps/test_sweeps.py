"""Whole sweeps: local workers, and jobs of a real Slurm, of which one run fails on purpose."""

import logging
import os
import pathlib
import re
import signal
import threading
import time

import pytest
import slurm
from processes import ROOT, finish, read, results, start

from ssl_extract import cli
from ssl_extract.errors import UserError
from ssl_extract.sweeps import slurm as slurm_sweep

SWEEP = 'tests/helpers/sweep.py'
FAILED = re.compile(r'run \d+ \(.*\) failed: .*; its log: .*')
NOT_FINITE = 'surrogate direct mse 32: the loss is nan at step 1; lower attack.learning_rate'


@pytest.fixture
def logging_restored():
    """The command sets up logging for its process."""
    root, handlers, level = logging.root, logging.root.handlers[:], logging.root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def failures(said):
    """The lines of failed runs, between those of the progress bar."""
    lines = [line.strip() for line in re.split('[\r\n]', said)]
    return [line for line in lines if FAILED.fullmatch(line)]


def surrogates(workdir):
    """The runs whose surrogate has rows."""
    return {row['run'] for row in results(workdir) if row['role'] == 'surrogate'}


def attempts(workdir):
    """How often each run was started, by id."""
    logs = workdir.glob('logs/*[0-9a-f].log')
    return {log.stem: len(re.findall('^==.*: run', log.read_text(), re.M)) for log in logs}


def started(before, after):
    return {run for run in after if after[run] > before.get(run, 0)}


def wait_for(folder, pattern, text=''):
    """The match of a text in a file, as soon as there is one."""
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        for path in folder.glob(pattern):
            if found := re.match(text, path.read_text()):
                return found
        time.sleep(0.005)
    raise AssertionError(f'{pattern} never came')


def kill_the_maker_of_the_victim(workdir, killed):
    """kill -9 for the process that trains the victim, which all runs share."""
    killed.append(int(wait_for(workdir, 'locks/victim-*.holder', r'(\d+) on')[1]))
    os.kill(killed[0], signal.SIGKILL)


def sweep(capsys, workdir, workers):
    """The exit code and the lines of a sweep of three runs, by this process and its workers."""
    words = [f'--config={ROOT / SWEEP}', f'--workdir={workdir}', f'--workers={workers}']
    return cli.main(['ssl-extract', 'run', *words]), capsys.readouterr().err


def test_a_failed_run_stops_no_other_and_alone_is_run_again(tmp_path, capsys, logging_restored):
    code, said = sweep(capsys, tmp_path, workers=2)
    before = attempts(tmp_path)
    (failed,) = failures(said)
    assert code == 1 and NOT_FINITE in failed and failed.startswith('run 2 (')
    assert '1 of 3 runs failed; to compute what is missing, write: ssl-extract --config=' in said
    log = pathlib.Path(failed.rpartition(' ')[2])
    assert log.read_text().splitlines()[-1].startswith(f'error: {NOT_FINITE}')
    assert len(before) == 3 and set(before.values()) == {1}
    assert surrogates(tmp_path) == before.keys() - {log.stem}
    assert (tmp_path / 'report.html').exists()

    code, said = sweep(capsys, tmp_path, workers=1)
    assert code == 1 and '2 of 3 runs: finished before' in said and failures(said) == [failed]
    assert started(before, attempts(tmp_path)) == {log.stem}


@pytest.mark.wide
def test_a_killed_worker_stops_no_other_run(tmp_path, capsys, logging_restored):
    """The worker that trains the victim of all runs; the pool alone is in test_local.py."""
    killed = []
    arguments = (tmp_path, killed)
    killer = threading.Thread(target=kill_the_maker_of_the_victim, args=arguments, daemon=True)
    killer.start()
    code, said = sweep(capsys, tmp_path, workers=2)
    before = attempts(tmp_path)
    lost, failed = sorted(failures(said), key=lambda line: 'nan' in line)
    assert code == 1 and NOT_FINITE in failed
    assert 'its worker was killed by SIGKILL (by hand, or for want of memory); its log:' in lost
    log = pathlib.Path(lost.rpartition(' ')[2])
    assert f'process {killed[0]} on' in log.read_text()
    assert len(before) == 3 and set(before.values()) == {1}
    (done,) = surrogates(tmp_path)

    code, said = sweep(capsys, tmp_path, workers=1)
    assert code == 1 and '1 of 3 runs: finished before' in said
    assert started(before, attempts(tmp_path)) == before.keys() - {done}
    assert failures(said) == [failed] and surrogates(tmp_path) == {done, log.stem}


def test_what_a_job_of_slurm_gets_is_written_as_arguments():
    given = 'partition="gpu", mem_gb=8, timeout_min=60, setup=["module load cuda"]'
    assert slurm_sweep.read_options(given) == {
        'slurm_partition': 'gpu',
        'mem_gb': 8,
        'timeout_min': 60,
        'slurm_setup': ['module load cuda'],
    }
    wrong = {
        'partition="gpu"': 'write timeout_min, the minutes of a job',
        'partition=gpu, timeout_min=5': 'an argument is a number, True, None, a list, or a',
        'timeout_min=60, nodes=2': 'leave out nodes: a run is one process on one node',
    }
    for text, message in wrong.items():
        with pytest.raises(UserError, match=message):
            slurm_sweep.read_options(text)


def test_flags_that_contradict_each_other_are_refused(capsys, logging_restored):
    words = ['ssl-extract', f'--config={ROOT / SWEEP}', '--workers=1']
    assert cli.main([*words, '--slurm=timeout_min=5']) == 2
    assert 'error: --workers and --slurm: write one of the two\n' in capsys.readouterr().err
    assert cli.main([*words, '--workdir=gs://bucket/runs']) == 2
    assert 'a bucket has no locks; write a folder\n' in capsys.readouterr().err


@pytest.mark.wide
def test_24_runs_in_two_local_workers_are_those_of_one_process(tmp_path):
    process = start(tmp_path / 'sweep', '--workers=2', config=f'{SWEEP}:24')
    said = process.communicate(timeout=1800)[0]
    (failed,) = failures(said)
    assert process.returncode == 1 and NOT_FINITE in failed and failed.startswith('run 23 (')
    before = attempts(tmp_path / 'sweep')
    assert len(surrogates(tmp_path / 'sweep')) == 23 and set(before.values()) == {1}

    process = start(tmp_path / 'sweep', '--workers=2', config=f'{SWEEP}:24')
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 1 and '23 of 24 runs: finished before' in said
    assert failures(said) == [failed]
    assert len(started(before, attempts(tmp_path / 'sweep'))) == 1

    for index in (0, 22):
        finish(start(tmp_path / 'one', f'--run_index={index}', config=f'{SWEEP}:24'))
    seeds = [(r['seed'], r['task'], r['metric'], r['value']) for r in results(tmp_path / 'sweep')]
    rows = read(tmp_path / 'one' / 'results.jsonl')
    assert rows and all((r['seed'], r['task'], r['metric'], r['value']) in seeds for r in rows)


@pytest.mark.wide
@pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or 'Slurm is here')
def test_24_runs_through_a_slurm_of_one_node(tmp_path, monkeypatch):
    """The command is interrupted while its jobs run, and waits for the same jobs again."""
    workdir = tmp_path / 'sweep'
    flags = ('--slurm=timeout_min=60, cpus_per_task=1',)
    with slurm.running(tmp_path / 'slurm') as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        process = start(workdir, *flags, config=f'{SWEEP}:24')
        wait_for(workdir, 'runs/*/run.json')
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
        assert (
            process.returncode == 130 and '24 runs: 24 are submitted, 0 were in the queue' in said
        )

        process = start(workdir, *flags, config=f'{SWEEP}:24')
        said = process.communicate(timeout=3600)[0]
        (failed,) = failures(said)
        assert process.returncode == 1 and NOT_FINITE in failed and failed.startswith('run 23 (')
        assert ' runs: 0 are submitted, ' in said
        before = attempts(workdir)
        assert len(surrogates(workdir)) == 23 and set(before.values()) == {1}

        process = start(workdir, *flags, config=f'{SWEEP}:24')
        said = process.communicate(timeout=600)[0]
        assert process.returncode == 1 and '23 of 24 runs: finished before' in said
        assert '1 runs: 1 are submitted, 0 were in the queue' in said and failures(said) == [failed]
        assert len(started(before, attempts(workdir))) == 1
