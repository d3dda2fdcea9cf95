"""Real processes of the command, to start, kill and compare; the tests' own."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent.parent


def start(workdir, *flags, config='tests/helpers/tiny.py', devices=0, will_be_killed=False):
    """Starts a run; on as many emulated devices as this process, unless told."""
    xla_flags = os.environ['XLA_FLAGS']
    if devices:
        xla_flags = re.sub(r'device_count=\d+', f'device_count={devices}', xla_flags)
    folders = [str(ROOT / 'tests/helpers'), *filter(None, [os.environ.get('PYTHONPATH')])]
    env = os.environ | {'PYTHONPATH': os.pathsep.join(folders), 'XLA_FLAGS': xla_flags}
    if will_be_killed:  # it reads shared programs and writes none: no half of one is left
        env['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '1e9'
    command = [sys.executable, 'launch.py', f'--config={config}', f'--workdir={workdir}', *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def kill_when(process, workdir, pattern):
    """kill -9 as soon as a file like this exists; False if the run ended before."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if any(workdir.glob(pattern)):
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            return True
        time.sleep(0.002)
    process.stdout.close()
    return False


def results(workdir):
    """The rows of all runs, times aside."""
    return read(workdir / 'results.jsonl')


def read(path):
    """The rows in a file, times aside."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]


def assert_same_ledgers(here, there):
    """The same queries, in the same order, with the same answers, under every account of `here`."""
    parts = sorted(path.relative_to(here) for path in here.glob('answers/*/part-*.npz'))
    parts += sorted(path.relative_to(here) for path in here.glob('answers/*/account-*.npz'))
    parts += sorted(path.relative_to(here) for path in here.glob('surrogate/*/asked/part-*.npz'))
    for part in parts:
        np.testing.assert_equal(dict(np.load(here / part)), dict(np.load(there / part)))
    for account in {part.parent for part in parts}:
        names = [sorted(path.name for path in (root / account).iterdir()) for root in (here, there)]
        assert names[0] == names[1]
    return len(parts)
