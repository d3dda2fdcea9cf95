"""A service under load and its oracle called directly: `python -m benchmarks.serving`.

Starts `ssl-extract serve` on loopback. Eight clients, each with an account, send batches for
`--seconds`. The same victim behind the same defense is called directly in this process before and
after, each for half of the time. Prints granted queries a second of both and their ratio.

Then two clients for each of eight further accounts send until the budget is spent. Ends with an
error if a request failed, if an account was billed more or less than its budget, or if the bills of
the clients and the ledger of the service differ.
"""

import concurrent.futures
import http.client
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import jax
import numpy as np
from absl import flags

from benchmarks import commands
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import parallel
from ssl_extract.serve import tokens
from ssl_extract.victims import wire
from ssl_extract.victims.sources import SOURCES

_VICTIM = flags.DEFINE_string('victim', 'stored("digits_simclr")', 'A source.')
_DEFENSE = flags.DEFINE_string('defense', 'gaussian_noise(stddev=0.1)', 'A chain.')
_SECONDS = flags.DEFINE_float('seconds', 30.0, 'Of the load.', lower_bound=0.1)
_CLIENTS = flags.DEFINE_integer('clients', 8, 'Clients, each with an account.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch', 1_000, 'Inputs in a request.', lower_bound=1)

DIRECT_BATCH = 256  # as `ssl_extract.oracle.store` sends
LARGE = 2**30  # a budget that nobody spends here


class Direct:
    """The oracle of a victim, called in this process."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        victim = SOURCES.make(_VICTIM.value)(parallel.data_mesh(1))
        self._oracle = make_oracle(victim, _DEFENSE.value, budget=LARGE)
        self._inputs = _images(DIRECT_BATCH, shape)
        self._query = jax.jit(lambda o, x, s: o.query(x.astype(np.float32) / 255, s))
        self._account = self._oracle.init(jax.random.key(0), self._inputs.astype(np.float32))
        for _ in range(3):  # compiles, for a new account and for a used one
            self._ask()

    def rate(self, seconds: float) -> float:
        """Measures queries a second."""
        start, number = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            self._ask()
            number += DIRECT_BATCH
        return number / passed

    def _ask(self) -> None:
        answer, self._account = self._query(self._oracle, self._inputs, self._account)
        np.asarray(answer.representations)


def _images(number: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, *shape), np.uint8)


class Client:
    """One connection to the service with the token of an account."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
        self._headers = {'Authorization': f'Bearer {token}', 'Content-Type': wire.NPZ}

    def get(self, path: str) -> dict:
        """Returns the JSON of a path."""
        return json.loads(self._send('GET', path, None))

    def ask(self, body: bytes) -> int:
        """Sends inputs and returns how many were billed."""
        with np.load(io.BytesIO(self._send('POST', '/v1/answers', body))) as reply:
            assert int(reply['granted'].sum()) == int(reply['billed'])
            return int(reply['billed'])

    def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, self._headers)
        reply = self._connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f'{method} {path}: {reply.status} {content[:200]!r}')
        return content


def _load(clients: list[Client], body: bytes, seconds: float) -> list[int]:
    """Lets the clients send at once for some seconds; returns the bill of each."""
    start = threading.Barrier(len(clients))

    def send(client: Client) -> int:
        start.wait()
        end, billed = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            billed += client.ask(body)
        return billed

    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(send, clients))


def _spend(client: Client, body: bytes) -> int:
    """Sends until a request is not granted whole; returns the bill."""
    bills = [client.ask(body)]
    while bills[-1] == bills[0]:
        bills.append(client.ask(body))
    return sum(bills)


def _check_budgets(url: str, keys: dict[str, str], budgets: dict[str, int], shape: tuple) -> None:
    body = wire.pack(_images(100, shape), 'npz')
    clients = [Client(url, keys[name]) for name in budgets for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        bills = list(pool.map(lambda client: _spend(client, body), clients))
    for position, (name, budget) in enumerate(budgets.items()):
        billed = sum(bills[2 * position : 2 * position + 2])
        assert billed == budget, f'{name} was billed {billed} of {budget}'


def main(argv: list[str]) -> None:
    """Starts the service, measures, and checks the bills."""
    del argv
    names = [f'load{i}' for i in range(_CLIENTS.value)]
    budgets = {f'spent{i}': 1_500 + 37 * i for i in range(8)}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'tokens.json'
        keys = tokens.add(path, names, LARGE)
        for name, budget in budgets.items():
            keys |= tokens.add(path, [name], budget)
        command = [sys.executable, 'launch.py', 'serve', '--port=0', f'--state={folder}/state']
        command += [f'--tokens={path}', f'--max_batch={max(100, _BATCH.value)}']
        command += [f'--victim={_VICTIM.value}', f'--defense={_DEFENSE.value}']
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                url = re.search(r'http://\S+', process.stdout.readline())[0]
                _measure(url, keys, names, budgets)
            finally:
                process.terminate()


def _measure(url: str, keys: dict[str, str], names: list[str], budgets: dict[str, int]) -> None:
    shape = tuple(Client(url, keys['owner']).get('/v1/about')['input_shape'])
    direct, body = Direct(shape), wire.pack(_images(_BATCH.value, shape), 'npz')
    clients = [Client(url, keys[name]) for name in names]
    warm = [client.ask(body) for client in clients]
    before = direct.rate(_SECONDS.value / 2)
    start = time.perf_counter()
    billed = _load(clients, body, _SECONDS.value)
    served = sum(billed) / (time.perf_counter() - start)
    after = direct.rate(_SECONDS.value / 2)
    print(f'direct, batches of {DIRECT_BATCH}: {before:,.0f} and {after:,.0f} queries/s')
    print(f'served, {len(names)} clients, batches of {_BATCH.value:,}: {served:,.0f} queries/s')
    print(f'direct / served: {(before + after) / 2 / served:.2f}')
    _check_budgets(url, keys, budgets, shape)
    ledger = Client(url, keys['owner']).get('/v1/ledger')['accounts']
    sent = {name: first + more for name, first, more in zip(names, warm, billed, strict=True)}
    for name, number in (sent | budgets).items():
        assert ledger[name]['billed'] == number, (name, ledger[name], number)
    print(f'exact: the ledger of {len(ledger)} accounts agrees with {sum(sent.values()):,} queries')


if __name__ == '__main__':
    commands.start(main)
