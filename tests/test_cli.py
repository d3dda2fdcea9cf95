"""The command line: what it lists, describes and refuses, in this process and in real ones."""

import errno
import io
import logging
import os
import re
import shlex
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from processes import ROOT, results

from ssl_extract import cli
from ssl_extract.cli import arguments, catalog, experiments, failures, running
from ssl_extract.errors import UserError
from ssl_extract.runtime import files

TINY = f'--config={ROOT}/tests/helpers/tiny.py'


@pytest.fixture(autouse=True)
def logging_restored():
    """The command sets up logging for its process; the next test starts from what was there."""
    root, handlers, level = logging.root, logging.root.handlers[:], logging.root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def call(capsys, *words):
    """The exit code, stdout and stderr of a command."""
    code = cli.main(['ssl-extract', *words])
    return code, *capsys.readouterr()


def error_of(capsys, *words):
    """The one line on stderr of a command that is refused."""
    code, out, err = call(capsys, *words)
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1, (
        out,
        err,
    )
    return err


def test_list_shows_signatures_and_first_lines(capsys):
    _, out, _ = call(capsys, 'list', 'losses', 'plans')
    assert out.startswith(
        'losses\n  barlow(lambda_: float of at least 0 = 0.0051)\n      Computes the loss of '
    )
    assert (
        '\n\nplans\n' in out and 'views(m: int from 1 to 10000 = 10, query_augmentation=...)' in out
    )
    assert max(map(len, out.splitlines())) <= 100


def test_list_shows_every_registry_of_the_sources():
    """Against the sources: a registry that no config can name would be missing."""
    sources = [path.read_text() for path in (ROOT / 'ssl_extract').glob('*/**/*.py')]
    found = re.findall(r'^([A-Z_]+)\b[^=\n]* = Registry\(', '\n'.join(sources), re.MULTILINE)
    assert len(found) >= 16
    assert set(catalog.rooms()) == {name.lower() for name in found} | {'experiments'}


def test_list_shows_a_module_of_ones_own(capsys, tmp_path, monkeypatch, registries_restored):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_own_losses.py').write_text(
        'from ssl_extract import losses\n'
        "@losses.LOSSES.register('my_own')\n"
        'def my_own(delta=1.0, power: int = 2):\n'
        '    """Is mine.\n\n    Not shown."""\n'
    )
    _, out, _ = call(capsys, 'list', 'losses', '--modules=my_own_losses')
    assert '  my_own(delta=1.0, power: int = 2)\n      Is mine.\n' in out


def test_wrong_words_are_refused_in_one_line(capsys, tmp_path):
    assert 'write attacks, augmentations, ' in error_of(capsys, 'list', 'loses')
    assert "'steal' is no command: write run, list, report, store" in error_of(capsys, 'steal')
    assert 'Did you mean: workdir' in error_of(capsys, '--wrkdir=x')
    assert "unexpected 'x': write --config=" in error_of(capsys, 'run', 'x')
    assert "flag 'out'" in error_of(capsys, 'run', '--out=x')
    assert 'store: write one name, as in' in error_of(capsys, 'store', '--config=quickstart')
    assert 'write a name of letters' in error_of(capsys, 'store', 'no/name', TINY)
    assert "no module 'my_lost'" in error_of(capsys, 'list', '--modules=my_lost')
    assert 'name the workdirs' in error_of(capsys, 'report')
    assert 'there is no such folder' in error_of(capsys, 'report', f'{tmp_path}/a')
    assert 'write --out=DIR' in error_of(capsys, 'report', str(tmp_path), str(tmp_path))


def test_help_names_every_command_and_flag(capsys):
    code, out, _ = call(capsys, 'run', '--help')
    assert code == 0 and max(map(len, out.splitlines())) <= 100
    flags = ('--config', '--workdir', '--dry_run', '--run_index', '--out', '--int16')
    assert all(word in out for word in (*arguments.COMMANDS, *flags))


def test_a_dry_run_numbers_the_runs_and_writes_nothing(capsys, tmp_path):
    workdir = f'--workdir={tmp_path}'
    code, out, _ = call(capsys, TINY, workdir, '--dry_run', '--config.attack.epochs', '7')
    assert code == 0 and not list(tmp_path.iterdir())
    runs = re.findall(r'^ +(\d+)  (\w+)  (\w+, \w+)', out, re.MULTILINE)
    assert [run[0] for run in runs] == ['0', '1', '2'] and len({run[1] for run in runs}) == 3
    assert '\n3 runs, 152 queries' in out  # 41, 41 and 70
    _, one, _ = call(capsys, TINY, workdir, '--dry_run', '--run_index=2')
    assert one.startswith('  2  ') and '\n1 run, 70 queries' in one
    refused = error_of(capsys, TINY, workdir, '--dry_run', '--run_index=3')
    assert refused == 'error: run_index=3: write a number from 0 to 2\n'
    assert 'seed=-1' in error_of(capsys, TINY, workdir, '--dry_run', '--config.seed=-1')


def stages(**done):
    return [{'kind': k, 'address': f'{k}7', 'done': is_done} for k, is_done in done.items()]


def test_a_dry_run_counts_what_runs_share_once():
    first = dict(run=0, id='a', name='mse', queries=128, seconds=100.0, done=False)
    second = first | dict(run=1, id='b', queries=512, stages=stages(victim=True, answers=False))
    first['stages'] = stages(victim=True, answers=False)
    last = running.describe([first, second]).splitlines()[-1]
    assert last == '2 runs, 512 queries; 1 of 2 stages done; at most 3 min'
    other = second | dict(stages=stages(surrogate=False), seconds=None)
    last = running.describe([first, other]).splitlines()[-1]
    assert last == '2 runs, 640 queries; 1 of 3 stages done'
    assert running.describe([first | {'done': True}]).splitlines()[-2].strip() == 'finished'


