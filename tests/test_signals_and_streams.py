"""Real processes of the command that are interrupted, or cannot write: one line, what to do."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from processes import ROOT, results

from ssl_extract.cli import arguments

TINY = '--config=tests/helpers/tiny.py'
SMALL = ('--config.victim.epochs=1', '--config.attack.epochs=1', '--run_index=0')
SMALL += ('--config.baselines.scratch_epochs=0', '--config.baselines.random=false')
SMALL += ('--config.legitimate.users=()',)


def start(*words, limits='', **kwargs):
    """A process of the command, behind shell commands that limit or redirect it."""
    command = ['sh', '-c', f'{limits} exec "$@"', 'sh', sys.executable, *words]
    streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | kwargs
    return subprocess.Popen(command, cwd=ROOT, text=True, **streams)


def ended(process):
    """The exit code, stdout and stderr of a process."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_command_is_written_down_with_its_quotes():
    words = ['--config.defense=round | refuse', '--workdir=my runs/a$b"c\'d', '']
    shown = arguments.shown_command(['sub/launch.py', *words])
    assert shlex.split(shown) == ['python', 'sub/launch.py', *words]
    assert arguments.shown_command(['/usr/bin/ssl-extract', 'list']) == 'ssl-extract list'


SIGNALED = """
import gc, os, signal, sys
from ssl_extract.cli import signals
signals.end_on_signals('THE COMMAND')
number = signal.Signals[sys.argv[1]]
gc.callbacks.append(lambda *_: signal.raise_signal(number))  # as in JAX's, an error would be lost
if os.fork() == 0:
    gc.collect()
    os._exit(0)
os.wait()
gc.collect()
print('goes on')
"""
CAUSES = {'INT': 'interrupted', 'TERM': 'terminated (SIGTERM)', 'HUP': 'the terminal was closed'}


@pytest.mark.parametrize(('name', 'cause'), CAUSES.items())
def test_a_signal_ends_the_process_in_one_line_wherever_it_arrives(name, cause):
    code, out, err = ended(start('-c', SIGNALED, f'SIG{name}'))
    (line,) = err.split('\n')[1:-1]  # one of the process, none of its child
    assert line.startswith(cause) and line.endswith('to go on, write: THE COMMAND')
    assert out == '' and code == 128 + signal.Signals[f'SIG{name}']


def test_a_signal_that_is_ignored_stays_ignored():
    """As by nohup, and of a process in the background of a script."""
    code, out, err = ended(start('-c', SIGNALED, 'SIGHUP', limits="trap '' HUP;"))
    assert (code, out.split('\n')[-2], err) == (0, 'goes on', '')


def test_an_interrupted_run_says_with_which_command_it_goes_on(tmp_path):
    words = (TINY, f'--workdir={tmp_path}/my runs', '--config.victim.epochs=100000')
    process = start('launch.py', *words)
    deadline = time.monotonic() + 120
    while not any(tmp_path.glob('*/victim')) and time.monotonic() < deadline:
        time.sleep(0.02)  # and then it compiles
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    run, line = [line for line in re.split('[\r\n]', err) if line and '/100000' not in line]
    assert code == 130 and run.startswith('[1/3] ') and line.startswith('interrupted: ')
    assert shlex.split(line.partition('write: ')[2]) == ['python', 'launch.py', *words]


def test_a_line_is_told_on_stdout_where_stderr_cannot_be_written():
    known = 'run, list, report, store, export, score, serve, tokens, or --config=...'
    told = f"error: 'steal' is no command: write {known}\n"
    for limits in ('exec 2>&-;', 'exec 2>/dev/full;', 'exec 0<&- 2>&-;'):
        assert ended(start('launch.py', 'steal', limits=limits)) == (2, told, '')
    for limits in ('exec >&-;', 'exec >/dev/full;', ''):
        assert ended(start('launch.py', 'steal', limits=limits)) == (2, '', told)
    process = start('launch.py', 'steal')
    process.stderr.close()
    process.stderr = None
    assert ended(process)[:2] == (2, told)


def test_a_full_disk_behind_stdout_is_one_line():
    code, _, err = ended(start('launch.py', '--help', limits='exec >/dev/full;'))
    assert code == 2 and err.startswith('error: No space left on device: make room')
    assert err.count('\n') == 1


@pytest.mark.wide
def test_a_reader_that_has_seen_enough_is_no_error():
    process = start('launch.py', 'list')
    process.stdout.close()
    process.stdout = None
    assert ended(process)[::2] == (0, '')


def test_a_reader_of_both_streams_is_told_nothing_and_the_exit_code_says_so():
    process = start('launch.py', 'steal', limits='exec 2>&1;')
    process.stdout.close()
    process.stdout = None
    assert ended(process)[0] == 2


def test_a_run_whose_progress_is_read_no_more_is_not_taken_for_finished(tmp_path):
    process = start('launch.py', TINY, f'--workdir={tmp_path}/w', *SMALL)
    process.stderr.close()
    process.stderr = None
    code, out, _ = ended(process)
    assert code == 2 and out.startswith('error: Broken pipe: the reader of the output, or a ')
    assert not list(tmp_path.rglob('run.json'))


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    code = (
        'import os, sys; from ssl_extract.cli import streams; streams.open_closed(); '
        'file = open(sys.argv[1], "w"); os.write(2, b"a log"); print(file.fileno() > 2)'
    )
    process = start('-c', code, str(tmp_path / 'file'), limits='exec 0<&- 2>&-;')
    assert ended(process) == (0, 'True\n', '') and (tmp_path / 'file').read_bytes() == b''


def fill_the_disk(tmp_path):
    words = ('launch.py', TINY, f'--workdir={tmp_path}', *SMALL)
    read_only = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1e9'}  # no half programs there
    process = start(*words, limits='ulimit -f 8;', env=os.environ | read_only)
    code, _, err = ended(process)
    run, *notes, line = err.splitlines()
    assert [note for note in notes if ': compiled in ' not in note] == []
    assert code == 2 and run.startswith('[1/1] ')
    assert re.match(r'error: /.*/checkpoints/.*: File too large: make room there or in the', line)
    return words


def test_a_disk_that_is_full_under_a_checkpoint_is_one_line(tmp_path):
    fill_the_disk(tmp_path)


@pytest.mark.wide
def test_a_run_goes_on_after_a_full_disk(tmp_path):
    assert ended(start(*fill_the_disk(tmp_path)))[0] == 0
    assert {row['role'] for row in results(tmp_path)} == {'victim', 'surrogate'}


def test_devices_that_are_not_there_are_one_line():
    process = start('launch.py', TINY, '--dry_run', env=os.environ | {'JAX_PLATFORMS': 'nowhere'})
    code, _, err = ended(process)
    assert code == 2 and err.startswith(
        'error: JAX_PLATFORMS=nowhere: JAX cannot use these devices'
    )
    assert err.count('\n') == 1
