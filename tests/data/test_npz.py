"""Arrays of an archive, of any shape and type."""

import os

import numpy as np
import pytest

from ssl_extract import data
from ssl_extract.errors import UserError

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(40, 16))
LABELS = np.arange(40) % 4
SPLITS = np.where(np.arange(40) < 30, 'train', 'test')


@pytest.fixture
def write(tmp_path):
    """Writes an archive and gives its description."""

    def write(save=np.savez, options='', **arrays):
        save(tmp_path / 'set.npz', **arrays)
        return f'npz(path="{tmp_path / "set.npz"}"{options})'

    return write


def test_vectors_with_labels(write):
    spec = write(inputs=VECTORS, labels=LABELS, split=SPLITS)
    whole, test = data.load(spec, 'all'), data.load(spec, 'test[:5]')
    np.testing.assert_array_equal(whole.inputs, VECTORS.astype(np.float32))
    np.testing.assert_array_equal(test.inputs, VECTORS[30:35].astype(np.float32))
    np.testing.assert_array_equal(test.labels, LABELS[30:35])
    assert (test.inputs.dtype, test.labels.dtype) == (np.float32, np.int32)
    assert (test.num_classes, test.decode, test.name) == (4, 'identity', f'{spec}/test[:5]')
    assert data.load(spec, 'all[:2]').num_classes == 4  # of the file, not of the slice
    assert data.decoder(test)(test.inputs) is test.inputs


def test_a_file_of_the_same_length_and_time_is_another_set(write, tmp_path):
    path, digests = tmp_path / 'set.npz', set()
    for vectors in (VECTORS, VECTORS[::-1]):
        spec = write(inputs=vectors)
        os.utime(path, (1e9, 1e9))
        dataset = data.load(spec, 'all')
        np.testing.assert_array_equal(dataset.inputs, vectors.astype(np.float32))
        digests.add((path.stat().st_size, data.digest(dataset)))
    assert len({size for size, _ in digests}) == 1 and len(digests) == 2


def test_tokens_say_how_they_are_decoded(write):
    tokens = RNG.integers(0, 1000, (6, 9))
    with pytest.raises(UserError, match="int32 has no decoder of its own: write decode='identity'"):
        data.load(write(ids=tokens, options=', inputs="ids"'), 'all')
    dataset = data.load(write(ids=tokens, options=', inputs="ids", decode="identity"'), 'all')
    np.testing.assert_array_equal(dataset.inputs, tokens)
    assert (dataset.inputs.dtype, dataset.labels) == (np.int32, None)


def test_a_size_is_for_images(write):
    images = RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(data.load(write(inputs=images), 'all', size=8).inputs, images)
    with pytest.raises(UserError, match=r'\[8, 8, 3\], which size=4 does not change'):
        data.load(write(inputs=images), 'all', size=4)
    with pytest.raises(UserError, match=r'inputs of \[16\], which size=8 does not change'):
        data.load(write(inputs=VECTORS), 'all', size=8)


NOT_FINITE = np.where(np.arange(40)[:, None] == 7, np.nan, VECTORS)


@pytest.mark.parametrize(
    ('arrays', 'options', 'message'),
    [
        ({'x': VECTORS}, '', "has no array 'inputs': it has x"),
        ({'inputs': VECTORS}, ', labels="y"', "has no array 'y'"),
        ({'inputs': VECTORS, 'labels': LABELS[:9]}, '', r'labels must be \[40\], .* got \[9\]'),
        (
            {'inputs': VECTORS, 'labels': LABELS / 2},
            '',
            'labels must hold integers or texts, got float64',
        ),
        ({'inputs': VECTORS, 'labels': LABELS + 2**40}, '', f'a label is {2**40 + 3}: number'),
        ({'inputs': VECTORS, 'split': LABELS}, '', 'split must hold the names of splits'),
        ({'inputs': VECTORS, 'split': np.where(LABELS, 'all', 'test')}, '', "split holds 'all'"),
        ({'inputs': VECTORS, 'split': SPLITS[:3]}, '', r'split must be \[40\]'),
        ({'inputs': NOT_FINITE}, '', r'1 of 40 inputs hold NaN or infinity \(first: row 7\)'),
        ({'inputs': VECTORS * 1e300}, '', 'hold NaN or infinity'),
        ({'inputs': LABELS + 2**40}, '', 'too large for int32'),
        ({'inputs': VECTORS + 1j}, '', 'inputs are integers or floats, got complex128'),
        ({'inputs': np.array(3.0)}, '', r"split 'all' is empty"),
        ({'inputs': VECTORS}, ', decode="sound"', "unknown decoder 'sound': known are identity"),
        ({'inputs': np.array([{}, {}])}, '', 'cannot read .*set.npz'),
    ],
)
def test_wrong_archives_are_named(write, arrays, options, message):
    spec = write(options=options, **arrays)
    with pytest.raises(UserError, match=message) as error:
        data.load(spec, 'all')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('at', [0.0, 0.3, 0.6, 0.9])
def test_damaged_archives_are_named(write, tmp_path, at):
    spec = write(np.savez_compressed, inputs=VECTORS, labels=LABELS)
    content = bytearray((tmp_path / 'set.npz').read_bytes())
    start = int(at * len(content))
    content[start : start + 40] = bytes(byte ^ 0x55 for byte in content[start : start + 40])
    (tmp_path / 'set.npz').write_bytes(content)
    with pytest.raises(UserError, match=r'cannot read .*set\.npz'):
        data.load(spec, 'all')


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match='cannot read .*nothing.npz'):
        data.load(f'npz("{tmp_path / "nothing.npz"}")', 'all')
