"""A service over HTTP whose replies are sometimes late; each answer is billed once all the same.

The service is a thread of this program; a client of another machine would see the same. Prints the
bill of both sides.
"""

import http.server
import json
import threading

import numpy as np

import ssl_extract

answered: dict[str, list] = {}  # by the key of the request


class Squares(http.server.BaseHTTPRequestHandler):
    """Answers vectors [n, 4] with their squares; fails after every second request was billed."""

    requests, log_message = 0, lambda *_: None

    def do_GET(self) -> None:
        about = {'dim': 4, 'max_batch': 25, 'address': 'squares 1'}
        self.reply(200, about) if self.path == '/v1/about' else self.reply(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        squares = (np.array(body['inputs']) ** 2).tolist()
        answered.setdefault(self.headers['Idempotency-Key'], squares)
        Squares.requests += 1
        if Squares.requests % 2 == 0:
            return self.reply(503, {'error': 'late'})
        count = len(squares)
        self.reply(200, {'answers': squares, 'granted': [True] * count, 'billed': count})

    def reply(self, status: int, value: dict) -> None:
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


def main() -> None:
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Squares)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_address[1]}'
    victim = ssl_extract.victims.load(f"http('{url}', body='json', wait=0.01, max_queries=100)")
    inputs = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    answers = ssl_extract.collect(ssl_extract.make_oracle(victim, budget=100), inputs)
    server.shutdown()
    server.server_close()
    print(f'{Squares.requests} requests, service: {sum(map(len, answered.values()))} billed')
    print(f'client: {answers.bill.billed} billed')


if __name__ == '__main__':
    main()
