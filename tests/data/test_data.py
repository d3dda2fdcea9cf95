"""The sets are prepared here, by builders that yield PNG bytes: no TensorFlow, no network."""

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.datasets
import tensorflow_datasets as tfds
from PIL import Image

from ssl_extract import data
from ssl_extract.data import tfds as tfds_sets
from ssl_extract.errors import UserError


def _images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


RGB = {'train': _images(30, (6, 6, 3), 0), 'test': _images(12, (6, 6, 3), 1)}
GRAY = _images(5, (4, 4, 1), 2)
WIDE = [_images(1, (4, 4 + 2 * i, 3), 3)[0] for i in range(3)]
ANY_IMAGE = tfds.features.Image(shape=(None, None, 3))
CLASSES = tfds.features.ClassLabel(num_classes=3)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set with the class's features and splits; arrays become PNG bytes."""

    VERSION = tfds.core.Version('1.0.0')
    FEATURES: dict
    SPLITS: dict  # name -> list of examples

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {
            split: ((i, self._encode(example)) for i, example in enumerate(examples))
            for split, examples in self.SPLITS.items()
        }

    def _generate_examples(self):
        raise NotImplementedError

    @staticmethod
    def _encode(example):
        return {k: _png(v) if isinstance(v, np.ndarray) else v for k, v in example.items()}


def _png(image):
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, format='PNG')
    return io.BytesIO(buffer.getvalue())


class RgbSet(_Builder, skip_registration=True):
    FEATURES = {'image': ANY_IMAGE, 'label': CLASSES}
    SPLITS = {k: [{'image': x, 'label': i % 3} for i, x in enumerate(v)] for k, v in RGB.items()}


class GraySet(_Builder, skip_registration=True):
    """Its image and its class go by other names."""

    FEATURES = {
        'picture': tfds.features.Image(shape=(4, 4, 1)),
        'kind': tfds.features.ClassLabel(names=['a', 'b']),
    }
    SPLITS = {'train': [{'picture': x, 'kind': 1} for x in GRAY]}


class UnlabeledSet(_Builder, skip_registration=True):
    FEATURES = {'image': ANY_IMAGE}
    SPLITS = {'train': [{'image': x} for x in RGB['train']]}


class HalfLabeledSet(_Builder, skip_registration=True):
    """TFDS writes -1 where there is no label."""

    FEATURES = {'image': ANY_IMAGE, 'label': CLASSES}
    SPLITS = {
        'train': [{'image': x, 'label': 1 if i < 8 else -1} for i, x in enumerate(RGB['test'])]
    }


class WideSet(_Builder, skip_registration=True):
    FEATURES = {'image': ANY_IMAGE, 'label': CLASSES}
    SPLITS = {'train': [{'image': x, 'label': 0} for x in WIDE]}


class TwoImageSet(_Builder, skip_registration=True):
    FEATURES = {'left': ANY_IMAGE, 'right': ANY_IMAGE}
    SPLITS = {'train': [{'left': x, 'right': x} for x in RGB['test']]}


class NumberSet(_Builder, skip_registration=True):
    FEATURES = {'number': np.int64, 'label': CLASSES}
    SPLITS = {'train': [{'number': i, 'label': 0} for i in range(3)]}


