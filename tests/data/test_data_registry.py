"""Third parties' data sets and decoders, and descriptions of sets."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import data
from ssl_extract.data import loading
from ssl_extract.errors import UserError

WAVES = np.random.default_rng(0).integers(-(2**15), 2**15, (10, 20)).astype(np.int16)


@pytest.fixture
def waves(registries_restored):
    @data.register_decoder('waveforms')
    def waveforms(stored):
        return stored.astype(jnp.float32) / 2**15

    @data.register('waves')
    def waves(gain: int = 1, *, split):
        rows = data.select(split, {'train': np.arange(8), 'test': np.arange(8, 10)})
        return data.Dataset(WAVES[rows] * np.int16(gain), rows % 2, 2, decode='waveforms')


def test_a_set_of_ones_own(waves):
    dataset = data.load('waves(gain=0)', 'train[2:]')
    assert (dataset.inputs.shape, dataset.name) == ((6, 20), 'waves(gain=0)/train[2:]')
    test = data.load('waves', 'test')
    np.testing.assert_array_equal(test.inputs, WAVES[8:])
    np.testing.assert_array_equal(data.decoder(test)(test.inputs), WAVES[8:] / 2.0**15)
    assert data.decoder(test) is data.decoder(dataset)
    assert len(data.distinct(dataset).inputs) == 1
    data.check_disjoint(data.load('waves', 'train'), test)
    with pytest.raises(UserError, match=r'1 of the 10 inputs .* are among those of waves/train'):
        data.check_train_test(data.load('waves', 'train[3:4]'), data.load('waves', 'train+test'))
    with pytest.raises(UserError, match='int16 .* with other, inputs float32'):
        data.check_disjoint(test, data.Dataset(np.ones((2, 20), np.float32), name='other'))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda rows: WAVES, 'gives .*ndarray.*, not a Dataset'),
        (lambda rows: data.Dataset(WAVES[:0], decode='identity'), r'N >= 1, got \[0, 20\]'),
        (lambda rows: data.Dataset(WAVES), 'int16 has no decoder'),
        (
            lambda rows: data.Dataset(WAVES, np.ones(9, int), 2, decode='identity'),
            'labels must be 10 integers',
        ),
        (
            lambda rows: data.Dataset(WAVES, np.arange(10), 3, decode='identity'),
            'num_classes=3, but a label is 9: write 10',
        ),
    ],
    ids=['no set', 'empty', 'no decoder', 'labels missing', 'classes missing'],
)
def test_what_a_factory_gives_is_checked(registries_restored, make, message):
    data.register('mine')(lambda split: make(split))
    with pytest.raises(UserError, match=message):
        data.load('mine', 'train')


def test_a_factory_without_a_split_is_refused(registries_restored):
    with pytest.raises(UserError, match="'mine': its factory needs a parameter `split`"):
        data.register('mine')(lambda size: None)


def test_labels_of_which_one_is_negative_are_none():
    half = data.checked(data.Dataset(np.ones((3, 2)), np.array([0, -1, 1]), 2))
    assert (half.labels, half.num_classes) == (None, 0)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('foldr(path="x")', "unknown data set 'foldr': known are digits, folder"),
        ('cifar10:3.0.2(size=3)', "unknown data set 'cifar10:3.0.2'"),
        ('digits(split="test")', 'split is not written here but given beside it'),
        ('digits(size=16)', 'size is not written here'),
        ('digits("test")', 'split is not written here'),
        ('digits(color=1)', "unexpected keyword argument 'color'"),
        ('digits(', 'cannot read data set'),
        ('two words', 'cannot read data set'),
        (None, 'cannot read data set'),
    ],
)
def test_wrong_descriptions(spec, message):
    with pytest.raises(UserError, match=message) as error:
        data.load(spec, 'train')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'spec',
    ['digits', 'cifar10:3.0.2', 'set/config:1.0.0', "folder('a (b)', size=3)", "a/b:1(x='y')"],
)
def test_descriptions_are_written_as_they_are_read(spec):
    assert loading.render_spec(*loading.parse_spec(spec)) == spec
