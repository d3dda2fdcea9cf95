"""A file of embeddings answers its inputs and no others; a broken file is one line."""

import io
import zipfile

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tiny

import ssl_extract
from ssl_extract import config, data, victims
from ssl_extract.errors import UserError
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.validate import validate
from ssl_extract.runtime import parallel

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
EMBEDDINGS = RNG.normal(size=(40, 5)).astype(np.float32)


def load(path, **settings):
    written = ''.join(f', {name}={value!r}' for name, value in settings.items())
    return victims.load(f'embeddings({str(path)!r}{written})')


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'answers.npz'
    np.savez(path, inputs=IMAGES, embeddings=EMBEDDINGS)
    return path


def lists_of(array):
    values = pyarrow.array(array.ravel())
    for length in array.shape[:0:-1]:
        values = pyarrow.FixedSizeListArray.from_arrays(values, length)
    return values


def test_a_content_is_known_again_as_bytes_and_as_a_compiled_program_decodes_it():
    values = np.arange(256, dtype=np.uint8)[:, None]
    decoded = np.asarray(jax.jit(data.decoding.images)(values))
    for floats in (decoded, values / 255, values * np.float32(1 / 255)):
        assert (victims.content_hashes(floats) == victims.content_hashes(values)).all()
    others = np.concatenate(
        [values / 255 + 1e-3, values / 255 - 1.01, values.astype(np.float32) + 2]
    )
    hashes = victims.content_hashes(np.concatenate([values / 255, others]).astype(np.float32))
    assert len(set(hashes)) == len(hashes)
    assert victims.content_hashes(np.array([[0.0]])) == victims.content_hashes(np.array([[-0.0]]))


def test_it_answers_its_inputs_in_any_order_and_nothing_is_sent_for_another(path, tmp_path):
    oracle = ssl_extract.make_oracle(load(path), 'round(decimals=1)', budget=99)
    order = RNG.permutation(40)[:30]
    got = ssl_extract.collect(oracle, IMAGES[order], folder=tmp_path / 'a', batch_size=8)
    np.testing.assert_allclose(got.representations, EMBEDDINGS[order].round(1), atol=1e-6)
    assert got.bill == (30, 30, 0, 0)
    other = IMAGES.copy()
    other[3, 0, 0, 0] ^= 1
    with pytest.raises(
        UserError, match='and 1 of 11 inputs to be asked are not in it: nothing was'
    ):
        ssl_extract.collect(oracle, other, folder=tmp_path / 'a', batch_size=8)
    with pytest.raises(UserError, match="views of them were to be asked: .* by plan 'once'"):
        ssl_extract.collect(oracle, IMAGES, plan='views(m=1)', query_augmentation='flip')
    twice = ssl_extract.collect(oracle, IMAGES[:4], plan='repeat(m=2)')
    assert twice.bill == (8, 4, 4, 0)
    np.testing.assert_array_equal(twice.representations[:, 0], twice.representations[:, 1])


def test_parquet_and_hashes_are_the_same_victim(path, tmp_path):
    hashes = victims.content_hashes(IMAGES)
    columns = {'inputs': lists_of(IMAGES), 'embeddings': lists_of(EMBEDDINGS)}
    columns |= {'hash': pyarrow.array(hashes.astype(str)), 'note': pyarrow.array([None] * 40)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / 'answers.parquet')
    np.savez(tmp_path / 'hashes.npz', hash=hashes, embeddings=EMBEDDINGS)
    victim = load(path)
    assert victim.dim == 5 and victim.input_shape == (4, 4, 3)
    for other in (
        load(tmp_path / 'answers.parquet'),
        load(tmp_path / 'answers.parquet', ids='hash'),
        load(tmp_path / 'hashes.npz', ids='hash'),
    ):
        assert other.address.split()[-1] == victim.address.split()[-1]
        np.testing.assert_array_equal(other.answer(IMAGES[:3] / 255), EMBEDDINGS[:3])
    ragged = {'inputs': pyarrow.array([[1.0], [1.0, 2.0]]), 'embeddings': lists_of(EMBEDDINGS[:2])}
    pyarrow.parquet.write_table(pyarrow.table(ragged), tmp_path / 'ragged.parquet')
    with pytest.raises(UserError, match='inputs: its lists are of several lengths'):
        load(tmp_path / 'ragged.parquet')
    with pytest.raises(UserError, match="has no 'ids': it has embeddings, hash, inputs, note"):
        load(tmp_path / 'answers.parquet', ids='ids')


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **{'inputs': IMAGES, 'embeddings': EMBEDDINGS} | arrays)
    return buffer.getvalue()


