"""Real servers and plain clients on loopback; the tests' own."""

import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse

import numpy as np
from processes import ROOT

from ssl_extract import serve
from ssl_extract.runtime import files
from ssl_extract.serve import bodies, server, tokens

SHAPE, DIM = (4, 4, 3), 5
MAP = np.random.default_rng(1).normal(size=(48, DIM)).astype(np.float32)
SECRETS = {name: f'{name}-{name}-{name}-{name}' for name in ('owner', *'abcdefgh')}


def embed(inputs):
    """The victim of these tests: images [n, 4, 4, 3] to [n, 5]."""
    return inputs.reshape(len(inputs), -1) @ MAP


def entries(**budgets):
    """The owner and accounts with budgets, whose tokens are in SECRETS."""
    return [
        tokens.Entry(name, tokens.digest_of(SECRETS[name]), budget)
        for name, budget in {'owner': None, **budgets}.items()
    ]


@contextlib.contextmanager
def running(service, **limits):
    """The URL of a server in a thread of this process."""
    with server.bind('127.0.0.1', 0) as bound:
        made = server.make_server(serve.make_app(service, serve.Limits(**limits)))
        thread = threading.Thread(target=made.run, kwargs={'sockets': [bound]})
        thread.start()
        while not made.started:
            time.sleep(0.005)
        try:
            yield server.url_of(bound)
        finally:
            made.should_exit = True
            thread.join()


def start(*flags, cwd):
    """A real process of `ssl-extract serve`, and its URL once it listens."""
    env = os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers', 'PYTHONUNBUFFERED': '1'}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'launch.py'), 'serve', '--port=0', *flags],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    address = re.search(r'http://\S+', line)
    assert address, line + process.communicate(timeout=60)[1]
    return process, address[0]


def connect(url, timeout=60):
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=timeout)


def call(url, path, name='a', body=None, connection=None, **headers):
    """(status, value, headers) of one request; `name` is an account, or a token."""
    headers = {k.replace('_', '-'): v for k, v in headers.items()}
    if name:
        headers['Authorization'] = f'Bearer {SECRETS.get(name, name)}'
    used = connection or connect(url)
    try:
        used.request('GET' if body is None else 'POST', path, body, headers)
        reply = used.getresponse()
        content = reply.read()
    finally:
        if not connection:
            used.close()
    return reply.status, _value(reply, content), reply.headers


def _value(reply, content):
    if reply.headers['Content-Type'] == bodies.NPZ:
        with files.HEADERS:
            return dict(np.load(io.BytesIO(content)))
    return json.loads(content)


def as_npz(inputs, **others):
    buffer = io.BytesIO()
    np.savez(buffer, inputs=inputs, **others)
    return buffer.getvalue()


def as_json(inputs, dtype='uint8'):
    return json.dumps({'inputs': np.asarray(inputs).tolist(), 'dtype': dtype}).encode()


def ask(url, inputs, name='a', kind=bodies.NPZ, **headers):
    """(status, value, headers) of one request to /v1/answers."""
    inputs = np.asarray(inputs)
    body = as_npz(inputs) if kind == bodies.NPZ else as_json(inputs, str(inputs.dtype))
    return call(url, '/v1/answers', name, body, Content_Type=kind, **headers)


def images(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, *SHAPE), np.uint8)
