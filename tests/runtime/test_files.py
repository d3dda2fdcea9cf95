"""Files: whole, checked when they are read, and found in a folder of any name."""

import concurrent.futures
import errno
import gc
import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from ssl_extract.errors import UserError
from ssl_extract.runtime import checkpoint, files, locks, parallel

VALUE = {'b': [1, 2.5, None], 'a': {'2': 'two', '10': 'ten'}}
ARRAYS = {'answers': np.arange(12, dtype=np.float32), 'granted': np.ones(3, bool)}
KINDS = {
    'value.json': (files.write_json, files.read_json, VALUE),
    'rows.jsonl': (files.write_jsonl, files.read_jsonl, [{'step': 0}, {'step': 1}]),
    'arrays.npz': (lambda path, value: files.write_npz(path, **value), files.read_npz, ARRAYS),
}


@pytest.mark.parametrize('name', KINDS)
def test_one_bit_anywhere_is_noticed(tmp_path, name):
    path = tmp_path / name
    write, read, value = KINDS[name]
    write(path, value)
    np.testing.assert_equal(read(path), value)
    content = path.read_bytes()
    for at in range(0, len(content), 1 + len(content) // 100):
        for bit in (0, 3, 6):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            try:
                read_value = read(path)
            except UserError as error:
                assert str(error).startswith(f'cannot read {path} (') and '\n' not in str(error)
            else:  # the name of the checksum, or a blank
                assert name == 'value.json' and VALUE.items() <= read_value.items()


@pytest.mark.parametrize('name', KINDS)
def test_a_file_cut_anywhere_is_noticed(tmp_path, name):
    write, read, value = KINDS[name]
    write(tmp_path / name, value)
    content = (tmp_path / name).read_bytes().rstrip()
    for length in range(0, len(content), 1 + len(content) // 50):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(UserError, match='cannot read'):
            read(tmp_path / name)


def test_a_dropped_key_line_or_array_is_noticed(tmp_path):
    write, read, value = KINDS['value.json']
    write(tmp_path / 'value.json', value)
    text = (tmp_path / 'value.json').read_text()
    (tmp_path / 'value.json').write_text(text.replace('"2": "two",', ''))
    files.write_jsonl(tmp_path / 'rows.jsonl', [{'step': 0}, {'step': 1}])
    lines = (tmp_path / 'rows.jsonl').read_text().splitlines(keepends=True)
    np.savez(tmp_path / 'arrays.npz', answers=ARRAYS['answers'])
    for reading, path in ((read, 'value.json'), (files.read_npz, 'arrays.npz')):
        with pytest.raises(UserError, match='its content is not what was written'):
            reading(tmp_path / path)
    for left in (lines[1:], lines[:-1]):
        (tmp_path / 'rows.jsonl').write_text(''.join(left))
        with pytest.raises(UserError, match='cannot read .*rows.jsonl'):
            files.read_jsonl(tmp_path / 'rows.jsonl')


def test_an_archive_is_one_for_every_program(tmp_path):
    files.write_npz(tmp_path / 'arrays.npz', **ARRAYS)
    assert zipfile.ZipFile(tmp_path / 'arrays.npz').testzip() is None
    np.testing.assert_equal(dict(np.load(tmp_path / 'arrays.npz')), ARRAYS)


def claiming(shape, packing, size=None, dtype='<f4'):
    """An .npz of 64 zeros, which claims an array of another shape, and a size in its directory."""
    buffer, member = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {'descr': dtype, 'fortran_order': False, 'shape': shape}
    )
    with zipfile.ZipFile(buffer, 'w', packing) as archive:
        archive.writestr('answers.npy', member.getvalue() + bytes(64))
        archive.filelist[0].file_size = size or archive.filelist[0].file_size
    return buffer.getvalue()


@pytest.mark.parametrize('packing', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_that_is_larger_than_its_file_is_not_made(tmp_path, packing):
    path = tmp_path / 'arrays.npz'
    for shape, size in (((17,), None), ((10**14, 2), None), ((2**33, 2**33), 2**60)):
        path.write_bytes(claiming(shape, packing, size))
        with pytest.raises(UserError, match=r'answers.npy claims float32 .*more than it holds\)$'):
            files.read_npz(path, sealed=False)
    path.write_bytes(claiming((4, 4), packing))
    np.testing.assert_equal(files.read_npz(path, sealed=False), {'answers': np.zeros((4, 4))})
    zeros = np.zeros((1000, 1000), np.uint8)  # as small as a file of them gets
    np.savez_compressed(path, zeros=zeros, ones=zeros + 1)
    assert files.read_npz(path, sealed=False)['ones'].all()
    with zipfile.ZipFile(path, 'a') as archive, pytest.warns(UserWarning, match='Duplicate name'):
        archive.writestr('ones.npy', archive.read('zeros.npy'))
    with pytest.raises(UserError, match='two of its arrays have one name'):
        files.read_npz(path, sealed=False)
    for packing, name, said in (
        (zipfile.ZIP_BZIP2, 'a.npy', 'packed by method 12, and not as'),
        (zipfile.ZIP_DEFLATED, 'README.txt', 'README.txt is no array; take it out'),
    ):
        with zipfile.ZipFile(path, 'w', packing) as archive:
            archive.writestr(name, b'text')
        with pytest.raises(UserError, match=said):
            files.read_npz(path, sealed=False)
    path.write_bytes(b'\x93NUMPY')  # an .npy
    with pytest.raises(UserError, match='File is not a zip file'):
        files.read_npz(path, sealed=False)
    with pytest.raises(UserError, match=f'^{path} needs more memory than there is'):  # noqa: SIM117
        with files.reading(path):
            raise MemoryError


def test_archives_are_read_by_many_threads_at_once(tmp_path):
    """Python 3.11 fails to parse where garbage collection lets another thread parse."""
    files.write_npz(tmp_path / 'arrays.npz', **ARRAYS)
    gc.callbacks.append(lambda *_: sum(range(50)))
    before = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            read = list(pool.map(files.read_npz, 80 * [tmp_path / 'arrays.npz']))
    finally:
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])
        gc.callbacks.pop()
    assert len(read) == 80
    np.testing.assert_equal(read[-1], ARRAYS)


