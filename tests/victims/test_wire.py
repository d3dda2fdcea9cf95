"""The format of a service: replies that keep it are read, and any other is one line."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from ssl_extract.victims import wire
from ssl_extract.victims.wire import JSON, NPZ, ReplyError

ANSWERS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def npz(**fields):
    fields = {'answers': ANSWERS, 'granted': np.array([True, True]), 'billed': 2} | fields
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in fields.items() if value is not None})
    return buffer.getvalue(), NPZ


def claim(*shape):
    """An archive whose array claims a shape."""
    buffer, array = io.BytesIO(), io.BytesIO()
    header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('answers.npy', array.getvalue())
    return buffer.getvalue(), NPZ


def text(**fields):
    fields = {'answers': ANSWERS.tolist(), 'granted': [True, True], 'billed': 2} | fields
    return json.dumps(fields).encode(), 'application/json; charset=utf-8'


def unpack(content, kind):
    return wire.unpack(content, kind, count=2, dim=3)


def test_both_formats_say_the_same():
    for reply in (unpack(*npz()), unpack(*text()), unpack(*text(remaining=None, more='x'))):
        np.testing.assert_array_equal(reply.answers, ANSWERS)
        assert reply.granted.all() and reply.billed == 2
    kept = np.array([False, True])
    refused = (
        unpack(*npz(granted=kept, billed=1)),
        unpack(*text(answers=[None, [4, 5, 6]], granted=[False, True], billed=1)),
    )
    for reply in refused:
        np.testing.assert_array_equal(reply.answers, ANSWERS * kept[:, None])
        assert reply.granted.tolist() == [False, True] and reply.billed == 1


def test_a_request_is_the_same_bytes_each_time_and_reads_back():
    inputs = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    assert wire.pack(inputs, 'npz') == wire.pack(inputs.copy(), 'npz')
    np.testing.assert_array_equal(np.load(io.BytesIO(wire.pack(inputs, 'npz')))['inputs'], inputs)
    fields = json.loads(wire.pack(inputs, 'json'))
    assert fields['dtype'] == 'float32'
    np.testing.assert_array_equal(np.float32(fields['inputs']), inputs)


@pytest.mark.parametrize(
    ('reply', 'message'),
    [
        (npz(answers=ANSWERS[:1]), r'"answers" are \[1, 3\], of 2 inputs'),
        (npz(answers=ANSWERS.astype(str)), 'it must answer real numbers'),
        (npz(answers=ANSWERS * 1j), 'it must answer real numbers'),
        (npz(answers=ANSWERS.astype('m8[s]')), 'it must answer real numbers'),
        (npz(answers=ANSWERS.astype(object)), 'Object arrays cannot be loaded'),
        (npz(granted=np.array([True])), '"granted" must hold true or false for each of 2'),
        (npz(granted=np.array([1, 1])), '"granted" must hold true or false for each of 2'),
        (npz(billed=None), "its reply has no 'billed': it has answers, granted"),
        (npz(billed=-1), "'billed' must be a whole number"),
        (text(billed=1.5), "'billed' must be a whole number"),
        (text(granted=[True, [1]]), "'granted' is no array"),
        (text(granted=[True, False]), 'null where it is not granted'),
        (text(answers=[[1, 2, 3], None]), 'null where it is not granted'),
        (text(answers=[[1, 2, 3], [1, 2]]), 'it must answer real numbers'),
        (text(answers=[[1, 2, 3], [1, 2, float('nan')]]), '1 of 2 answers hold NaN'),
        (text(answers=[[1, 2, 3], [1, 2, 10**400]]), 'it must answer real numbers'),
        (text(answers=[[1, 2, 3], [1, 2, '3']]), "'answers' is no array of int or float"),
        (text(answers=[[1, 2, 3], [1, 2, True]]), "'answers' is no array of int or float"),
        (text(granted=[True, 'yes']), "'granted' is no array of bool"),
        (text(answers={}), r'"answers" are \[\], of 2 inputs'),
        ((b'[[1, 2, 3]]', JSON), "its reply has no 'granted': it has list"),
        ((b'{"answers": [[1, 2', JSON), 'its reply is no application/json'),
        ((b'[' * 100_000, JSON), 'its reply is no application/json'),
        (claim(10**9, 10**6), 'its reply is no application/x-npz: Unable to allocate 3.55 PiB'),
        ((b'PK', NPZ), 'its reply is no application/x-npz: File is not a zip file'),
        ((npz()[0][:-100], NPZ), 'its reply is no application/x-npz'),
        ((b'<p>\n\x1b[2Jhi</p>', 'text/html'), r"'text/html' and not .*: '<p> \[2Jhi</p>'$"),
        ((b'', ''), "it answered with '' and not with JSON or npz"),
    ],
)
def test_any_other_reply_is_one_line(reply, message):
    with pytest.raises(ReplyError, match=message) as caught:
        unpack(*reply)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 300


def test_an_archive_that_unpacks_to_more_than_an_answer_is_not_unpacked():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, answers=np.zeros((1000, 1000)))
    with pytest.raises(ReplyError, match='its arrays are too large'):
        wire.unpack(buffer.getvalue(), NPZ, count=2, dim=3, most=10_000)


def test_an_archive_that_unpacks_without_a_limit_is_not_unpacked():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_BZIP2) as archive:
        archive.writestr('answers.npy', bytes(9))  # of which a size of 9 bytes may be a lie
    with pytest.raises(ReplyError, match='its reply is no application/x-npz: it is packed by me'):
        unpack(buffer.getvalue(), NPZ)


@pytest.mark.parametrize('field', ['', 'answers', 'granted'])
def test_a_text_among_numbers_is_refused_before_an_array_is_made_of_it(field):
    """NumPy would make every entry as wide as the text: 40 MB of 30 kB."""
    entries = ['a' * 20_000] + 500 * [0]
    content, kind = text(**{field or 'answers': [entries, [1, 2, 3]]})
    tracemalloc.start()
    with pytest.raises(ReplyError, match='is no array of'):
        wire.unpack(content, kind, count=2, dim=3, field=field)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
