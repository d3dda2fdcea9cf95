"""A service over HTTP, in this process: answers, ledgers, refusals, limits."""

import concurrent.futures
import re
import socket
import struct
import time

import jax
import numpy as np
import pytest
import serving
from serving import DIM, MAP, SHAPE, as_npz, ask, call, images

from ssl_extract import serve, victims
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle
from ssl_extract.serve import accounts
from ssl_extract.serve.bodies import JSON, NPZ

VICTIM = victims.from_function(serving.embed, dim=DIM, address='a map', input_shape=SHAPE)


def opened(folder, defense='', victim=VICTIM, **budgets):
    return serve.open_service(victim, defense, serving.entries(**budgets), folder)


def embedded(inputs):
    return serving.embed(inputs.astype(np.float32) / 255)


@pytest.fixture(scope='module')
def url(tmp_path_factory):
    """A service with a budget of 40 for `a`, and without one for `b`."""
    folder = tmp_path_factory.mktemp('state')
    with opened(folder, a=40, b=None) as made, serving.running(made, max_batch=20) as url:
        yield url


def test_a_new_state_folder_is_the_owners_and_one_that_was_there_keeps_its_rights(tmp_path):
    (tmp_path / 'there').mkdir(mode=0o755)
    for name, rights in (('new', 0o700), ('there', 0o755)):
        victim = victims.from_function(serving.embed, dim=DIM, address='a map', input_shape=SHAPE)
        with serve.open_service(victim, '', serving.entries(a=2), tmp_path / name):
            assert (tmp_path / name).stat().st_mode & 0o777 == rights


def test_both_formats_have_the_same_answers_and_one_ledger(url):
    inputs = images(3)
    status, value, _ = ask(url, inputs, 'b', JSON)
    assert status == 200
    assert (value['granted'], value['billed'], value['remaining']) == ([True] * 3, 3, None)
    np.testing.assert_allclose(value['answers'], embedded(inputs), rtol=1e-5)
    floats = inputs.astype(np.float32) / 255
    status, other, _ = ask(url, floats, 'b', NPZ)
    assert status == 200 and other['answers'].dtype == np.float32
    np.testing.assert_array_equal(other['answers'], np.float32(value['answers']))
    assert (other['billed'], other['remaining'], other['granted'].all()) == (3, -1, True)
    status, crossed, _ = ask(url, inputs, 'b', NPZ, Accept=JSON)
    assert crossed['answers'] == value['answers']
    expected = {'billed': 9, 'refused': 0, 'budget': None, 'remaining': None}
    assert call(url, '/v1/account', 'b')[1] == expected


def test_the_budget_ends_within_a_batch(url):
    got = [ask(url, images(15, seed), 'a', JSON)[1] for seed in range(4)]
    assert [value['billed'] for value in got] == [15, 15, 10, 0]
    assert [value['remaining'] for value in got] == [25, 10, 0, 0]
    assert got[2]['granted'] == [True] * 10 + [False] * 5 and got[2]['answers'][10] is None
    assert call(url, '/v1/account', 'a')[1] == {
        'billed': 40,
        'refused': 20,
        'budget': 40,
        'remaining': 0,
    }
    status, ledger, _ = call(url, '/v1/ledger', 'owner')
    assert status == 200 and ledger['victim'] == 'a map'
    account = ledger['accounts']['a']
    assert (account['billed'], account['refused'], account['requests']) == (40, 20, 4)


def test_it_describes_itself_and_every_route(url):
    about = call(url, '/v1/about')[1]
    assert re.fullmatch(r'a map-[0-9a-f]{16}', about.pop('address'))
    assert about == {
        'dim': DIM,
        'input_shape': [4, 4, 3],
        'answers': 'representation',
        'max_batch': 20,
    }
    assert call(url, '/health', name='')[:2] == (200, {'status': 'ok'})
    status, document, _ = call(url, '/openapi.json', name='')
    assert status == 200 and document['openapi'].startswith('3.1')
    for path, methods in document['paths'].items():
        (method,) = methods
        status = call(url, path, '', body=b'' if method == 'post' else None)[0]
        public = methods[method].get('security') == []
        assert status == (200 if public else 401), path
        assert public or '401' in methods[method]['responses']
    assert call(url, '/v1/nothing')[:2] == (404, {'error': 'Not Found'})
    assert call(url, '/v1/answers')[:2] == (405, {'error': 'Method Not Allowed'})