def test_only_the_innermost_advice_is_given():
    with pytest.raises(UserError, match=r'^it is cut: put it back$') as error:  # noqa: SIM117
        with files.advised('start again'), files.advised('put it back'):
            raise files.DamagedError('it is cut')
    assert not isinstance(error.value, files.DamagedError)


def test_a_bucket_is_no_folder_below_this_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', '/home/a')
    paths = {'gs://b/c': 'gs://b/c', 's3://b': 's3://b', 'c': f'{tmp_path}/c', '~/c': '/home/a/c'}
    assert {path: os.fspath(files.absolute(path)) for path in paths} == paths


FULL = """
import resource, signal, sys
from ssl_extract.runtime import files, locks

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))
try:
    if sys.argv[1].endswith('.lock'):
        locks.lock(sys.argv[1], 'a result').__enter__()
    files.write_text(sys.argv[1], 'x' * 2000)
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_full_disk_is_told_with_the_file(tmp_path):
    """A limit of a file's size stands for the full disk: the system says neither with the path."""
    for name, named in {'rows.jsonl': 'rows.jsonl', 'a.lock': 'a.holder'}.items():
        command = [sys.executable, '-c', FULL, tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (f'{errno.EFBIG} {tmp_path / named}\n', '')
        assert not list(tmp_path.glob('rows*')) and not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('name', ['plain', 'run[1]', 'a*', 'what?', '[!a]'])
def test_the_name_of_a_folder_is_no_pattern(tmp_path, name):
    for other in (name, 'run1', 'ab', 'whaty', 'b'):
        for part in (2, 1):
            files.write_text(tmp_path / other / 'runs' / f'part-{part}.npz', other)
    paths = [tmp_path / name / 'runs' / f'part-{part}.npz' for part in (1, 2)]
    assert files.find(tmp_path / name, 'runs/part-*.npz') == [epath.Path(p) for p in paths]
    assert files.find(tmp_path / f'{name} too', '*') == []


@pytest.mark.parametrize('name', ['run[1]', 'a*b?'])
def test_checkpoints_are_found_in_a_folder_of_any_name(tmp_path, name):
    state, mesh = {'w': jnp.arange(3.0)}, parallel.data_mesh(1)
    meta = {'encoder': 'none', 'input_shape': [3]}
    manager = checkpoint.manager(tmp_path / name / 'checkpoints')
    checkpoint.save(manager, 2, state, {'step': 2, 'seconds': 0.1})
    manager.close()
    checkpoint.save_encoder(tmp_path / name, state, meta)
    manager = checkpoint.manager(tmp_path / name / 'checkpoints')
    restored, found = checkpoint.restore(manager, state, mesh)
    manager.close()
    assert found == {'step': 2, 'seconds': 0.1}
    for tree in (restored, checkpoint.load_encoder(tmp_path / name, state, mesh)):
        np.testing.assert_array_equal(tree['w'], state['w'])


def test_other_weights_under_a_description_are_noticed(tmp_path):
    """Orbax reads them without complaint."""
    mesh, meta = parallel.data_mesh(1), {'encoder': 'none', 'input_shape': [3]}
    for folder, value in (('a', 1.0), ('b', 2.0)):
        checkpoint.save_encoder(tmp_path / folder, {'w': jnp.full(3, value)}, meta)
    (tmp_path / 'a/variables').rename(tmp_path / 'old')
    (tmp_path / 'b/variables').rename(tmp_path / 'a/variables')
    with pytest.raises(UserError, match='a/variables cannot be read .*not what was written'):
        checkpoint.load_encoder(tmp_path / 'a', {'w': jnp.zeros(3)}, mesh)


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folders_after(tmp_path, monkeypatch):
    synced, path = [], tmp_path / 'a/b/file.txt'
    monkeypatch.setattr(os, 'fsync', lambda fd: synced.append((os.fstat(fd).st_ino, path.exists())))
    files.write_text(path, 'content')
    places = [(path, False), *((folder, True) for folder in path.parents[:3])]
    assert synced == [(os.stat(place).st_ino, named) for place, named in places]


PROGRAM = """
import sys, numpy as np
from ssl_extract.runtime import files

while True:
    files.write_npz(sys.argv[1], zeros=np.zeros(10_000_000))
"""


def test_a_killed_write_leaves_the_old_file_and_what_is_left_is_removed(tmp_path):
    path = tmp_path / 'arrays.npz'
    files.write_npz(path, **ARRAYS)
    process, deadline = subprocess.Popen([sys.executable, '-c', PROGRAM, str(path)]), 120
    begun = time.monotonic()
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < begun + deadline:
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)  # it may be past a write before it stops
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(os.listdir(tmp_path)) == 2
    assert set(files.read_npz(path)) in ({'zeros'}, set(ARRAYS))
    (tmp_path / 'below').mkdir()
    (tmp_path / 'below/.results.jsonl.0123.tmp').write_text('')
    files.remove_temporary(tmp_path, below=False, age=files.DAY)
    assert len(os.listdir(tmp_path)) == 3  # they may be of a process that still writes
    files.remove_temporary(tmp_path, below=False)
    assert sorted(os.listdir(tmp_path)) == ['arrays.npz', 'below']
    assert os.listdir(tmp_path / 'below')
    files.remove_temporary(tmp_path)
    assert os.listdir(tmp_path / 'below') == []


