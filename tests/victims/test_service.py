"""A service is asked, whatever it answers: one clear line, and nothing paid is lost."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import services

import ssl_extract
from ssl_extract import victims
from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.victims.connection import Request

INPUTS = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv('SERVICE_TOKEN', services.TOKEN)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')


@pytest.fixture
def service():
    with services.served() as started:
        yield started


def victim_of(url, **settings):
    settings = {'token': 'SERVICE_TOKEN', 'retries': 1, 'wait': 0.01} | settings
    written = ''.join(f', {name}={value!r}' for name, value in settings.items())
    return victims.load(f'http({url!r}{written})')


def collect(folder, url, inputs=INPUTS, budget=24, plan='once', seed=1, **settings):
    oracle = ssl_extract.make_oracle(victim_of(url, **settings), budget=budget)
    return ssl_extract.collect(oracle, inputs, folder=folder, plan=plan, seed=seed)


@pytest.mark.parametrize('body', ['npz', 'json'])
def test_it_says_what_it_is_and_answers_in_both_formats(service, tmp_path, body):
    victim = victim_of(service.url, body=body)
    assert victim.dim == 3 and victim.input_shape == (6,)
    assert victim.address == f'{service.url} map 1'
    got = collect(tmp_path / 'a', service.url, body=body)
    np.testing.assert_allclose(got.representations, INPUTS @ services.MAP, rtol=1e-5)
    np.testing.assert_array_equal(service.inputs(), INPUTS)
    assert [len(x) for _, x in service.posts] == [8, 8, 8]  # the most that it takes
    assert got.bill.billed == service.billed == 24
    assert files.read_json(tmp_path / 'a/queries_sent.json')['billed'] == 24
    collect(tmp_path / 'a', service.url, body=body)
    assert len(service.posts) == 3  # all is stored


def test_images_are_sent_as_whole_numbers_or_not_at_all(service, tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (8, 6), np.uint8)
    got = collect(tmp_path / 'a', service.url, pixels, body='json', dtype='uint8')
    np.testing.assert_allclose(got.representations, pixels / 255 @ services.MAP, rtol=1e-4)
    with pytest.raises(UserError, match=r"http\(dtype='uint8'\): .* nothing was sent; write dtype"):
        collect(tmp_path / 'b', service.url, dtype='uint8')
    assert len(service.posts) == 1


def test_another_format_needs_its_field_only(service, tmp_path):
    plain = {'field': 'embeddings', 'dim': 3, 'body': 'json', 'batch_size': 16}
    got = collect(tmp_path / 'a', f'{service.url}/plain', **plain)
    np.testing.assert_allclose(got.representations, INPUTS @ services.MAP, rtol=1e-5)
    assert service.gets == [] and [len(x) for _, x in service.posts] == [16, 8]
    with pytest.raises(UserError, match="its reply has no 'embedding': it has embeddings"):
        collect(tmp_path / 'b', f'{service.url}/plain', **plain | {'field': 'embedding'})


LIES = {
    'nan': '1 of 8 answers hold NaN',
    'short': r'"answers" are \[7, 3\], of 8 inputs',
    'wide': r'float32 \[8, 4\]; it must answer real numbers \[8, 3\]',
    'pickle': 'its reply is no application/x-npz: Object arrays cannot be loaded',
    'html': "it answered with 'text/html' and not with JSON or npz: '<html> <h1>Welcome",
    'flood': 'its reply cannot be read .it has more than ',
    'failed': "it answered with status 500, '<html> <h1>oh</h1></html>'; what is stored stays",
    'redirect': 'it redirects to https://elsewhere.example/v1/answers; write that url, if',
    'forbidden': r"it answered with status 403, 'not you, \.\.\.'$",
    'large': "status 413, 'too large'; lower batch_size: this request had ",
    'broken': 'it is not reached .*; what is stored stays: give the same command again later',
    'long': "it answered with status 429, 'slow down'; .* again in 7200 s",
    'empty': 'it answered with status 204',
    'text': "'answers' is no array of int or float; the reply is kept as ",
    'nested': r"it answered with 'gzip, gzip of application/x-npz' and not with JSON or npz",
    'bomb': r"it answered with 'gzip of application/x-npz' and not with JSON or npz",
    'parts': r"it answered with 'gzip of application/x-npz' and not with JSON or npz",
    'brotli': r"it answered with 'br of application/x-npz' and not with JSON or npz",
    'echo': r"it answered with 'text/plain' and not with JSON or npz: 'Bearer \.\.\.'",
}


@pytest.mark.parametrize('lie', LIES)
def test_a_lie_is_one_line_and_what_was_paid_before_stays(service, tmp_path, lie):
    service.script = ['', *[lie] * 2]
    with pytest.raises(UserError, match=LIES[lie]) as caught:
        collect(tmp_path / 'a', service.url)
    message = str(caught.value)
    assert message.startswith(f'victim {service.url}: ') and len(message) < 400
    assert '\n' not in message and services.TOKEN not in message
    replies = list((tmp_path / 'a').glob('reply-*'))
    assert not any(services.TOKEN.encode() in path.read_bytes() for path in replies)
    kept = [path.name for path in replies]
    assert kept == ['reply-0000000008.bin'] * (lie in services.AFTER and lie != 'flood')
    sent = len(service.posts)
    service.script = []
    got = collect(tmp_path / 'a', service.url)
    np.testing.assert_allclose(got.representations, INPUTS @ services.MAP, rtol=1e-5)
    assert [len(x) for _, x in service.posts[sent:]] == [8, 8]  # the first batch is not sent again
    assert service.billed == got.bill.billed == 24  # under one key, a batch is billed once
    assert files.read_json(tmp_path / 'a/queries_sent.json')['billed'] == 24


def test_it_waits_as_long_as_it_is_told_and_asks_again(service, tmp_path):
    service.script = ['busy', 'failed', 'broken', '', 'busy']
    got = collect(tmp_path / 'a', service.url, retries=3, wait=0.01)
    assert got.bill.billed == service.billed == 24
    keys = [key for key, _ in service.posts]
    assert len(keys) == 7 and len(set(keys)) == 3
    assert files.read_json(tmp_path / 'a/queries_sent.json')['sent'] == {service.url: 24}


def test_its_own_refusals_are_refused_queries_and_its_budget_is_known_before(tmp_path):
    with services.served(budget=20) as service:
        with pytest.raises(UserError, match='it leaves 20 queries to this account, and 24 were'):
            collect(tmp_path / 'a', service.url)
        assert service.posts == []
        service.about['max_batch'] = 24
        victim = victim_of(service.url, body='json')
        answers, granted = victim.service.send(INPUTS)
        assert granted.tolist() == [True] * 20 + [False] * 4 and not answers[20:].any()
        with pytest.raises(UserError, match='it refused 24 of 24 inputs'):
            victim.answer(INPUTS)


def test_a_refused_row_takes_a_place_in_the_budget_and_is_not_billed(tmp_path):
    with services.served(about={'max_batch': 24}, budget=20) as service:
        oracle = ssl_extract.make_oracle(victim_of(service.url), 'round(decimals=2)', budget=24)
        account = oracle.init(jax.random.key(0), INPUTS)
        answer, account = oracle.query(INPUTS, account)
        assert answer.granted.tolist() == [True] * 20 + [False] * 4
        assert not np.asarray(answer.representations)[20:].any()
        numbers = account.num_queries, account.num_refused, account.num_withheld
        assert [int(number) for number in numbers] == [20, 4, 4]
        again, _ = oracle.query(INPUTS[:1], account)
        assert not again.granted.any() and len(service.posts) == 1


def test_accounts_of_one_content_are_billed_apart(service, tmp_path):
    for seed in (1, 2):
        collect(tmp_path / str(seed), service.url, seed=seed)
    repeated = collect(tmp_path / 'c', service.url, budget=48, plan='repeat(m=2)')
    assert repeated.bill.billed == 48 and service.billed == 96


def test_the_cap_holds_over_all_accounts_beside_each_other(service, tmp_path):
    collect(tmp_path / 'a', service.url, INPUTS[:16], max_queries=30)
    with pytest.raises(UserError, match='max_queries=30: 16 were sent .* 24 more were to be sent'):
        collect(tmp_path / 'b', service.url, max_queries=30)
    assert service.billed == 16
    collect(tmp_path / 'b', service.url, INPUTS[:14], max_queries=30)
    with pytest.raises(UserError, match='max_queries=30: 30 were sent'):
        collect(tmp_path / 'a', service.url, max_queries=30)
    assert service.billed == 30
    service.about['address'] = 'map 2'  # neither another name nor other settings are another cap
    same = f'{service.url.replace("http", "HTTP")}/'
    for name, url, settings in (
        ('d', service.url, {}),
        ('e', service.url, {'dim': 3}),
        ('f', same, {'dim': 3, 'address': 'mine'}),
    ):
        with pytest.raises(UserError, match='max_queries=30: 30 were sent'):
            collect(tmp_path / name, url, max_queries=30, **settings)
    assert service.billed == 30
    service.script = ['failed', 'failed', 'failed']
    plain = {'field': 'embeddings', 'dim': 3, 'body': 'json', 'retries': 3, 'max_queries': 20}
    with pytest.raises(UserError, match='max_queries=20: 16 were sent'):
        collect(tmp_path / 'c', f'{service.url}/plain', INPUTS[:8], **plain)


PROGRAM = """
import sys
import numpy as np
import ssl_extract

