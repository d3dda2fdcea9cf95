"""Bodies of requests that are wrong, too large or dangerous, against a service in this process."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import serving
from serving import DIM, SHAPE, as_json, as_npz, call
from starlette.exceptions import HTTPException

from ssl_extract import serve, victims
from ssl_extract.serve import bodies
from ssl_extract.serve.bodies import JSON, NPZ


@pytest.fixture(scope='module')
def url(tmp_path_factory):
    """A service with one account without a budget."""
    victim = victims.from_function(serving.embed, dim=DIM, address='a map', input_shape=SHAPE)
    opened = serve.open_service(victim, '', serving.entries(b=None), tmp_path_factory.mktemp('s'))
    with opened as made, serving.running(made, max_batch=20) as url:
        yield url


def bomb():
    """A thousand times as many bytes as were sent, and a claim of 48 GB."""
    return npy((10**9, *SHAPE), bytes(10**6), zipfile.ZIP_DEFLATED)


def pickled():
    buffer = io.BytesIO()
    np.savez(buffer, inputs=np.array([{'a': 1}], object))
    return buffer.getvalue()


def as_archive(array, packing=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', packing) as archive:
        archive.writestr('inputs.npy', array)
    return buffer.getvalue()


def npy(shape, content, packing=zipfile.ZIP_STORED):
    """An npz whose array claims a shape."""
    array = io.BytesIO()
    header = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(array, header)
    return as_archive(array.getvalue() + content, packing)


ZEROS = np.zeros((2, *SHAPE), np.float32)
MALFORMED = [
    ('empty', JSON, b'', 400),
    ('no JSON', JSON, b'{"inputs": [[', 400),
    ('deep', JSON, b'[' * 50_000, 400),
    ('deep inputs', JSON, b'{"dtype": "uint8", "inputs": ' + b'[' * 99 + b']' * 99 + b'}', 400),
    ('NaN', JSON, b'{"dtype": "float32", "inputs": [NaN]}', 400),
    ('a number', JSON, b'{"dtype": "float32", "inputs": 3}', 400),
    ('digits', JSON, b'{"dtype": "float32", "inputs": [' + b'9' * 5_000 + b']}', 400),
    ('a list', JSON, b'[1, 2]', 400),
    ('no dtype', JSON, b'{"inputs": [[1]]}', 400),
    ('other dtype', JSON, as_json(ZEROS, 'float64'), 400),
    ('list as dtype', JSON, b'{"inputs": [[1]], "dtype": ["uint8"]}', 400),
    ('ragged', JSON, b'{"inputs": [[1], [1, 2]], "dtype": "uint8"}', 400),
    ('texts', JSON, b'{"inputs": ["a"], "dtype": "uint8"}', 400),
    ('range', JSON, as_json(np.full((1, *SHAPE), 256)), 400),
    ('negative', JSON, as_json(np.full((1, *SHAPE), -1)), 400),
    ('fractions', JSON, as_json(np.full((1, *SHAPE), 0.5)), 400),
    ('too large', JSON, as_json(np.full((1, *SHAPE), 1e300), 'float32'), 400),
    ('shape', JSON, as_json(np.zeros((2, 4, 4, 1), int)), 400),
    ('no inputs', JSON, as_json(np.zeros((0, *SHAPE), int)), 400),
    ('no image', NPZ, as_npz(ZEROS + 2), 400),
    ('infinity', NPZ, as_npz(ZEROS / 1e-9 + np.inf), 400),
    ('float64', NPZ, as_npz(np.zeros((2, *SHAPE))), 400),
    ('big-endian', NPZ, as_npz(ZEROS.astype('>f4')), 400),
    ('other shape', NPZ, as_npz(np.zeros((2, 48), np.uint8)), 400),
    ('one input', NPZ, as_npz(ZEROS[0]), 400),
    ('other name', NPZ, as_npz(ZEROS, more=ZEROS), 400),
    ('pickle', NPZ, pickled(), 400),
    ('no zip', NPZ, b'PK\x03\x04 nonsense', 400),
    ('cut', NPZ, as_npz(ZEROS)[:-30], 400),
    ('short', NPZ, npy((2, *SHAPE), bytes(50)), 400),
    ('long', NPZ, npy((1, *SHAPE), bytes(500)), 400),
    ('negative sizes', NPZ, npy((-1, *SHAPE), bytes(48)), 400),
    ('bomb', NPZ, bomb(), 413),
    ('batch', NPZ, as_npz(np.zeros((21, *SHAPE), np.uint8)), 413),
    ('JSON batch', JSON, as_json(np.zeros((21, *SHAPE), int)), 413),
    ('body', JSON, b' ' * 100_000, 413),
    ('large body', NPZ, bytes(1_000_000), 413),
    ('type', 'text/plain', b'hello', 400),
]


@pytest.mark.parametrize(
    ('kind', 'body', 'status'), [pytest.param(*case, id=name) for name, *case in MALFORMED]
)
def test_wrong_bodies_are_one_line_and_cost_nothing(url, kind, body, status):
    before = call(url, '/v1/account', 'b')[1]
    got, value, _ = call(url, '/v1/answers', 'b', body, Content_Type=kind)
    assert got == status and value.keys() == {'error'}, value
    assert '\n' not in value['error'] and '/' not in value['error'].replace('application/', '')
    assert call(url, '/v1/account', 'b')[1] == before


def test_a_text_among_numbers_is_refused_before_an_array_is_made_of_it():
    """NumPy would make every entry as wide as the text: 40 MB of 30 kB."""
    text = b'"' + b'a' * 20_000 + b'"'
    body = b'{"dtype": "float32", "inputs": [' + text + b',0' * 500 + b']}'
    tracemalloc.start()
    with pytest.raises(HTTPException, match='send lists of numbers'):
        bodies.read(JSON, body, (1,), 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_an_archive_is_not_unpacked_before_its_size_is_known():
    """Other packings than NumPy's unpack at once, and headers of version 2 have any length."""
    content = npy((2, *SHAPE), bytes(4_000_000))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        array = archive.read('inputs.npy')
    second = b'\x93NUMPY\x02\x00' + (3_900_000).to_bytes(4, 'little') + array
    for packed in (
        as_archive(array, zipfile.ZIP_BZIP2),
        as_archive(array, zipfile.ZIP_LZMA),
        as_archive(second, zipfile.ZIP_DEFLATED),
    ):
        tracemalloc.start()
        with pytest.raises(HTTPException, match='the body is no npz'):
            bodies.read(NPZ, packed, SHAPE, 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(packed) < 10_000 and peak < 1_000_000


def test_the_largest_bodies_are_those_of_full_batches():
    inputs = np.full((7, *SHAPE), -1.1754943508222875e-38, np.float32)
    for kind, body in ((JSON, as_json(inputs, 'float32')), (NPZ, as_npz(inputs))):
        assert len(body) < bodies.largest(kind, SHAPE, 7)