@pytest.mark.wide  # processes do one run each in test_signals_and_streams.py
def test_one_run_of_several(capsys, tmp_path):
    small = ('victim.epochs=1', 'attack.epochs=1', 'baselines.scratch_epochs=0')
    small += ('baselines.random=False', "legitimate.users='()'")
    flags = [f'--config.{field}'.replace("'", '') for field in small]
    code, _, err = call(capsys, TINY, f'--workdir={tmp_path}', '--run_index=2', *flags)
    assert code == 0 and '[1/1] direct, mse, 70 queries, online' in err
    assert {row['plan'] for row in results(tmp_path) if row['role'] == 'surrogate'} == {'online'}


def test_experiments_are_found_by_name_and_by_path():
    here = ROOT / 'experiments'
    assert set(experiments.names()) == {path.stem for path in here.glob('*.py')}
    assert experiments.load('quickstart').title == 'quickstart'
    assert experiments.load('paper:rda').config == experiments.load(f'{here}/paper.py:rda').config
    assert experiments.load('paper:rda').title == 'paper_rda'
    with pytest.raises(UserError, match='no such experiment; .* attacks_cpu, backdoors, '):
        experiments.load('quikstart')


def test_an_experiment_imports_its_neighbors(tmp_path):
    (tmp_path / 'a_neighbor.py').write_text('SEED = 77\n')
    (tmp_path / 'mine.py').write_text(
        'import a_neighbor\nfrom ssl_extract import config\n\n'
        'def get_config():\n    c = config.base()\n    c.seed = a_neighbor.SEED\n    return c\n'
    )
    before = sys.path[:]
    assert experiments.load(f'{tmp_path}/mine.py').config.seed == 77
    assert sys.path == before


def damaged_archive():
    np.load(io.BytesIO(b'PK\x03\x04 cut off'))


def too_large_for_the_device():
    jnp.ones((1 << 46,), 'uint8').block_until_ready()


def too_large_for_the_machine():
    np.ones(1 << 50)


def a_folder_under_a_file():
    os.mkdir(f'{__file__}/folder')


@pytest.mark.parametrize(
    ('fail', 'message'),
    [
        (damaged_archive, 'a file is damaged (BadZipFile: '),
        (too_large_for_the_device, 'out of memory: make victim.batch_size'),
        (too_large_for_the_machine, 'out of memory: make victim.batch_size'),
        (
            a_folder_under_a_file,
            'test_cli.py/folder: Not a directory: a file lies where a',
        ),
    ],
)
def test_real_failures_are_one_line_that_says_what_to_do(fail, message):
    with pytest.raises(Exception) as raised:
        fail()
    line = failures.explain(raised.value)
    assert line.startswith('error: ') and '\n' not in line
    assert message in line and failures.AGAIN in line


def test_full_disks_and_missing_rights_say_what_to_do():
    full = failures.explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert full.startswith('error: No space left on device: make room')
    closed = failures.explain(PermissionError(errno.EACCES, os.strerror(errno.EACCES), 'runs/a'))
    assert closed.startswith('error: runs/a: Permission denied: write another folder')


def test_a_bug_keeps_its_traceback():
    assert failures.explain(IndexError('list index out of range')) is None


def test_a_traceback_is_shown_on_demand(capsys):
    code, _, err = call(capsys, 'list', 'loses', '--verbosity=1')
    assert code == 2 and err.startswith('Traceback (most recent call last)')
    assert err.splitlines()[-1].startswith('error: list loses: ')


def test_the_file_that_the_system_refused_is_named(tmp_path):
    """A file is written under a temporary name, and the message names the file itself."""
    (tmp_path / 'results.jsonl').mkdir()
    with pytest.raises(OSError) as raised:
        files.write_text(tmp_path / 'results.jsonl', 'x')
    line = failures.explain(raised.value)
    assert (
        f'{tmp_path}/results.jsonl' in line
        and 's a directory: a file lies where a folder belongs, or a' in line
    )


def test_the_system_s_error_in_a_message_of_the_checkpoints_writer_is_found():
    told = 'RESOURCE_EXHAUSTED: Failed writing: "/a/b": Failed to write 9 bytes to file 7: '
    error = ValueError(told + "No space left on device [os_error_code='28']")
    assert failures.explain(error).startswith('error: /a/b: No space left on device: make room')
    outer = 'Error opening "zarr" driver: Error writing "params.kernel/.zarray": '
    error = ValueError(f'{outer}{error}')
    assert failures.explain(error).startswith('error: /a/b: No space left on device: make room')


def test_a_warning_takes_one_line_and_an_error_in_a_destructor_none():
    code = (
        'import warnings; from ssl_extract.cli import noise; noise.reduce_prints()\n'
        'class Broken:\n  def __del__(self): 1 / 0\n'
        'Broken(); warnings.warn("two\\nlines")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, 'warning: two lines\n')


def test_an_interrupt_of_a_call_ends_the_call_alone(capsys, tmp_path):
    """Signals end a process of the command; of a notebook they interrupt the call."""
    text = 'import signal\ndef get_config():\n  signal.raise_signal(signal.SIGINT)'
    (tmp_path / 'mine.py').write_text(text)
    words = (f'--config={tmp_path}/mine.py', '--workdir=my runs')
    code, out, err = call(capsys, *words)
    assert (code, out) == (130, '') and err.startswith('interrupted: ')
    assert shlex.split(err.partition('write: ')[2]) == ['ssl-extract', *words]
