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


def saved(path, inputs, **settings):
    """The victim whose file has these inputs, with the embeddings [0], [1], [2], ..."""
    np.savez(path, inputs=inputs, embeddings=np.arange(len(inputs))[:, None])
    return load(path, **settings)


BYTES = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
DECODED = np.asarray(jax.jit(data.decoding.images)(BYTES))


def test_a_content_is_known_again_as_bytes_and_as_a_compiled_program_decodes_it(tmp_path):
    for floats in (DECODED, BYTES / 255, BYTES * np.float32(1 / 255)):
        assert (victims.content_hashes(floats) == victims.content_hashes(BYTES)).all()
        flat = floats.reshape(256, 1)  # in a file of bytes, bytes are meant
        hashes = victims.content_hashes(BYTES[..., 0, 0])
        for inputs in (BYTES[..., 0, 0], hashes):
            victim = saved(tmp_path / 'bytes.npz', inputs)
            np.testing.assert_array_equal(victim.answer(flat)[:, 0], np.arange(256))
            assert not victim.knows(flat + np.float32(1e-5)).any()
    others = np.concatenate([BYTES / 255 + 1e-6, BYTES / 255 - 1.01, BYTES.astype(np.float32) + 2])
    hashes = victims.content_hashes(np.concatenate([BYTES / 255, others]).astype(np.float32))
    assert len(set(hashes)) == len(hashes)
    assert victims.content_hashes(np.array([[0.0]])) == victims.content_hashes(np.array([[-0.0]]))


def test_inputs_that_are_no_images_are_matched_bit_by_bit(tmp_path):
    floats = DECODED.reshape(256, 1)
    near = np.nextafter(floats, np.float32(2))  # other inputs, however near
    victim = saved(tmp_path / 'floats.npz', np.concatenate([floats, near]))
    np.testing.assert_array_equal(victim.answer(floats.astype(float))[:, 0], np.arange(256))
    np.testing.assert_array_equal(victim.answer(near)[:, 0], 256 + np.arange(256))
    assert not victim.knows(np.nextafter(near, np.float32(2))).any()
    whole = np.array([[5, 6], [-1, 2**31 - 1]])
    victim = saved(tmp_path / 'whole.npz', whole)
    for dtype in (np.int32, np.int64):
        np.testing.assert_array_equal(victim.answer(whole.astype(dtype)), [[0], [1]])
    for wrapped in (whole + 2**32, whole - 2**32, whole.astype(np.uint64)):
        with pytest.raises(UserError, match=r'^row \d of the inputs holds \S+; whole numbers are'):
            victim.answer(wrapped)
    for other in (whole.astype(str), whole * 1j, np.int32(5)):
        with pytest.raises(UserError, match='^inputs are .* they must be real numbers'):
            victims.content_hashes(other)


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
    with pytest.raises(UserError, match="has no 'ids': it has embeddings, hash, inputs, note"):
        load(tmp_path / 'answers.parquet', ids='ids')


LISTS = {
    'list': lambda values, width: pyarrow.list_(values),
    'large_list': lambda values, width: pyarrow.large_list(values),
    'fixed_size_list': pyarrow.list_,
}


@pytest.mark.parametrize('kind', LISTS)
def test_columns_of_lists_of_each_kind(kind, tmp_path):
    path, real = tmp_path / 'answers.parquet', LISTS[kind](pyarrow.float32(), 2)

    def read(inputs, embeddings=((1, 2), (3, 4))):
        columns = {
            'inputs': pyarrow.array(inputs, LISTS[kind](LISTS[kind](pyarrow.uint8(), 2), 1)),
            'embeddings': pyarrow.array(embeddings, real),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return load(path)

    victim = read([[[1, 2]], [[3, 4]]])
    assert victim.input_shape == (1, 2) and victim.dim == 2
    assert victim.answer(np.uint8([[[3, 4]]])).tolist() == [[3, 4]]
    faults = [
        ([[[1, 2]], None], r'row 1 of inputs is missing'),
        ([[None], [[3, 4]]], r'row 0 of inputs has missing values'),
        ([[[1, 2]], [[3, None]]], r'row 1 of inputs has missing values'),
        ([[[1, 2]], [[3, 4]]], r'row 1 of embeddings has missing values', ((1, 2), (3, None))),
    ]
    if kind != 'fixed_size_list':
        faults.append(([[[1, 2]], [[3]]], 'row 1 of inputs holds a list of another length than 2'))
    if kind == 'fixed_size_list':
        tensors = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(EMBEDDINGS)
        pyarrow.parquet.write_table(pyarrow.table({'inputs': tensors, 'embeddings': tensors}), path)
        with pytest.raises(UserError, match='embeddings is a column of extension<.*; write lists'):
            load(path)
    for inputs, message, *embeddings in faults:
        with pytest.raises(UserError, match=f'^{path}: {message}; mend or take out such rows$'):
            read(inputs, *embeddings)


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **{'inputs': IMAGES, 'embeddings': EMBEDDINGS} | arrays)
    return buffer.getvalue()


