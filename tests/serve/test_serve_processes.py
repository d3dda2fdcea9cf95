"""The command `serve` as a real process: the page's commands, kills under load."""

import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import serving
from processes import ROOT
from serving import SHAPE, call, images

from ssl_extract import cli, serve, victims
from ssl_extract.serve import tokens
from ssl_extract.victims.sources import SOURCES

PAGE = (ROOT / 'docs' / 'serve.md').read_text()


def commands():
    """The commands of the page on serving."""
    blocks = re.findall(r'^```bash\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_page_on_serving_works_and_a_kill_loses_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (_, *make), (_, _, *flags) = commands()[:2]
    assert cli.main(['ssl-extract', *make]) == 0
    keys = dict(line.split('\t') for line in capsys.readouterr().out.splitlines())
    assert [*keys] == ['owner', 'alice', 'bob']
    process, url = serving.start(*flags, cwd=tmp_path)
    try:
        code = '\n'.join(re.findall(r'^```py\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
        for shown, used in {
            'http://127.0.0.1:8000': url,
            'THE TOKEN OF ALICE': keys['alice'],
            'THE TOKEN OF THE OWNER': keys['owner'],
        }.items():
            assert shown in code
            code = code.replace(shown, used)
        namespace = {}
        exec(compile(code, 'serve.md', 'exec'), namespace)
        assert call(url, '/v1/account', keys['bob'])[1]['billed'] == 0
    finally:
        process.send_signal(signal.SIGKILL)
        output = ''.join(process.communicate(timeout=60))
    assert not any(key in output for key in keys.values())
    victim = SOURCES.make("stored('digits_simclr')")(None)
    entries = tokens.read('tokens.json')
    with serve.open_service(victim, 'gaussian_noise(stddev=0.1)', entries, 'course') as again:
        assert again.ledger() == namespace['ledger']
        with serving.running(again) as url:
            namespace |= {'URL': url}
            reply = namespace['ask'](namespace['images'], key='images-0-to-9')
    np.testing.assert_equal(reply, namespace['first'])


class Sender(threading.Thread):
    """A client that sends requests with keys, over and over until each is answered."""

    def __init__(self, name, addresses):
        super().__init__()
        self.account, self.addresses, self.answers, self.statuses = name, addresses, [], set()

    def run(self):
        for number in range(40):
            reply = None
            while reply is None:
                reply = self.send(number)
            self.answers.append(reply)

    def send(self, number):
        try:
            status, value, _ = serving.ask(
                self.addresses[-1], images(5, number), self.account, Idempotency_Key=f'n{number}'
            )
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)  # the server is away
            return None
        self.statuses.add(status)
        return value if status == 200 else None


@pytest.mark.wide
def test_killed_again_and_again_under_load_every_query_is_billed_once(tmp_path):
    """Eight clients, five kills; then every client has the answers of an undisturbed service."""
    budgets = dict.fromkeys('abcdefgh', 150)
    values = {n: {'sha256': tokens.digest_of(serving.SECRETS[n])} for n in ('owner', *budgets)}
    for name, budget in budgets.items():
        values[name]['budget'] = budget
    (tmp_path / 'tokens.json').write_text(json.dumps(values))
    defense = 'round(decimals=3) | rate_limit(total=140)'
    flags = ("--victim=function('serving:embed', dim=5)", '--input_shape=4,4,3')
    flags += ('--tokens=tokens.json', '--state=state', f'--defense={defense}')
    process, url = serving.start(*flags, cwd=tmp_path)
    addresses = [url]
    clients = [Sender(name, addresses) for name in budgets]
    for client in clients:
        client.start()
    for kill in range(5):
        goal = 5 * (kill + 1)
        while min(len(client.answers) for client in clients) < goal:
            assert any(client.is_alive() for client in clients)
            clients[0].join(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        process, url = serving.start(*flags, cwd=tmp_path)
        addresses.append(url)
    for client in clients:
        client.join(120)
        assert not client.is_alive() and client.statuses <= {200, 503}
    ledger = call(url, '/v1/ledger', 'owner')[1]['accounts']
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    victim = victims.from_function(serving.embed, dim=5, input_shape=SHAPE)
    entries = serving.entries(a=150)
    with serve.open_service(victim, defense, entries, tmp_path / 'undisturbed') as calm:
        expected = [
            calm.accounts['a'].answer(images(5, number).astype(np.float32) / 255)
            for number in range(40)
        ]
        bill = calm.accounts['a'].ledger()
    for client in clients:
        assert ledger[client.account] | {'last': ''} == bill | {'last': ''}
        for got, reply in zip(client.answers, expected, strict=True):
            np.testing.assert_allclose(got['answers'], reply.answers, atol=2e-3)
            np.testing.assert_array_equal(got['granted'], reply.granted)
            assert got['remaining'] == reply.remaining
    assert bill['billed'] == 140 and bill['refused'] == 60


@pytest.mark.wide
def test_the_load_benchmark_finds_exact_bills():
    command = [sys.executable, '-m', 'benchmarks.serving', '--seconds=1', '--batch=100']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rates = re.findall(r' ([\d,]+) queries/s', done.stdout)
    assert len(rates) == 2 and all(int(rate.replace(',', '')) > 0 for rate in rates)
    assert 'exact: the ledger of 16 accounts agrees with' in done.stdout