@pytest.mark.parametrize(
    ('path', 'name', 'status'),
    [
        ('/v1/about', '', 401),
        ('/v1/about', 'a-token-that-is-unknown', 401),
        ('/v1/ledger', 'a', 403),
        ('/v1/account', 'owner', 403),
        ('/v1/about', 'owner', 200),
    ],
)
def test_a_token_opens_what_it_is_for(url, path, name, status):
    assert call(url, path, name)[0] == status


def test_a_repeated_request_is_answered_again_and_not_billed_again(tmp_path):
    inputs, defense = images(6), 'gaussian_noise(stddev=1.0) | rate_limit(total=20)'
    with opened(tmp_path, defense, a=30) as made, serving.running(made) as url:
        first = ask(url, inputs, kind=JSON, Idempotency_Key='k1')[1]
        again = ask(url, inputs, kind=JSON, Idempotency_Key='k1')[1]
        assert again == first and first['billed'] == 6
        assert ask(url, inputs, kind=NPZ, Idempotency_Key='k1')[0] == 409  # other bytes
        assert ask(url, images(5), kind=JSON, Idempotency_Key='k1')[0] == 409
        assert ask(url, inputs, kind=JSON, Idempotency_Key='with spaces')[0] == 400
        fresh = ask(url, inputs, kind=JSON)[1]
        assert fresh['answers'] != first['answers']  # noise of other queries
        before = call(url, '/v1/ledger', 'owner')[1]
        assert before['accounts']['a']['billed'] == 12
        assert before['accounts']['a']['noticed']['rate_limit.num_answered'] == 12
    with opened(tmp_path, defense, a=30) as made, serving.running(made) as url:
        assert call(url, '/v1/ledger', 'owner')[1] == before
        assert ask(url, inputs, kind=JSON, Idempotency_Key='k1')[1] == first
        more = ask(url, images(15), kind=JSON)[1]
        assert (more['billed'], more['remaining']) == (8, 3)  # the defense refuses from the 21st
        assert ask(url, images(15), kind=JSON)[1]['remaining'] == 0
        assert call(url, '/v1/account')[1]['billed'] == 20


def test_of_old_keys_only_the_last_are_kept(tmp_path):
    with opened(tmp_path, a=None) as made:
        account = made.accounts['a']
        for number in range(accounts.KEPT + 3):
            account.answer(np.zeros((1, *SHAPE), np.float32), f'k{number}', 'body')
        assert len(list(tmp_path.glob('accounts/a/answer-*.npz'))) == accounts.KEPT
        account.answer(np.zeros((1, *SHAPE), np.float32), 'k3', 'body')
        assert account.bill()['billed'] == accounts.KEPT + 3
        account.answer(np.zeros((1, *SHAPE), np.float32), 'k2', 'body')
        assert account.bill()['billed'] == accounts.KEPT + 4


def test_a_large_request_is_answered_in_parts_and_billed_whole(tmp_path):
    inputs = images(accounts.ROWS + 5)
    with opened(tmp_path, 'round(decimals=1)', a=accounts.ROWS + 3) as made:
        reply = made.accounts['a'].answer(inputs.astype(np.float32) / 255)
        bill = made.accounts['a'].ledger()
    assert reply.granted.tolist() == [True] * (accounts.ROWS + 3) + [False] * 2
    np.testing.assert_allclose(reply.answers[:-2], embedded(inputs[:-2]), atol=0.051)
    assert (bill['billed'], bill['refused'], bill['requests']) == (accounts.ROWS + 3, 2, 1)


