"""Sets that are read from files as they are needed, against the same sets in memory."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks import streams
from ssl_extract import augment, data, encoders, evaluation, training, victims
from ssl_extract.data import tfds as tfds_sets
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features
from ssl_extract.oracle import queries
from ssl_extract.runtime import parallel

COUNT, SIDE = 40, 12
RECIPE = victims.VICTIMS.make(
    'simclr(hidden=8, dim=8)',
    encoder=encoders.make('resnet18(stem="patch", width=4, stages=(1,))'),
    augmentation=augment.make('flip'),
)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A prepared set of three files, of 14, 13 and 13 images of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp('records')
    streams.write(folder, COUNT, 16, shard=15)
    assert len(list(folder.rglob('*.array_record-*'))) == 3
    return folder


def load(folder, name='records(name="synthetic")', split='train', size=SIDE):
    where = {'data_dir': str(folder), 'cache_dir': str(folder / 'cache')}
    return data.load(name, split, size=size, **where)


def fit(dataset, folder, steps):
    given = dict(batch_size=8, learning_rate=1e-3, checkpoint_every=3, mesh=parallel.data_mesh())
    arrays = {'inputs': dataset.inputs, 'labels': dataset.labels}
    state = training.fit(RECIPE, arrays, num_steps=steps, folder=folder, **given).state
    return jax.tree.map(np.asarray, (state.params, state.batch_stats, state.opt_state))


@pytest.mark.parametrize('split', ['train', 'train[5:31]', 'train[20:]+train[:3]'])
def test_records_are_the_set_in_memory(prepared, split):
    streamed, memory = load(prepared, split=split), load(prepared, 'synthetic', split)
    assert isinstance(streamed.inputs, data.Records) and isinstance(memory.inputs, np.ndarray)
    rows = np.random.default_rng(0).permutation(len(memory.inputs))
    for index in (slice(None), slice(3, 9), rows, 4, rows[:0]):
        np.testing.assert_array_equal(streamed.inputs[index], memory.inputs[index])
    chosen = data.take(streamed.inputs, rows)
    np.testing.assert_array_equal(chosen[2:5], memory.inputs[rows[2:5]])
    np.testing.assert_array_equal(streamed.labels, memory.labels)
    assert streamed.inputs.shape == memory.inputs.shape
    assert streamed.inputs.nbytes == memory.inputs.nbytes
    assert (streamed.num_classes, streamed.decode) == (memory.num_classes, memory.decode)
    np.testing.assert_array_equal(data.hashes(streamed.inputs), data.hashes(memory.inputs))


def test_what_is_computed_once_is_read_again_and_made_again_where_damaged(prepared, monkeypatch):
    before = load(prepared).inputs.contents()
    calls, fit = [], tfds_sets.fit
    monkeypatch.setattr(tfds_sets, 'fit', lambda *given: calls.append(1) or fit(*given))
    np.testing.assert_array_equal(load(prepared).inputs.contents(), before)
    assert len(calls) == 1  # the first image, for its shape
    damaged = max((prepared / 'cache').rglob('hashes-*.npz'))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    np.testing.assert_array_equal(load(prepared).inputs.contents(), before)
    assert 13 <= len(calls) - 2 <= 14  # of one file


@pytest.mark.parametrize(
    'arguments, name',
    [
        ('name="synthetic"', 'synthetic'),
        ('"synthetic"', 'records'),
        ('"synthetic", name="few"', 'few'),
    ],
)
def test_a_task_is_of_records(tmp_path, monkeypatch, arguments, name):
    monkeypatch.setattr(streams, 'CLASSES', 4)
    streams.write(tmp_path, COUNT, 16)  # of five bodies, in turn
    spec = f'records({arguments}, train="train[:3]+train[5:8]", test="train[3:5]")'
    task = evaluation.make_task(spec, load=lambda s, split, **_: load(tmp_path, s, split))
    assert (task.name, len(task.train.inputs), len(task.test.inputs)) == (name, 6, 2)


def test_an_overlap_is_found_and_copies_are_left_out(prepared):
    streamed, memory = load(prepared), load(prepared, 'synthetic', 'train[30:]')
    copies = len(set(data.hashes(load(prepared, 'synthetic').inputs)))
    assert data.count_shared(streamed, memory) == data.count_shared(memory, memory) == 10
    with pytest.raises(UserError, match='10 of the 10 inputs .* are among the queries records'):
        data.check_disjoint(streamed, memory)
    assert copies < COUNT  # bodies occur several times
    once = data.distinct(streamed)
    assert isinstance(once.inputs, data.Records) and len(once.inputs) == copies
    assert len(set(data.hashes(once.inputs[:]))) == copies
    assert data.digest(once) != data.digest(streamed)


def test_training_from_records_is_training_from_memory_and_goes_on(prepared, tmp_path):
    memory = fit(load(prepared, 'synthetic'), tmp_path / 'memory', 8)
    streamed = fit(load(prepared), tmp_path / 'streamed', 8)
    jax.tree.map(np.testing.assert_array_equal, streamed, memory)

    class Stop(Exception):
        pass

    def stop(*given):
        if given[-1] == 7:
            raise Stop
        return training.batch_rows(*given)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stop):
        patched.setattr(training.loop, 'batch_rows', stop)
        fit(load(prepared), tmp_path / 'stopped', 8)
    stopped = fit(load(prepared), tmp_path / 'stopped', 8)  # from the checkpoint of step 6
    jax.tree.map(np.testing.assert_array_equal, stopped, memory)


def test_features_and_queries_are_those_of_the_set_in_memory(prepared):
    streamed, memory = load(prepared), load(prepared, 'synthetic')
    encode = (lambda variables, images: images.mean(axis=(1, 2)) + variables, np.float32(1.0))
    mesh, batches = parallel.data_mesh(), dict(batch_size=16)
    given = [features.represent(encode, s, mesh=mesh, **batches) for s in (streamed, memory)]
    np.testing.assert_array_equal(*given)
    asked = [queries.plain(s.inputs) for s in (streamed, memory)]
    np.testing.assert_array_equal(*(queries.fingerprints(q, 16, mesh)[1] for q in asked))


def test_a_whole_conversion_is_refused(prepared):
    with pytest.raises(
        UserError, match=r"40 images would take .* GiB.* write 'synthetic'"
    ) as error:
        np.asarray(load(prepared).inputs)
    assert '\n' not in str(error.value)


def test_damaged_files_are_one_line(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / 'damaged')
    dataset = load(folder)
    last = max(folder.rglob('*.array_record-*'))
    os.truncate(last, last.stat().st_size // 2)
    calls = (
        lambda: load(folder).inputs[COUNT - 1],
        lambda: fit(dataset, tmp_path / 'fit', 5),
    )
    for call in calls:
        with pytest.raises(UserError, match='synthetic: .*prepare the set again') as error:
            call()
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['records(name="synthetic")', 'synthetic'])
def test_an_image_without_its_label_is_one_line(tmp_path, monkeypatch, name):
    whole = streams.record
    monkeypatch.setattr(streams, 'record', lambda *given: whole(*given).replace(b'label', b'title'))
    streams.write(tmp_path, COUNT, 16)
    with pytest.raises(UserError, match='images 0 to 39 cannot be read .*prepare the set again'):
        load(tmp_path, name)


@pytest.mark.parametrize('spec', ['records("synthetic")', 'synthetic'])
def test_a_file_of_more_records_than_the_set_says_is_refused(prepared, tmp_path, spec):
    """Of the three files one has a record more."""
    folder = shutil.copytree(prepared, tmp_path / 'longer')
    files = sorted(folder.rglob('*.array_record-*'))
    longest = max(files, key=lambda path: path.stat().st_size)
    shorter = next(path for path in files if path != longest)
    shutil.copy(longest, shorter)
    with pytest.raises(UserError, match='synthetic: .* has 14 records in place of 13') as error:
        dataset = load(folder, spec)
        dataset.inputs.contents()
    assert '\n' not in str(error.value)


@pytest.fixture
def few_files():
    """Lets this process open 20 files more than it has open, until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(map(int, os.listdir('/proc/self/fd')))
    gaps = [os.dup(0)]
    while gaps[-1] < last:
        gaps.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (gaps[-1] + 21, hard))
    yield gaps[-1] + 21
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for gap in gaps:
        os.close(gap)