TWICE = np.concatenate([IMAGES[:39], IMAGES[:1]])
BROKEN = {
    'nan': (
        archive(embeddings=np.where(np.arange(40)[:, None] > 2, np.nan, EMBEDDINGS)),
        'npz: row 3 of embeddings holds nan, and 37 of 40 rows are not finite as float32; take',
    ),
    'large': (
        archive(embeddings=np.full((40, 5), 1e300)),
        'row 0 of embeddings holds 1e.300, and 40 of',
    ),
    'nan inputs': (
        archive(inputs=np.where(np.arange(40)[:, None] == 2, np.inf, EMBEDDINGS)),
        'npz: row 2 of inputs holds inf, and 1 of 40 rows are not finite',
    ),
    'int64': (
        archive(inputs=np.arange(40)[:, None] + 2**31 - 39),
        f'npz: inputs: row 39 of the inputs holds {2**31}; whole numbers are int32$',
    ),
    'alike': (
        archive(inputs=TWICE, embeddings=EMBEDDINGS * 1e30),
        'rows 0 and 39 are of the same input',
    ),
    'flat': (archive(embeddings=EMBEDDINGS[0]), r'float32 \[5\]; it must hold real numbers \[N, D'),
    'complex': (archive(embeddings=EMBEDDINGS * 1j), 'is complex'),
    'empty': (archive(inputs=IMAGES[:0], embeddings=EMBEDDINGS[:0]), 'must hold real numbers'),
    'short': (archive(inputs=IMAGES[:39]), r'inputs is \[39, 4, 4, 3\] and embeddings \[40, 5\]'),
    'names': (archive(inputs=np.array(['a'] * 40)), 'or their hashes'),
    'hashes': (archive(inputs=victims.content_hashes(IMAGES)[:, None]), r'\[40, 1\]; it must hold'),
    'numbers': (archive(inputs=np.arange(40)), 'or their hashes'),
    'twice': (archive(inputs=TWICE), 'rows 0 and 39 are of the same input and their embeddings'),
    'pickle': (
        archive(inputs=np.array([{}] * 40)),
        'inputs.npy holds Python objects',
    ),
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


@pytest.mark.parametrize('decode', ['tokens', 'waves'])
def test_tokens_and_waveforms_are_known_as_a_set_stores_them(tmp_path, decode):
    """Encoders see them as floats; a float that is none of either is another input."""
    rng = np.random.default_rng(0)
    stored = {
        'tokens': rng.integers(50, size=(9, 6)).astype(np.int32),
        'waves': rng.integers(-3_000, 3_000, (9, 6)).astype(np.int16),
    }[decode]
    stored[::2, 4:] = {'tokens': -1, 'waves': -(2**15)}[decode]
    embeddings = rng.normal(size=(9, 3)).astype(np.float32)
    np.savez(tmp_path / 'known.npz', inputs=stored, embeddings=embeddings)
    np.savez(tmp_path / 'hashes.npz', inputs=victims.content_hashes(stored), embeddings=embeddings)
    seen = np.asarray(data.decoder(data.Dataset(stored, decode=decode))(stored))
    for name in ('known', 'hashes'):
        victim = victims.load(f'embeddings("{tmp_path / name}.npz")')
        np.testing.assert_array_equal(victim.answer(seen[::-1]), embeddings[::-1])
        assert not victim.knows(seen + np.float32(2**-17)).any()