TWICE = np.concatenate([IMAGES[:39], IMAGES[:1]])
BROKEN = {
    'nan': (archive(embeddings=np.full((40, 5), np.nan)), r'40 of 40 rows .* \(first: row 0\)'),
    'flat': (archive(embeddings=EMBEDDINGS[0]), r'float32 \[5\]; it must hold real numbers \[N, D'),
    'complex': (archive(embeddings=EMBEDDINGS * 1j), 'is complex'),
    'empty': (archive(inputs=IMAGES[:0], embeddings=EMBEDDINGS[:0]), 'must hold real numbers'),
    'short': (archive(inputs=IMAGES[:39]), r'inputs is \[39, 4, 4, 3\] and embeddings \[40, 5\]'),
    'names': (archive(inputs=np.array(['a'] * 40)), 'or their hashes'),
    'hashes': (archive(inputs=victims.content_hashes(IMAGES)[:, None]), r'\[40, 1\]; it must hold'),
    'numbers': (archive(inputs=np.arange(40)), 'or their hashes'),
    'twice': (archive(inputs=TWICE), 'rows 0 and 39 are of the same input and their embeddings'),
    'pickle': (archive(inputs=np.array([{}] * 40)), 'Object arrays cannot be loaded'),
    'truncated': (archive()[:-200], 'cannot read .*: put it back from a copy'),
    'other': (b'PAR1', 'cannot read'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_a_broken_file_is_one_line(name, tmp_path):
    content, message = BROKEN[name]
    (tmp_path / 'answers.npz').write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / 'answers.npz')
    assert '\n' not in str(caught.value)


def test_a_file_of_another_kind_is_one_line(tmp_path):
    for name, message in {
        'gone.npz': 'cannot read .*No such file',
        'gone.parquet': 'cannot read .*No such file',
        'answers.csv': r'write a .npz or .parquet file',
    }.items():
        with pytest.raises(UserError, match=message):
            load(tmp_path / name)
    (tmp_path / 'broken.parquet').write_bytes(b'PAR1 and no more')
    with pytest.raises(UserError, match='cannot read'):
        load(tmp_path / 'broken.parquet')
    with zipfile.ZipFile(tmp_path / 'none.npz', 'w'):
        pass
    with pytest.raises(UserError, match="has no 'embeddings': it has no array"):
        load(tmp_path / 'none.npz')


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """A file that knows the attacker's pool of the tests, and no more."""
    path = tmp_path_factory.mktemp('digits') / 'answers.npz'
    pool = data.load('digits', 'train[64:200]', size=8)
    np.savez(path, inputs=pool.inputs, embeddings=pool.inputs.reshape(len(pool.inputs), -1)[:, :9])
    return path


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({}, ''),
        ({'attack.split': 'train[60:200]'}, r"attack.split='train\[60:200\]': .* 4 of 140 inputs"),
        ({'attack.plan': 'repeat(m=2)', 'attack.budget': 80}, ''),
        (
            {'attack.plan': 'views(m=2)', 'attack.query_augmentation': 'simclr'},
            r"attack.plan='views\(m=2\)': .* views of them were to be asked: nothing was sent",
        ),
        (
            {'evaluation.victim': 'ask'},
            r"evaluation.victim='ask', digits/train\[:200\]: .* 64 of 200",
        ),
        ({'defense': 'round', 'legitimate.users': ('broad',)}, "legitimate.users has 'broad': "),
    ],
)
def test_a_run_is_refused_before_it_asks_what_the_file_does_not_know(digits, fields, message):
    c = tiny.get_config()
    c.victim.source = f'embeddings({str(digits)!r})'
    c.attack.name, c.attack.loss = 'direct', 'mse'
    c.attack.encoder = 'resnet18(stem="patch", width=4, stages=(1,))'
    c.baselines.scratch_epochs, c.baselines.random, c.runs = 0, False, ()
    c.update_from_flattened_dict(fields)
    (cfg,) = config.expand(c)
    run = make_run(cfg, 'nowhere', parallel.data_mesh())
    if not message:
        return validate(run)
    with pytest.raises(UserError, match=message) as caught:
        validate(run)
    assert '\n' not in str(caught.value)