def test_eight_accounts_at_once_get_exactly_their_budgets(tmp_path):
    budgets = {name: 30 + 7 * number for number, name in enumerate('abcdefgh')}

    def use(url, name):
        got = [ask(url, images(9, seed), name, Idempotency_Key=f'{seed}') for seed in range(10)]
        assert {status for status, _, _ in got} == {200}, [
            v for status, v, _ in got if status != 200
        ]
        return sum(int(value['billed']) for _, value, _ in got)

    with (
        opened(tmp_path, 'round(decimals=2)', **budgets) as made,
        serving.running(made) as url,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        billed = list(pool.map(use, [url] * 16, [*budgets, *budgets]))  # two clients of each
        ledger = call(url, '/v1/ledger', 'owner')[1]['accounts']
    # The second client of an account has the keys of the first: the same answers, billed once.
    assert {n: ledger[n]['billed'] for n in budgets} == {n: min(b, 90) for n, b in budgets.items()}
    assert billed == [ledger[n]['billed'] for n in [*budgets, *budgets]]
    assert all(account['requests'] == 10 for account in ledger.values())


def test_a_jax_victim_is_answered_as_by_its_oracle(tmp_path):
    victim = victims.from_flax(
        lambda v, x: jax.numpy.tanh(x.reshape(len(x), -1) @ v), MAP, input_shape=SHAPE
    )
    defense = 'similarity_guard(threshold=0.9, capacity=16, then="refuse")'
    inputs = images(40)
    oracle = make_oracle(victim, defense, budget=35)
    decoded = inputs.astype(np.float32) / 255
    expected, _ = jax.jit(oracle.query)(decoded, oracle.init(jax.random.key(0), decoded))
    with opened(tmp_path, defense, victim, a=35) as made, serving.running(made) as url:
        parts = [ask(url, inputs[start : start + 7])[1] for start in range(0, 40, 7)]
    for name, of_oracle in zip(('answers', 'granted'), expected, strict=True):
        got = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(got, of_oracle, atol=1e-5)
    assert 0 < expected.granted.sum() < 35


def test_a_victim_that_fails_costs_nothing_and_shows_nothing(tmp_path, capsys):
    def moody(inputs):
        if inputs.max() > 0.999:
            raise RuntimeError('a secret of /home/owner')
        return np.full((len(inputs), DIM), np.nan if inputs.min() > 0.5 else 1.0)

    victim = victims.from_function(moody, dim=DIM, address='moody', input_shape=SHAPE)
    with opened(tmp_path, victim=victim, a=10) as made, serving.running(made) as url:
        status, value, headers = ask(url, np.full((2, *SHAPE), 255, np.uint8), Idempotency_Key='k')
        assert status == 503 and int(headers['Retry-After']) > 0
        assert value == {'error': 'the service cannot answer these inputs now; nothing was billed'}
        status, value, _ = ask(url, np.full((2, *SHAPE), 200, np.uint8), Idempotency_Key='k')
        assert status == 400  # which no client tries again
        assert value == {
            'error': 'the victim has no finite answer to these inputs; nothing was billed'
        }
        assert call(url, '/v1/account')[1]['billed'] == 0
        assert ask(url, np.zeros((2, *SHAPE), np.uint8), Idempotency_Key='k')[1]['billed'] == 2
    errors = capsys.readouterr().err
    assert 'a secret of /home/owner' in errors and 'hold NaN' in errors
    assert serving.SECRETS['a'] not in errors


def test_a_full_disk_costs_nothing(tmp_path):
    with opened(tmp_path, a=10) as made, serving.running(made) as url:
        assert ask(url, images(2))[1]['billed'] == 2
        folder = tmp_path / 'accounts' / 'a'
        folder.rename(tmp_path / 'aside')
        folder.write_text('a file in the place of the folder')
        assert ask(url, images(2))[0] == 503
        assert call(url, '/v1/account')[1]['remaining'] == 8
        folder.unlink()
        (tmp_path / 'aside').rename(folder)
        assert ask(url, images(2))[1]['remaining'] == 6


def test_too_many_requests_a_minute_wait(tmp_path):
    limits = {'requests_per_minute': 2}
    with opened(tmp_path, a=10, b=10) as made, serving.running(made, **limits) as url:
        assert [ask(url, images(1))[0] for _ in range(3)] == [200, 200, 429]
        status, value, headers = ask(url, images(1))
        assert 1 <= int(headers['Retry-After']) <= 60 and value['error'].startswith('2 requests a')
        assert call(url, '/v1/account')[1]['billed'] == 2  # reading the bill is no query
        assert ask(url, images(1), 'b')[0] == 200


def raw(url, content, name='a'):
    """A socket on which the beginning of a request was sent."""
    host, port = url.removeprefix('http://').split(':')
    sock = socket.create_connection((host, int(port)), timeout=30)
    head = f'POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Type: {NPZ}\r\n'
    head += f'Authorization: Bearer {serving.SECRETS[name]}\r\n'
    sock.sendall(head.encode() + content)
    return sock


def busy(url, name):
    """Waits until a request of an account is turned away; those before it cost nothing."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status, _, headers = ask(url, images(1)[:, :2], name)
        if status == 503:
            return int(headers['Retry-After'])
        assert status == 400
    raise AssertionError('the service is not busy')


def test_slow_clients_and_those_that_hang_up_are_not_billed_and_block_nobody(tmp_path):
    limits = {'body_seconds': 1.5, 'waiting': 2}
    body = as_npz(images(3))
    half = f'Content-Length: {len(body)}\r\n\r\n'.encode() + body[: len(body) // 2]
    with opened(tmp_path, a=10, b=10) as made, serving.running(made, **limits) as url:
        slow = [raw(url, half), raw(url, half)]
        assert busy(url, 'a') == 1  # both places of the account are taken
        assert ask(url, images(1), 'b')[0] == 200
        assert [sock.recv(12) for sock in slow] == [b'HTTP/1.1 408'] * 2
        gone = raw(url, half)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        for sock in (*slow, gone):
            sock.close()
        whole = raw(url, f'Content-Length: {len(body)}\r\n\r\n'.encode() + body)
        whole.close()  # before the answer, which is billed: it was asked
        large = raw(url, b'X-Large: ' + b'x' * 100_000 + b'\r\n\r\n')
        assert large.recv(12) in (b'HTTP/1.1 400', b'HTTP/1.1 431', b'')
        large.close()
        deadline = time.monotonic() + 20
        while call(url, '/v1/account')[1]['billed'] < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert call(url, '/v1/account')[1]['billed'] == 3
        assert ask(url, images(1))[1]['remaining'] == 6


def test_bodies_that_together_are_too_large_wait(tmp_path):
    body = as_npz(images(3))
    half = f'Content-Length: {len(body)}\r\n\r\n'.encode() + body[: len(body) // 2]
    limits = {'held_bytes': len(body) + 9}  # no other body beside it
    with opened(tmp_path, a=10, b=10) as made, serving.running(made, **limits) as url:
        with raw(url, half) as first:
            assert busy(url, 'b') == 1
            first.sendall(body[len(body) // 2 :])
            assert first.recv(12) == b'HTTP/1.1 200'
        assert ask(url, images(20), 'b')[1]['billed'] == 10  # alone, a larger one


def test_the_noise_of_an_account_is_drawn_from_a_secret(tmp_path):
    same = images(2)
    with opened(tmp_path, 'gaussian_noise(stddev=1.0)', a=10, b=10) as made:
        got = [made.accounts[name].answer(same.astype(np.float32)).answers for name in 'ab']
        keys = [np.asarray(jax.random.key_data(made.accounts[n]._book.state.key)) for n in 'ab']
    assert np.abs(got[0] - got[1]).max() > 0.1
    assert all(key.all() for key in keys)  # 64 bits, where a seed has 32


def test_a_folder_is_of_one_service_and_one_process(tmp_path):
    with opened(tmp_path, a=10) as made:
        made.accounts['a'].answer(np.zeros((4, *SHAPE), np.float32))
        address = made.about()['address']
        with pytest.raises(UserError, match='another server uses this folder'), opened(tmp_path):
            pass
        assert tmp_path.stat().st_mode & 0o077 == 0
    with pytest.raises(UserError, match=r'another service \(defense differs\)'):
        opened(tmp_path, 'round', a=10).__enter__()
    other = victims.from_function(serving.embed, dim=DIM, address='b', input_shape=SHAPE)
    with pytest.raises(UserError, match=r'another service \(address differs\)'):
        opened(tmp_path, victim=other, a=10).__enter__()
    with opened(tmp_path, a=6) as made:  # a smaller budget than before
        assert made.about()['address'] == address
        assert made.accounts['a'].bill()['remaining'] == 2
    path = tmp_path / 'accounts' / 'a' / 'account.npz'
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match='put it back from a copy; without it the account starts'):
        opened(tmp_path, a=6).__enter__()


def test_victims_and_defenses_that_cannot_be_served_are_refused(tmp_path):
    unknown = VICTIM._replace(input_shape=None)
    for victim, defense, shape, message in (
        (unknown, '', None, 'does not say the shape of its inputs'),
        (VICTIM, '', (8, 8, 3), 'takes inputs of 4,4,3; leave the flag out'),
        (VICTIM, 'prediction_poisoning', None, 'needs a surrogate of the victim'),
        (VICTIM, 'similarity_guard(of="projection")', None, 'no projection head'),
        (VICTIM, 'no_defense', None, 'no_defense'),
        (VICTIM._replace(address='a\nb'), '', None, "'a b' is no name that clients take"),
        (VICTIM._replace(address='a' * 484), '', None, 'write another address='),
    ):
        with pytest.raises(UserError, match=message):
            serve.open_service(victim, defense, [], tmp_path, shape).__enter__()
    with serve.open_service(unknown, '', serving.entries(a=2), tmp_path, SHAPE) as made:
        assert made.about()['input_shape'] == [4, 4, 3]
