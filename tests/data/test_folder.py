"""Class subfolders, written by Pillow in the test."""

import os

import numpy as np
import pytest
from PIL import Image

from ssl_extract import data
from ssl_extract.errors import UserError

KINDS = {'bird': 10, 'ant': 20}  # classes are numbered by sorted names: ant 0, bird 1


def _pixels(kind, number, side=4):
    """An image that no other class and number has."""
    return np.full((side, side, 3), [len(kind), number, 7], np.uint8)


def _write(root, kinds=KINDS, first=0):
    for kind, count in kinds.items():
        (root / kind).mkdir(parents=True)
        for number in range(first, first + count):
            Image.fromarray(_pixels(kind, number)).save(root / kind / f'{number:03}.png')


@pytest.fixture
def photos(tmp_path):
    _write(tmp_path / 'photos')
    return tmp_path / 'photos'


def _load(root, split='all', **kwargs):
    return data.load(f'folder(path="{root}")', split, **kwargs)


def test_every_image_is_read_under_its_class(photos):
    dataset = _load(photos)
    assert dataset.inputs.shape == (30, 4, 4, 3)
    assert (dataset.inputs.dtype, dataset.labels.dtype) == (np.uint8, np.int32)
    assert (dataset.num_classes, dataset.decode) == (2, 'images')
    assert dataset.name == f'folder(path="{photos}")/all'
    expected = {
        (len(kind), n, kind == 'bird') for kind, count in KINDS.items() for n in range(count)
    }
    rows = zip(dataset.inputs, dataset.labels, strict=True)
    assert {(*image[0, 0, :2].tolist(), bool(label)) for image, label in rows} == expected


def test_a_file_of_the_same_length_and_time_is_another_image(photos):
    path, lengths = photos / 'ant/000.png', set()
    for value in (20, 90):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)
        os.utime(path, (1e9, 1e9))
        lengths.add(path.stat().st_size)
        assert (_load(photos).inputs[:, 0, 0, 2] == value).sum() == 1
    assert len(lengths) == 1


def test_slices_are_stratified_disjoint_and_repeatable(photos):
    whole, train, test = (_load(photos, split) for split in ('all', 'all[:80%]', 'all[80%:]'))
    np.testing.assert_array_equal(np.bincount(train.labels), [16, 8])
    np.testing.assert_array_equal(np.bincount(test.labels), [4, 2])
    data.check_disjoint(train, test)
    np.testing.assert_array_equal(np.concatenate([train.inputs, test.inputs]), whole.inputs)
    numbers = whole.inputs[whole.labels == 0][:, 0, 0, 1].astype(int)
    assert abs(np.corrcoef(numbers, np.arange(20))[0, 1]) < 0.7  # not in the order of the names
    np.testing.assert_array_equal(_load(photos).inputs, whole.inputs)


def test_subfolders_train_and_test_are_splits(tmp_path):
    _write(tmp_path / 'train', {'a': 6, 'b': 6})
    _write(tmp_path / 'test', {'b': 4, 'c': 2}, first=50)
    train, test, both = (_load(tmp_path, split) for split in ('train', 'test', 'all'))
    np.testing.assert_array_equal(np.bincount(train.labels, minlength=3), [6, 6, 0])
    np.testing.assert_array_equal(np.bincount(test.labels, minlength=3), [0, 4, 2])
    assert train.num_classes == test.num_classes == 3
    assert test.inputs[:, 0, 0, 1].min() >= 50
    assert sorted(data.hashes(both.inputs)) == sorted(
        [*data.hashes(train.inputs), *data.hashes(test.inputs)]
    )
    np.testing.assert_array_equal(_load(tmp_path, 'test+train[:2]').inputs[-2:], train.inputs[:2])


def test_gray_is_rgb_and_sizes_are_fitted(tmp_path):
    (tmp_path / 'a').mkdir()
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(gray).save(tmp_path / 'a' / 'gray.png')
    np.testing.assert_array_equal(_load(tmp_path).inputs[0], np.stack([gray] * 3, -1))
    np.testing.assert_array_equal(_load(tmp_path, size=4).inputs[0, ..., 0], gray[:, 1:5])


def test_hidden_files_and_files_beside_the_classes_are_no_images(photos):
    (photos / 'LICENSE').write_text('free')
    (photos / 'ant' / '.DS_Store').write_text('')
    assert len(_load(photos).inputs) == 30


def _damage(photos):
    path = photos / 'ant' / '003.png'
    path.write_bytes(path.read_bytes()[:40])
    return r'ant.003\.png cannot be read as an image \(.*\): repair or remove it'


def _text(photos):
    (photos / 'ant' / 'notes.txt').write_text('no image')
    return r'notes\.txt cannot be read as an image'


def _nested(photos):
    (photos / 'ant' / 'more').mkdir()
    return r'more cannot be read as an image'


def _another_size(photos):
    Image.fromarray(_pixels('bird', 99, side=5)).save(photos / 'bird' / '099.png')
    return r'\.png is .x. and .*\.png is .x.: give their common size, e.g. size=32'


def _deep(photos):
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(photos / 'bird' / '099.png')
    return r'099\.png has pixels of mode I;16: save it with 8 bits'


def _empty_class(photos):
    (photos / 'cat').mkdir()
    return r'cat has no image'


@pytest.mark.parametrize('wrong', [_damage, _text, _nested, _another_size, _deep, _empty_class])
def test_wrong_files_are_named(photos, wrong):
    message = wrong(photos)
    with pytest.raises(UserError, match=message) as error:
        _load(photos)
    assert '\n' not in str(error.value)


def test_wrong_folders_and_splits_are_named(photos, tmp_path):
    with pytest.raises(UserError, match='there is no folder .*nothing'):
        _load(tmp_path / 'nothing')
    with pytest.raises(UserError, match='ant has no class subfolders'):
        _load(photos / 'ant')
    with pytest.raises(UserError, match=r"split 'train'.*its splits are all \(30\)"):
        _load(photos, 'train')
    with pytest.raises(UserError, match="missing a required argument: 'path'"):
        data.load('folder', 'all')