class Bucket(MemoryFileSystem):
    """A bucket of Google's in memory: a file system without rename, locks and folders."""

    protocol, store, pseudo_dirs = 'gcs', {}, ['']

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix('gs://'))

    def glob(self, path, **kwargs):
        return [found.lstrip('/') for found in super().glob(path, **kwargs)]


@pytest.fixture
def bucket():
    fsspec.register_implementation('gcs', Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield epath.Path('gs://bucket/runs')
    Bucket.store.clear()
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_files_in_a_bucket_are_whole_and_found(bucket):
    for name, (write, read, value) in KINDS.items():
        path = bucket / 'stage' / name
        for _ in range(2):  # in place of what was there
            write(path, value)
            np.testing.assert_equal(read(path), value)
        Bucket.store[f'/bucket/runs/stage/{name}'].truncate(9)
        with pytest.raises(files.DamagedError, match=f'cannot read gs://bucket/runs/stage/{name}'):
            read(path)
    assert [path.name for path in files.find(bucket, 'stage/*')] == sorted(KINDS)
    assert files.find(bucket / 'none', '*') == []
    with locks.lock(bucket / 'locks' / 'stage.lock', 'stage'):  # nobody to wait for
        files.remove_temporary(bucket)
        files.rename(bucket / 'stage' / 'value.json', bucket / 'stage' / 'renamed.json')
        files.remove(bucket / 'stage' / 'rows.jsonl')
    assert [path.name for path in files.find(bucket, '*/*')] == ['arrays.npz', 'renamed.json']