inputs = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)
victim = ssl_extract.victims.load(f'http({sys.argv[1]!r}, token="SERVICE_TOKEN")')
oracle = ssl_extract.make_oracle(victim, budget=24)
ssl_extract.collect(oracle, inputs, folder=sys.argv[2])
"""


def test_killed_after_it_was_billed_and_before_it_was_answered(service, tmp_path, capfd):
    service.script = ['', 'sleep']
    command = [sys.executable, '-c', PROGRAM, service.url, str(tmp_path / 'a')]
    client = subprocess.Popen(command, env=os.environ | {'JAX_PLATFORMS': 'cpu'})
    for _ in range(2):
        assert service.arrived.acquire(timeout=120)
    client.kill()
    assert client.wait() == -signal.SIGKILL
    assert service.billed == 16  # and one part of 8 answers is on disk
    got = collect(tmp_path / 'a', service.url)
    assert got.bill.billed == service.billed == 24
    np.testing.assert_allclose(got.representations, INPUTS @ services.MAP, rtol=1e-5)
    journal = files.read_json(tmp_path / 'a/queries_sent.json')
    assert (journal['sent'], journal['billed']) == ({service.url: 24}, 24)
    assert (
        '8 queries that were sent before are sent again under the same key'
        in capfd.readouterr().err
    )
    assert services.TOKEN not in ''.join(p.read_text('latin1') for p in tmp_path.rglob('*.*'))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'token': 'NO_SUCH_TOKEN'}, 'the environment variable NO_SUCH_TOKEN is not set; export'),
        ({'token': 'open-sesame'}, 'write the NAME of an environment variable'),
        ({'token': ''}, "status 401, 'no token that is known'; name the environment variable"),
        ({'body': 'xml'}, "body must be 'npz' or 'json'"),
        ({'field': 'embeddings'}, "write dim=... and body='json' too"),
        ({'batch_size': 0}, 'batch_size must be'),
        ({'url': 'http://user:word@127.0.0.1'}, 'what is secret in a url would stay'),
        ({'url': 'http://127.0.0.1?key=open-sesame'}, 'what is secret in a url would stay'),
        ({'url': 'ftp://127.0.0.1'}, "write https://HOST/PATH, got 'ftp://127.0.0.1'"),
        ({'url': 'http://127.0.0.1:9'}, 'it is not reached .*Connection refused'),
        ({'path': '/nowhere'}, 'it has no /v1/about; write dim=...'),
    ],
)
def test_a_wrong_setting_is_one_line(service, settings, message):
    url = settings.pop('url', service.url) + settings.pop('path', '')
    with pytest.raises(UserError, match=message) as caught:
        victim_of(url, **settings)
    assert '\n' not in str(caught.value)
    if settings.get('token') != services.TOKEN:
        assert services.TOKEN not in str(caught.value)
    assert service.posts == []


@pytest.mark.parametrize(
    ('about', 'message'),
    [
        *(
            ({name: value}, 'its /v1/about is of another form')
            for name, value in [
                ('dim', 0),
                ('dim', '3'),
                ('max_batch', 0),
                ('input_shape', 6),
                ('input_shape', []),
                ('address', 'a\nb'),
                ('address', 'a\u202eb'),
                ('address', '\ud800'),
                ('address', 'a' * 501),
                ('answers', ['representation']),
            ]
        ),
        ({'dim': 2**16 + 1}, 'its answers have 65,537 numbers; at most 65,536 can be asked for$'),
        ({'address': f'by {services.TOKEN}'}, 'its /v1/about repeats the token'),
    ],
)
def test_a_service_that_says_nonsense_about_itself_is_not_asked(about, message):
    with (
        services.served(about=about) as service,
        pytest.raises(UserError, match=message) as caught,
    ):
        victim_of(service.url)
    assert '\n' not in str(caught.value) and services.TOKEN not in str(caught.value)


def test_a_service_may_have_a_long_name_with_any_spaces():
    name = f'tiles  {"é" * 490}  1'
    with services.served(about={'address': name, 'dim': 2**16}) as service:
        victim = victim_of(service.url)
    assert victim.address == f'{service.url} {name}' and victim.dim == 2**16


def test_an_answer_through_a_proxy_is_an_answer(service, tmp_path):
    service.script = ['transformed', 'packed', 'packed']
    got = collect(tmp_path / 'a', service.url)
    np.testing.assert_allclose(got.representations, INPUTS @ services.MAP, rtol=1e-5)
    assert len(service.posts) == 3


def test_it_waits_before_it_asks_again_whatever_it_is_told(service, tmp_path):
    service.script = ['busy']  # with Retry-After: 0
    start = time.monotonic()
    collect(tmp_path / 'a', service.url, wait=0.4)
    assert time.monotonic() - start > 0.4


def test_a_token_stays_hidden_where_a_text_is_cut_or_spread(service, monkeypatch):
    token = 'abcdefgh' * 40
    connection = victim_of(service.url).service.connection
    monkeypatch.setattr(connection, '_token', token)
    for text in (token, f'{"x" * 100} {token}'[:120], '\u200b'.join(token), f'a {token[:60]}'):
        assert 'abcdefgh' not in connection.hidden(text)
    assert connection.hidden('abcdefg') == 'abcdefg'
    assert token.encode() not in connection.without_token(b'{' + token.encode() + b'}')


@pytest.mark.parametrize(('deed', 'unserved'), [('empty', False), ('forbidden', True)])
def test_a_reply_that_may_have_been_billed_counts(service, deed, unserved):
    """204 says that the request was served, and 403 that it was not."""
    service.script = [deed]
    connection = victim_of(service.url).service.connection
    body = json.dumps({'inputs': INPUTS[:2].tolist(), 'dtype': 'float32'}).encode()
    headers = {'Content-Type': 'application/json', 'Idempotency-Key': 'k'}
    request = Request('POST', f'{service.url}/v1/answers', headers, body)
    assert connection._attempt(request).unserved is unserved


@pytest.mark.parametrize('token', ['open\nsesame', 'öpen-sesame'])
def test_a_token_that_no_header_can_hold_stays_hidden(monkeypatch, token):
    monkeypatch.setenv('SERVICE_TOKEN', token)
    with pytest.raises(UserError, match='is no single word of ASCII letters') as caught:
        victim_of('http://127.0.0.1:9')
    assert 'sesame' not in str(caught.value)


def test_without_httpx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'httpx', None)
    with pytest.raises(UserError, match=r"pip install 'ssl_extract\[http\]'"):
        victim_of('http://127.0.0.1:9', dim=3)
