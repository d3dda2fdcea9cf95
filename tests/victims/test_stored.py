"""Stored victims: what is read is what was written, and the stored accuracy is found again."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.stats
import untrained

from ssl_extract import data
from ssl_extract.encoders.trained import content_hash
from ssl_extract.errors import UserError
from ssl_extract.runtime import files, parallel, tensors
from ssl_extract.victims import SOURCES, shelf, stored
from ssl_extract.victims.stored import Stored

SPEC = 'resnet18(stem="patch", width=4, stages=(1,))'
ENCODER = untrained.victim(SPEC).encoder
DTYPES = ('float32', 'int16')
PROBE = {name: np.arange(4, dtype=np.float32) for name in ('mean', 'scale')}
FILES = files.find(stored.folder(), f'*{stored.SUFFIX}')


def write(path, dtype='float32', **about):
    stored.write(path, Stored(ENCODER, PROBE, {'dtype': dtype, 'seed': 3} | about))
    return str(path)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / 'mine.safetensors')


def leaves(encoder):
    return jax.tree.leaves((encoder.variables, encoder.head_variables))


def test_a_victim_is_read_as_it_was_written_with_its_head(path):
    read = stored.read(path)
    assert read.encoder[2:4] == (untrained.SHAPE, untrained.HEADS)
    same = (read.encoder.variables, read.encoder.head_variables)
    want = (ENCODER.variables, ENCODER.head_variables)
    jax.tree.map(np.testing.assert_array_equal, same, want)
    jax.tree.map(np.testing.assert_array_equal, read.probe, PROBE)
    assert read.about['seed'] == 3 and len(read.about['sha256']) == 64


def test_the_source_answers_as_the_victim_and_has_its_address(path):
    victim = SOURCES.make(f'stored({path!r})')(parallel.data_mesh())
    assert victim.address == content_hash(ENCODER) and victim.traced
    images = np.random.default_rng(0).random((5, *untrained.SHAPE), np.float32)
    np.testing.assert_array_equal(victim.answer(images), ENCODER.apply(images))
    apply, variables = victim.encoder.through_heads()
    there, here = ENCODER.through_heads()
    np.testing.assert_array_equal(apply(variables, images), there(here, images))


def test_whole_numbers_lie_within_half_a_step_and_take_half_the_place(tmp_path):
    read = stored.read(write(tmp_path / 'small.safetensors', 'int16')).encoder
    for one, other in zip(leaves(ENCODER), leaves(read), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        step = np.abs(one).max(axis=tuple(range(one.ndim - 1))) / 32767 if one.ndim > 1 else 0
        assert np.all(np.abs(one - other) <= 0.5001 * step)
    assert content_hash(read) == content_hash(stored.rounded(ENCODER, 'int16'))
    sizes = [sum(a.nbytes for a in stored.arrays_of(ENCODER, d).values()) for d in DTYPES]
    assert sizes[0] > 1.5 * sizes[1]


@pytest.mark.parametrize('place', [5, 'seed', 0.5, -1])
def test_a_changed_byte_is_found(path, place):
    content = bytearray(pathlib.Path(path).read_bytes())
    position = content.index(b'seed') + 8 if place == 'seed' else place
    position = int(position * len(content)) if isinstance(position, float) else position
    content[position] ^= 1
    pathlib.Path(path).write_bytes(content)
    with pytest.raises(files.DamagedError, match='cannot read .*mine.safetensors') as caught:
        stored.read(path)
    assert '\n' not in str(caught.value)


def test_other_files_are_told_in_one_line(path, tmp_path):
    whole = pathlib.Path(path).read_bytes()
    foreign = safetensors.numpy.save({'a': np.ones(3)})
    load = SOURCES.make(f'stored({path!r})')
    for content in (b'', whole[:100], whole[:-8], foreign):
        pathlib.Path(path).write_bytes(content)
        with pytest.raises(UserError, match='cannot read .*: put it back from a copy, or') as told:
            load(None)
        assert '\n' not in str(told.value)
    wider = 'resnet18(stem="patch", width=8, stages=(1,))'
    arrays = stored.arrays_of(ENCODER, 'float32')
    about = {'encoder': wider, 'heads': dict(ENCODER.heads), 'input_shape': list(untrained.SHAPE)}
    tensors.write(path, arrays, about)
    with pytest.raises(UserError, match=r"do not fit its networks, 'resnet18.*is \(4,\) and must"):
        load(None)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"stored\('digits_simcrl'\) is not there.*digits_simclr"):
        stored.read('digits_simcrl')
    for name in ('', 'a/b', 'a.npz'):
        with pytest.raises(UserError, match='write a name of letters, digits, - and _, or the pa'):
            stored.path_of(name)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_victim_of_the_package_has_its_stored_accuracy(path):
    victim = stored.read(path.stem, parallel.data_mesh(1))
    sample = victim.about['sample']
    arrays = files.read_npz(path.parent / sample['file'])
    labels, num_classes = arrays['labels'], len(victim.probe['bias'])
    dataset = data.Dataset(arrays['inputs'], labels, num_classes, decode=sample['decode'])
    correct = int((stored.predict(victim, dataset) == labels).sum())
    assert len(labels) == sample['n'] >= 200
    assert abs(correct / sample['n'] - sample['value']) <= 1 / sample['n']  # one image by rounding
    (whole,) = (r['value'] for r in victim.about['rows'][:1] if r['metric'] == 'linear_probe')
    assert scipy.stats.binomtest(correct, sample['n'], whole).pvalue > 1e-3
    assert path.stat().length < 6.1e6 and victim.about['moved'] <= 1e-3


def test_the_readme_shows_the_victims_that_are_there():
    assert len(FILES) >= 1
    assert (stored.folder() / 'README.md').read_text().endswith(shelf.table(stored.folder()))