class ConfiguredSet(_Builder, skip_registration=True):
    """Its configurations differ in their images."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='plain'), tfds.core.BuilderConfig(name='dark')]
    FEATURES = {'image': ANY_IMAGE, 'label': CLASSES}
    SPLITS = {}

    def _split_generators(self, dl_manager):
        images = RGB['test'] // (4 if self.builder_config.name == 'dark' else 1)
        examples = [{'image': x, 'label': i % 3} for i, x in enumerate(images)]
        return {'train': ((i, self._encode(example)) for i, example in enumerate(examples))}


def _prepare(builder, folder):
    builder(data_dir=folder, file_format='array_record').download_and_prepare()


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tfds')
    for builder in (
        RgbSet,
        GraySet,
        UnlabeledSet,
        HalfLabeledSet,
        WideSet,
        TwoImageSet,
        NumberSet,
    ):
        _prepare(builder, folder)
    for config in ('plain', 'dark'):
        builder = ConfiguredSet(data_dir=folder, config=config, file_format='array_record')
        builder.download_and_prepare()
    return folder


@pytest.fixture
def load(prepared, tmp_path, monkeypatch):
    """`data.load` with the sets above, a cache of its own and parts of 8 images."""
    monkeypatch.setattr(tfds_sets, '_PART', 8)
    monkeypatch.setattr(tfds_sets, '_CHUNK', 3)

    def load(name, split='train', *, data_dir=prepared, **kwargs):
        return data.load(
            name, split, data_dir=str(data_dir), cache_dir=str(tmp_path / 'cache'), **kwargs
        )

    return load


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    count, fit = [], tfds_sets.fit
    monkeypatch.setattr(tfds_sets, 'fit', lambda *args: count.append(1) or fit(*args))
    return count


def test_loads_what_was_prepared(load):
    dataset = load('rgb_set', 'test')
    np.testing.assert_array_equal(dataset.inputs, RGB['test'])
    np.testing.assert_array_equal(dataset.labels, np.arange(12) % 3)
    assert (dataset.inputs.dtype, dataset.labels.dtype) == (np.uint8, np.int32)
    assert (dataset.num_classes, dataset.name) == (3, 'rgb_set/test')
    assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize(
    ('split', 'rows'),
    [
        ('train[:7]', slice(7)),
        ('train[8:16]', slice(8, 16)),
        ('train[7:25]', slice(7, 25)),
        ('train[-5:]', slice(25, 30)),
        ('train[10%:50%]', slice(3, 15)),
        ('train[29]', None),
    ],
)
def test_slices(load, split, rows):
    if rows is None:
        with pytest.raises(UserError, match=r'rgb_set: split .train\[29\]'):
            load('rgb_set', split)
        return
    dataset = load('rgb_set', split)
    np.testing.assert_array_equal(dataset.inputs, RGB['train'][rows])
    np.testing.assert_array_equal(dataset.labels, np.arange(30)[rows] % 3)
    assert dataset.name == f'rgb_set/{split}'


def test_versions_and_configurations(load):
    np.testing.assert_array_equal(load('rgb_set:1.0.0', 'test').inputs, RGB['test'])
    np.testing.assert_array_equal(load('configured_set/plain').inputs, RGB['test'])
    dark = load('configured_set/dark:1.0.0', 'train[:5]')
    np.testing.assert_array_equal(dark.inputs, RGB['test'][:5] // 4)
    assert dark.name == 'configured_set/dark:1.0.0/train[:5]'


def test_splits_can_be_added(load):
    dataset = load('rgb_set', 'test[2:]+train[:3]')
    np.testing.assert_array_equal(
        dataset.inputs, np.concatenate([RGB['test'][2:], RGB['train'][:3]])
    )


def test_gray_becomes_rgb(load):
    dataset = load('gray_set')
    np.testing.assert_array_equal(dataset.inputs, np.repeat(GRAY, 3, axis=-1))
    assert dataset.num_classes == 2
    np.testing.assert_array_equal(dataset.labels, 1)


def _triangle(image, size):
    """Antialiased bilinear resize in NumPy: a triangle as wide as an output pixel, normalized."""
    length = image.shape[0]
    scale = length / size
    centers = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(centers[:, None] - np.arange(length)) / max(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum('ih,jw,hwc->ijc', weights, weights, image.astype(float))


@pytest.mark.parametrize('size', [3, 4, 6, 11])
def test_resizes(load, size):
    dataset = load('rgb_set', 'test', size=size)
    assert dataset.inputs.shape == (12, size, size, 3)
    expected = [_triangle(image, size) for image in RGB['test']]
    np.testing.assert_allclose(dataset.inputs, expected, atol=1.01)  # Pillow rounds twice


def test_other_shapes_lose_their_margins(load):
    dataset = load('wide_set', size=4)
    for image, wide, margin in zip(dataset.inputs, WIDE, [0, 1, 2], strict=True):
        np.testing.assert_array_equal(image, wide[:, margin : margin + 4])


def test_images_of_several_shapes_need_a_size(load):
    for _ in range(2):  # also once part of it has been cached
        with pytest.raises(UserError, match='wide_set has images of 4x4 and 4x6.*size=32'):
            load('wide_set')


def test_a_set_without_labels(load):
    dataset = load('unlabeled_set', 'train[:4]')
    assert dataset.labels is None
    assert dataset.num_classes == 0
    with pytest.raises(UserError, match=r'unlabeled_set/train\[:4\] has no labels'):
        data.require_labels(dataset)


def test_a_slice_without_labels(load):
    assert load('half_labeled_set').labels is None
    labeled = load('half_labeled_set', 'train[:8]')
    np.testing.assert_array_equal(data.require_labels(labeled), np.ones(8))


def test_second_load_decodes_nothing(load, decoded, monkeypatch):
    first = load('rgb_set')
    assert len(decoded) == 30
    monkeypatch.setattr(tfds_sets, 'open_source', None)  # nothing left to decode from
    second = load('rgb_set')
    np.testing.assert_array_equal(first.inputs, second.inputs)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert len(decoded) == 30


def test_decodes_the_parts_a_slice_touches(load, decoded):
    load('rgb_set', 'train[9:15]')
    assert len(decoded) == 8
    load('rgb_set', 'train[7:17]')
    assert len(decoded) == 24
    load('rgb_set', 'train[28:]')
    assert len(decoded) == 30


def test_sizes_and_splits_are_cached_apart(load):
    shapes = [load('rgb_set', size=size).inputs.shape for size in (None, 4, 5, None)]
    assert shapes == [(30, 6, 6, 3), (30, 4, 4, 3), (30, 5, 5, 3), (30, 6, 6, 3)]
    np.testing.assert_array_equal(load('rgb_set', 'test').inputs, RGB['test'])
    np.testing.assert_array_equal(load('rgb_set', 'train').inputs, RGB['train'])


def test_goes_on_where_it_was_interrupted(load, decoded, tmp_path, monkeypatch):
    write, written = tfds_sets.write_cached, []

    def stop_at_the_third(path, **arrays):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(path, **arrays)

    monkeypatch.setattr(tfds_sets, 'write_cached', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        load('rgb_set')
    decoded.clear()
    np.testing.assert_array_equal(load('rgb_set').inputs, RGB['train'])
    assert len(decoded) == 30 - 16
    names = sorted(path.name for path in (tmp_path / 'cache').rglob('*') if path.is_file())
    assert [name[:11] for name in names] == [f'part-0000{i}-' for i in range(4)]


def _truncate(content, share):
    return content[: int(share * len(content))]


def _flip(content, share):
    at = int(share * len(content))
    return content[:at] + bytes([content[at] ^ 0x11]) + content[at + 1 :]


@pytest.mark.parametrize('damage', [_truncate, _flip])
@pytest.mark.parametrize('share', np.linspace(0, 0.99, 24).round(3))
def test_a_damaged_cache_never_gives_wrong_images(load, tmp_path, damage, share):
    load('rgb_set')
    for path in (tmp_path / 'cache').rglob('*.npz'):
        path.write_bytes(damage(path.read_bytes(), share))
    dataset = load('rgb_set')
    np.testing.assert_array_equal(dataset.inputs, RGB['train'])
    np.testing.assert_array_equal(dataset.labels, np.arange(30) % 3)


def test_a_damaged_part_is_repaired(load, decoded, tmp_path):
    load('rgb_set')
    (part,) = (tmp_path / 'cache').rglob('part-00001-*.npz')
    part.write_bytes(part.read_bytes()[:1000])
    for count in (38, 38):
        load('rgb_set')
        assert len(decoded) == count


def _equalize(folder):
    """Gives all prepared files one time, and returns their lengths."""
    paths = sorted(folder.rglob('*record*'))
    for path in paths:
        os.utime(path, (1e9, 1e9))
    return [path.stat().st_size for path in paths]


def test_a_set_of_the_same_lengths_and_times_is_decoded_anew(load, decoded, tmp_path):
    folder = tmp_path / 'tfds'
    _prepare(RgbSet, folder)
    lengths = _equalize(folder)
    np.testing.assert_array_equal(load('rgb_set', data_dir=folder).inputs, RGB['train'])
    shutil.rmtree(folder / 'rgb_set')

    class RgbSetAgain(RgbSet, skip_registration=True):
        name = 'rgb_set'
        SPLITS = {'train': RgbSet.SPLITS['train'][::-1]} | {'test': RgbSet.SPLITS['test']}

    _prepare(RgbSetAgain, folder)
    assert _equalize(folder) == lengths
    np.testing.assert_array_equal(load('rgb_set', data_dir=folder).inputs, RGB['train'][::-1])
    assert len(decoded) == 60


def test_only_parts_of_changed_files_are_decoded_anew(load, decoded, tmp_path):
    """Three files of ten images, and parts of eight: the last file holds rows of two parts."""
    folder, config = tmp_path / 'tfds', tfds.download.DownloadConfig(num_shards=3)

    class OtherEnd(RgbSet, skip_registration=True):
        name = 'rgb_set'
        SPLITS = {'train': RgbSet.SPLITS['train'][:25] + RgbSet.SPLITS['test'][:5]}

    for builder, count in ((RgbSet, 30), (OtherEnd, 44)):
        shutil.rmtree(folder, ignore_errors=True)
        builder(data_dir=folder, file_format='array_record').download_and_prepare(
            download_config=config
        )
        assert len(list(folder.rglob('*train*record*'))) == 3
        _equalize(folder)
        expected = [x['image'] for x in builder.SPLITS['train']]
        np.testing.assert_array_equal(load('rgb_set', data_dir=folder).inputs, expected)
        assert len(decoded) == count


def test_the_folders_may_have_any_name(prepared, tmp_path):
    folder = tmp_path / 'tfds [1]*?'
    shutil.copytree(prepared / 'rgb_set', folder / 'rgb_set')
    cache = str(tmp_path / 'cache [1]*?')
    for _ in range(2):
        loaded = data.load('rgb_set', 'train', data_dir=str(folder), cache_dir=cache)
        np.testing.assert_array_equal(loaded.inputs, RGB['train'])


def test_cache_lies_in_the_home_folder_by_default(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    data.load('gray_set', 'train', data_dir=str(prepared))
    assert len(list((tmp_path / '.cache/ssl_extract').rglob('part-00000-*.npz'))) == 1


def _fails(call, *mentioned):
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert '\n' not in message
    for part in mentioned:
        assert part in message


def test_a_missing_set_says_how_to_prepare_it(load, prepared, tmp_path):
    command = f'tfds build cifar10 --file_format=array_record --data_dir={prepared}'
    _fails(lambda: load('cifar10'), "'cifar10'", "pip install 'ssl_extract[prepare]'", command)
    _fails(lambda: load('rgb_set', data_dir=tmp_path / 'nothing'), 'rgb_set', 'nothing')
    _fails(lambda: load('rgb_set:2.0.0'), 'rgb_set:2.0.0', 'tfds build')
    _fails(lambda: load(''), "''", "write a name, such as 'cifar10:3.0.2'")


@pytest.mark.parametrize(
    ('split', 'mentioned'),
    [
        ('tran', 'tran'),
        ('', "''"),
        ('train[', 'train['),
        ('train[:31]', '30'),
        ('train[5:5]', 'empty'),
        ('train[9:3]', 'empty'),
        ('test[:0%]', 'empty'),
        ('train+nothing', 'nothing'),
    ],
)
@pytest.mark.parametrize('name', ['rgb_set', 'digits'])
def test_wrong_splits(load, name, split, mentioned):
    if name == 'digits':
        split, mentioned = split.replace('31', '1298'), mentioned.replace('30', '1297')
    _fails(lambda: load(name, split), name, mentioned, 'its splits are train (')


def test_sets_without_one_image_per_example(load):
    _fails(lambda: load('two_image_set'), 'two_image_set', 'left, right')
    _fails(lambda: load('number_set'), 'number_set', 'label, number')


@pytest.mark.parametrize('size', [0, -3, 2.0, True, '8', 1025])
def test_wrong_sizes(load, size):
    _fails(lambda: load('digits', size=size), 'size must be a whole number', f'got {size!r}')


def test_files_that_tensorflow_only_can_read(load, prepared, tmp_path):
    folder = shutil.copytree(prepared / 'rgb_set', tmp_path / 'tfds/rgb_set')
    for path in (folder / '1.0.0').iterdir():
        path.rename(path.with_name(path.name.replace('array_record', 'tfrecord')))
    info = folder / '1.0.0/dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    _fails(lambda: load('rgb_set', data_dir=tmp_path / 'tfds'), 'tfrecord', 'array_record')


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'missing'])
def test_damaged_records(load, prepared, tmp_path, damage):
    folder = shutil.copytree(prepared / 'rgb_set', tmp_path / 'tfds/rgb_set')
    (records,) = folder.rglob('*-train.array_record*')
    if damage == 'missing':
        records.unlink()
    else:
        os.truncate(records, 70_000 if damage == 'truncated' else 0)
    _fails(lambda: load('rgb_set', data_dir=tmp_path / 'tfds'), 'rgb_set', 'prepare the set again')


def test_cache_that_cannot_be_written(prepared, tmp_path):
    (tmp_path / 'file').write_text('')
    cache = str(tmp_path / 'file')
    _fails(
        lambda: data.load('gray_set', 'train', data_dir=str(prepared), cache_dir=cache),
        cache,
        'cache_dir',
    )


def test_digits_are_those_of_scikit_learn():
    train, test = data.load('digits', 'train'), data.load('digits', 'test')
    assert (len(train.inputs), len(test.inputs), train.num_classes) == (1297, 500, 10)
    reference = sklearn.datasets.load_digits()
    images = np.concatenate([train.inputs, test.inputs])
    labels = np.concatenate([train.labels, test.labels])
    assert images.shape == (1797, 8, 8, 3)
    assert images.dtype == np.uint8
    values = images[..., 0].astype(float) * 16 / 255
    np.testing.assert_allclose(values, values.round(), atol=0.04)
    found = sorted(
        (label, *row) for label, row in zip(labels, values.round().reshape(-1, 64), strict=True)
    )
    expected = sorted(
        (label, *row) for label, row in zip(reference.target, reference.data, strict=True)
    )
    np.testing.assert_array_equal(found, expected)
    for channel in (1, 2):
        np.testing.assert_array_equal(images[..., channel], images[..., 0])


def test_digits_are_shuffled_and_stratified():
    train, test = data.load('digits', 'train'), data.load('digits', 'test')
    counts = np.bincount(np.concatenate([train.labels, test.labels]))
    np.testing.assert_allclose(np.bincount(test.labels), counts * 500 / 1797, atol=1)
    assert (train.labels[:-1] == train.labels[1:]).mean() < 0.15  # 0.1 by chance
    data.check_disjoint(train, test)


def test_digits_slices_and_sizes():
    train = data.load('digits', 'train')
    part = data.load('digits', 'train[100:200]')
    np.testing.assert_array_equal(part.inputs, train.inputs[100:200])
    np.testing.assert_array_equal(part.labels, train.labels[100:200])
    large = data.load('digits', 'train[100:103]', size=16)
    expected = [_triangle(image, 16) for image in part.inputs[:3]]
    np.testing.assert_allclose(large.inputs, expected, atol=1.01)


def test_noise_is_uniform_and_has_no_labels(load):
    noise = load('noise', 'train[:500]', size=8)
    assert noise.inputs.shape == (500, 8, 8, 3)
    assert noise.inputs.dtype == np.uint8
    assert (noise.labels, noise.num_classes, noise.name) == (None, 0, 'noise/train[:500]')
    counts = np.bincount(noise.inputs.ravel(), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    pixels = noise.inputs.reshape(500, -1).astype(float)
    correlations = np.corrcoef(np.concatenate([pixels[:50], pixels.T[:50, :192]]))
    assert np.abs(correlations - np.eye(100)).max() < 0.4  # 192 values: a deviation of 0.07
    assert len(np.unique(data.hashes(noise.inputs))) == 500


def test_noise_slices_and_sizes(load):
    assert load('noise', 'train[:2]').inputs.shape == (2, 32, 32, 3)
    whole = load('noise', size=2)
    assert len(whole.inputs) == 50_000
    part = load('noise', 'train[99%:]+train[100:110]', size=2)
    np.testing.assert_array_equal(part.inputs[:500], whole.inputs[49_500:])
    np.testing.assert_array_equal(part.inputs[500:], whole.inputs[100:110])
    _fails(lambda: load('noise', 'test'), 'noise', 'test', 'its splits are train (50000)')
    _fails(lambda: load('noise', 'train[:50001]'), 'noise', '50000')


def test_noise_draws_only_the_slice(load, monkeypatch):
    drawn, rng = [], np.random.default_rng
    monkeypatch.setattr(np.random, 'default_rng', lambda seed: drawn.append(seed) or rng(seed))
    load('noise', 'train[7:10]', size=4)
    assert [index for _, index in drawn] == [7, 8, 9]


def _dataset(images, labels=None, name='a/train'):
    return data.Dataset(images, labels, 0 if labels is None else 3, name)


def test_hashes_tell_contents_apart():
    images = _images(50, (4, 4, 3))
    changed = images.copy()
    changed[:, 3, 3, 2] ^= 1
    found = data.hashes(np.concatenate([images, changed]))
    assert found.shape == (100,)
    assert len(np.unique(found)) == 100
    np.testing.assert_array_equal(found[:50], data.hashes(images))
    np.testing.assert_array_equal(found[:50][::-1], data.hashes(images[::-1]))
    assert not np.isin(data.hashes(images.reshape(50, 2, 8, 3)), found).any()
    assert not np.isin(data.hashes(images.astype(np.int8)), found).any()


def test_distinct_keeps_the_first_of_each_in_order():
    images = _images(4, (4, 4, 3))
    dataset = _dataset(images[[2, 0, 2, 1, 0, 3]], np.arange(6, dtype=np.int32))
    unique = data.distinct(dataset)
    np.testing.assert_array_equal(unique.inputs, images[[2, 0, 1, 3]])
    np.testing.assert_array_equal(unique.labels, [0, 1, 3, 5])
    assert data.distinct(_dataset(images[[1, 1]])).labels is None


def test_the_guard_names_the_sets_and_counts():
    images = _images(10, (4, 4, 3))
    test = _dataset(images[:6], name='b/test')
    data.check_disjoint(_dataset(images[6:]), test)
    _fails(
        lambda: data.check_disjoint(_dataset(images[[9, 5, 5, 2]]), test),
        'a/train',
        'b/test',
        '2 of the 6',
    )
    other = _dataset(_images(3, (5, 5, 3)))
    _fails(lambda: data.check_disjoint(other, test), 'a/train', 'b/test', 'same size')


def test_prepared_files_are_left_alone(load, prepared):
    def state():
        return {p: p.stat().st_mtime_ns for p in Path(prepared).rglob('*')}

    before = state()
    load('rgb_set', 'train+test', size=5)
    assert state() == before


def test_the_digest_is_of_the_content_in_its_order():
    dataset = data.load('digits', 'train[:20]')
    changed = dataset.inputs.copy()
    changed[7, 3, 3, 0] ^= 1
    others = [
        dataset._replace(inputs=changed),
        dataset._replace(labels=None),
        dataset._replace(inputs=dataset.inputs[::-1]),
        dataset._replace(labels=dataset.labels[::-1]),
        dataset._replace(num_classes=11),
        dataset._replace(decode='identity'),
    ]
    assert data.digest(dataset) == data.digest(dataset._replace(name='renamed', decode=''))
    assert len({data.digest(other) for other in [dataset, *others]}) == 7
