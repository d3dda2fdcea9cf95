"""A run whose workdir is a bucket, before an emulator of Google Cloud Storage over loopback."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from processes import ROOT, finish, read, start

from ssl_extract.errors import UserError
from ssl_extract.pipeline import context

SMALL = 'tests/helpers/small.py'
MISSING = [name for name in ('gcsfs', 'gcp_storage_emulator') if not importlib.util.find_spec(name)]


def fetch(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def names(url):
    listed = json.loads(fetch(f'{url}/storage/v1/b/bucket/o'))
    return [item['name'] for item in listed.get('items', ())]


@pytest.fixture
def emulator(monkeypatch):
    """The address of an empty bucket's service; processes that are started meanwhile use it."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    url = f'http://127.0.0.1:{port}'
    for name in ('STORAGE_EMULATOR_HOST', 'TENSORSTORE_GCS_HTTP_URL'):
        monkeypatch.setenv(name, url)
    monkeypatch.setenv('GOOGLE_CLOUD_PROJECT', 'none')
    # The library asks another service, which is not emulated, for the kind of the bucket.
    monkeypatch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
    process = subprocess.Popen([sys.executable, ROOT / 'tests/helpers/emulator.py', str(port)])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                names(url)
                break
            except urllib.error.URLError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


PROGRAM = """
import jax.numpy as jnp
from etils import epath
from ssl_extract.pipeline import context
from ssl_extract.runtime import checkpoint, files, parallel

folder, mesh, state = epath.Path('gs://bucket/a'), parallel.data_mesh(1), {'w': jnp.arange(3.0)}
context.check_workdir(folder)
for value in (1, 2):
    files.write_json(folder / 'a.json', {'x': value})
files.rename(folder / 'a.json', folder / 'b.json')
print([path.name for path in files.find(folder, '*.json')], files.read_json(folder / 'b.json'))
manager = checkpoint.manager(folder / 'checkpoints')
for step in (2, 4):
    checkpoint.save(manager, step, state, {'step': step})
manager.close()
manager = checkpoint.manager(folder / 'checkpoints')
restored, meta = checkpoint.restore(manager, state, mesh)
manager.close()
checkpoint.save_encoder(folder / 'encoder', state, {'encoder': 'none', 'input_shape': [3]})
loaded = checkpoint.load_encoder(folder / 'encoder', state, mesh)
print(meta, restored['w'].tolist(), loaded['w'].tolist())
"""
needs_emulator = pytest.mark.skipif(bool(MISSING), reason=f'not installed: {", ".join(MISSING)}')


@pytest.mark.wide
@needs_emulator
def test_files_checkpoints_and_encoders_are_read_from_a_bucket(emulator):
    command = [sys.executable, '-c', PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['b.json'] {'x': 2}",
        "{'step': 4} [0.0, 1.0, 2.0] [0.0, 1.0, 2.0]",
    ]
    steps = {name.split('/')[2] for name in names(emulator) if name.startswith('a/checkpoints/')}
    assert steps == {'4'}


@pytest.mark.wide
@needs_emulator
def test_a_run_that_was_killed_ends_in_a_bucket_as_in_a_folder(emulator, tmp_path):
    finish(start(tmp_path / 'local', config=SMALL))
    process, deadline = start('gs://bucket/runs', config=SMALL), time.monotonic() + 300
    while not any('/answers/' in name and 'part-' in name for name in names(emulator)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    parts = [name for name in names(emulator) if '/answers/' in name and 'part-' in name]
    before = [fetch(f'{emulator}/bucket/{name}') for name in parts]
    output = finish(start('gs://bucket/runs', config=SMALL))
    assert 'victim/' in output and 'finished before' in output
    assert [fetch(f'{emulator}/bucket/{name}') for name in parts] == before  # not asked again
    path = tmp_path / 'results.jsonl'
    path.write_bytes(fetch(f'{emulator}/bucket/runs/results.jsonl'))
    assert read(path) == read(tmp_path / 'local/results.jsonl')
    assert not [name for name in names(emulator) if os.path.basename(name).startswith('.')]


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'google.cloud.storage', None)
    with pytest.raises(UserError, match=r"^workdir=gs://b/c: .*pip install 'ssl_extract\[gcs\]'"):
        context.check_workdir('gs://b/c')