def test_a_set_of_more_files_than_a_process_may_open(tmp_path, few_files):
    streams.write(tmp_path, 120, 8, shard=2)
    before = len(os.listdir('/proc/self/fd'))
    images = load(tmp_path, size=8).inputs
    assert len(images.contents()) == len(images.labels()) == 120
    assert len(os.listdir('/proc/self/fd')) - before < 20  # of 60 files
    assert images[:].shape == (120, 8, 8, 3)
    assert len(os.listdir('/proc/self/fd')) > few_files


def test_a_limit_on_open_files_is_named():
    class Source:
        def __getitems__(self, rows):
            raise RuntimeError(f'open() failed: {os.strerror(errno.EMFILE)}; opening a_file')

    with pytest.raises(UserError, match='let the process open more files, ulimit -n'):
        tfds_sets.read('synthetic', Source(), [3])


def test_a_set_that_does_not_fit_in_memory_names_records(prepared, monkeypatch):
    monkeypatch.setattr(tfds_sets, 'check_memory', refuse)
    with pytest.raises(UserError, match=r"records\(name='synthetic'\)"):
        load(prepared, 'synthetic')


def refuse(what, num_bytes, advice):
    assert num_bytes == COUNT * 3 * SIDE**2
    raise UserError(f'{what}: {advice}')


CHILD = """
import pathlib, sys
from data import test_records as t
print(t.fit(t.load(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), 60)[0])
"""


@pytest.mark.wide
def test_a_killed_training_leaves_the_same_weights(prepared, tmp_path):
    whole = fit(load(prepared), tmp_path / 'whole', 60)
    command = [sys.executable, '-c', CHILD, str(prepared), str(tmp_path / 'killed')]
    env = os.environ | {'PYTHONPATH': f'{os.getcwd()}:{os.getcwd()}/tests'}
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / 'killed/checkpoints/6').exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    again = fit(load(prepared), tmp_path / 'killed', 60)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
