"""A service on loopback that keeps the format of the docs, or breaks it on purpose.

It is written from the page on the format, with the standard library, and shares no code with the
client.
"""

import contextlib
import gzip
import http.server
import io
import json
import socket
import threading
import time

import numpy as np

DIM, TOKEN = 3, 'open-sesame'
MAP = np.random.default_rng(1).normal(size=(6, DIM)).astype(np.float32)


class Service(http.server.ThreadingHTTPServer):
    """Attributes: `script`, the deeds of the next POSTs ('' is none); `posts`, what arrived."""

    daemon_threads = True

    def __init__(self, about=None, budget=None):
        super().__init__(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server_address[1]}'
        self.about = {'dim': DIM, 'input_shape': [6], 'answers': 'representation'}
        self.about |= {'max_batch': 8, 'address': 'map 1'} | (about or {})
        self.script, self.posts, self.kept, self.billed, self.budget = [], [], {}, 0, budget
        self.arrived, self.gets = threading.Semaphore(0), []

    def handle_error(self, request, client_address):
        pass  # of a client that was killed

    def inputs(self):
        """All inputs that arrived under different keys, in order."""
        return np.concatenate([inputs for _, inputs in {k: (k, x) for k, x in self.posts}.values()])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def reply(self, status, body=b'', kind='application/json', **headers):
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        if kind:
            self.send_header('Content-Type', kind)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(body)

    def object(self, status, **value):
        self.reply(status, json.dumps(value).encode())

    def do_GET(self):
        service = self.server
        service.gets.append(self.path)
        if self.headers.get('Authorization') != f'Bearer {TOKEN}':
            return self.object(401, error='no token that is known')
        left = None if service.budget is None else service.budget - service.billed
        told = {
            '/v1/about': service.about,
            '/v1/account': {'billed': service.billed, 'remaining': left},
        }
        if self.path not in told:
            return self.object(404, error='no such path')
        self.object(200, **told[self.path])

    def do_POST(self):
        service, body = self.server, self.rfile.read(int(self.headers['Content-Length']))
        key, is_json = self.headers['Idempotency-Key'], 'json' in self.headers['Content-Type']
        inputs = self.inputs_of(json.loads(body) if is_json else np.load(io.BytesIO(body)))
        service.posts.append((key, inputs))
        service.arrived.release()
        deed = service.script.pop(0) if service.script else ''
        if deed in BEFORE:
            return BEFORE[deed](self)
        if self.headers.get('Authorization') != f'Bearer {TOKEN}':
            return self.object(401, error='no token that is known')
        if key not in service.kept:
            granted = np.ones(len(inputs), bool)
            if service.budget is not None:
                granted = service.billed + np.arange(len(inputs)) < service.budget
            service.billed += int(granted.sum())
            service.kept[key] = inputs @ MAP, granted
        if deed == 'sleep':  # after it has billed
            time.sleep(60)
        if deed in AFTER:
            return AFTER[deed](self, *service.kept[key])
        if self.path == '/plain':
            return self.object(200, embeddings=service.kept[key][0].tolist())
        self.answer(*service.kept[key], is_json)

    @staticmethod
    def inputs_of(fields):
        inputs = np.asarray(fields['inputs'])
        uint8 = inputs.dtype == np.uint8 or ('dtype' in fields and fields['dtype'] == 'uint8')
        return (inputs / np.float32(255) if uint8 else inputs).astype(np.float32)

    def answer(self, answers, granted, is_json=False, status=200, **others):
        fields = {'answers': answers, 'granted': granted, 'billed': int(granted.sum())}
        fields |= {'remaining': -1} | others
        fields = {name: value for name, value in fields.items() if value is not None}
        if not is_json:
            return self.reply(status, npz(**fields), 'application/x-npz')
        rows = [row.tolist() if g else None for row, g in zip(answers, granted, strict=True)]
        self.object(200, **fields | {'answers': rows, 'granted': granted.tolist()})


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def raw(body, kind='application/json'):
    return lambda handler, answers, granted: handler.reply(200, body, kind)


def packed(megabytes, encoding, again=bytes):
    """Answers with an archive and some megabytes of zeros behind it, as a proxy packs them."""

    def reply(handler, answers, granted):
        content = npz(answers=answers, granted=granted, billed=int(granted.sum()))
        content = again(gzip.compress(content + bytes(megabytes << 20), 1))
        handler.reply(200, content, 'application/x-npz', Content_Encoding=encoding)

    return reply


def broken(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


# What it does instead of answering, and bills nothing.
BEFORE = {
    'busy': lambda h: h.reply(429, b'{"error": "slow down"}', Retry_After='0'),
    'long': lambda h: h.reply(429, b'{"error": "slow down"}', Retry_After='7200'),
    'failed': lambda h: h.reply(500, b'<html>\n<h1>oh</h1></html>', 'text/html'),
    'redirect': lambda h: h.reply(302, Location='https://elsewhere.example/v1/answers'),
    'forbidden': lambda h: h.reply(403, b'{"error": "not you, \\n open-sesame"}'),
    'large': lambda h: h.reply(413, b'{"error": "too large"}'),
    'broken': broken,
    'empty': lambda h: h.reply(204, b''),
}
LONG_TEXT = json.dumps(
    {'answers': [['x' * 999, 0, 0]] * 8, 'granted': [True] * 8, 'billed': 8}
).encode()
# What it answers after it has billed.
AFTER = {
    'nan': lambda h, a, g: h.answer(a * np.where(np.arange(len(a)) == 1, np.nan, 1)[:, None], g),
    'short': lambda h, a, g: h.answer(a[:-1], g),
    'wide': lambda h, a, g: h.answer(np.pad(a, ((0, 0), (0, 1))), g),
    'pickle': lambda h, a, g: h.answer(a.astype(object), g),
    'html': raw(b'<html>\n<h1>Welcome</h1></html>', 'text/html; charset=utf-8'),
    'flood': raw(b' ' * 3_000_000),
    'text': raw(LONG_TEXT),
    'nested': packed(4, 'gzip, gzip', gzip.compress),
    'bomb': packed(4, 'gzip'),
    'parts': packed(0, 'gzip', lambda content: 2 * content),
    'brotli': packed(0, 'br'),
    'packed': packed(0, 'gzip'),
    'transformed': lambda h, a, g: h.answer(a, g, status=203),
    'echo': lambda h, a, g: h.reply(200, h.headers['Authorization'].encode(), 'text/plain'),
}


@contextlib.contextmanager
def served(**about):
    service = Service(**about)
    thread = threading.Thread(target=service.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()
