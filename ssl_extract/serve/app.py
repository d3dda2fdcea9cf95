"""The HTTP interface of a service: routes, limits and errors."""

import asyncio
import collections
import contextlib
import hashlib
import math
import re
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssl_extract.serve import bodies, openapi, tokens
from ssl_extract.serve.accounts import Account
from ssl_extract.serve.service import Service
from ssl_extract.victims.answers import NotFiniteError

MINUTE = 60.0  # seconds


class Limits(NamedTuple):
    """The limits of a service.

    Attributes:
        max_batch: inputs in one request.
        requests_per_minute: of one account; 0 is no limit.
        body_seconds: the time in which the body of a request has to arrive.
        busy: requests of all accounts at a time.
        waiting: requests of one account at a time.
        held_bytes: bodies of requests in memory; one alone may be larger.
    """

    max_batch: int = 1_000
    requests_per_minute: int = 0
    body_seconds: float = 60.0
    busy: int = 64
    waiting: int = 4
    held_bytes: int = 2**30


def _busy() -> HTTPException:
    detail = 'busy: other requests are waiting for their answers'
    return HTTPException(503, detail, {'Retry-After': '1'})


class Gate:
    """The requests of one account: how many are in the service, and when the last ones came."""

    def __init__(self, places: int, per_minute: int) -> None:
        self._free, self._most = places, per_minute
        self._times: collections.deque[float] = collections.deque()

    def admit(self) -> None:
        """Counts a request of this minute.

        Raises:
            HTTPException: 429, with the seconds after which the next request is admitted.
        """
        now, most = time.monotonic(), self._most
        while self._times and self._times[0] <= now - MINUTE:
            self._times.popleft()
        if most and len(self._times) >= most:
            wait = math.ceil(self._times[0] + MINUTE - now)
            raise HTTPException(
                429, f'{most} requests a minute; wait {wait} s', {'Retry-After': str(max(1, wait))}
            )
        if most:
            self._times.append(now)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Takes one of the places; raises HTTPException 503 if none is free."""
        if not self._free:
            raise _busy()
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Desk:
    """The endpoints of a service; one for each route."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service, self._limits = service, limits
        per_minute = limits.requests_per_minute
        self._gates = {name: Gate(limits.waiting, per_minute) for name in service.accounts}
        self._all = Gate(limits.busy, 0)
        self._threads, self._held = anyio.CapacityLimiter(limits.busy), 0

    async def answers(self, request: Request) -> Response:
        """Answers `POST /v1/answers`."""
        name, account = self._account(request)
        kind, accepted = _kinds(request)
        key = _key(request)
        most = bodies.largest(kind, self._service.shape, self._limits.max_batch)
        with self._all.inside(), self._gates[name].inside(), self._holding(request, most):
            self._gates[name].admit()
            body = await _body(request, most, self._limits.body_seconds)
            content = await anyio.to_thread.run_sync(
                self._answer, account, kind, body, key, accepted, limiter=self._threads
            )
        return Response(content, media_type=accepted)

    async def about(self, request: Request) -> Response:
        """Answers `GET /v1/about`."""
        self._entry(request)
        return JSONResponse(self._service.about() | {'max_batch': self._limits.max_batch})

    async def account(self, request: Request) -> Response:
        """Answers `GET /v1/account`."""
        _, account = self._account(request)
        return JSONResponse(account.bill())

    async def ledger(self, request: Request) -> Response:
        """Answers `GET /v1/ledger`."""
        if self._entry(request).name != tokens.OWNER:
            raise HTTPException(403, 'the ledger is for the owner; your account: GET /v1/account')
        return JSONResponse(await anyio.to_thread.run_sync(self._service.ledger))

    async def health(self, request: Request) -> Response:
        """Answers `GET /health`."""
        del request
        return JSONResponse({'status': 'ok'})

    async def document(self, request: Request) -> Response:
        """Answers `GET /openapi.json`."""
        del request
        return JSONResponse(openapi.document(self._service.about(), self._limits.max_batch))

    def _entry(self, request: Request) -> tokens.Entry:
        scheme, _, token = request.headers.get('authorization', '').partition(' ')
        entry = None
        if scheme.lower() == 'bearer':
            entry = tokens.find(self._service.entries, token.strip())
        if entry is None:
            said = 'the token is unknown' if token else 'send a token'
            raise HTTPException(
                401, f'{said}: Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'}
            )
        return entry

    def _account(self, request: Request) -> tuple[str, Account]:
        name = self._entry(request).name
        if name == tokens.OWNER:
            raise HTTPException(403, "the owner's token has no account; take one with an account")
        return name, self._service.accounts[name]

    @contextlib.contextmanager
    def _holding(self, request: Request, most: int) -> Iterator[None]:
        """Reserves memory for a body; raises HTTPException 503 if others hold too much."""
        declared = request.headers.get('content-length', '')
        size = min(most, int(declared)) if re.fullmatch('[0-9]{1,15}', declared) else most
        if self._held and self._held + size > self._limits.held_bytes:
            raise _busy()
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    def _answer(self, account: Account, kind: str, body: bytes, key: str, accepted: str) -> bytes:
        inputs = bodies.read(kind, body, self._service.shape, self._limits.max_batch)
        unknown = self._service.count_unknown(inputs)
        if unknown:
            raise HTTPException(
                400,
                f'{unknown} of {len(inputs)} inputs are none of those that this service has '
                'answers to; nothing was billed',
            )
        digest = hashlib.sha256(f'{kind}\n'.encode() + body).hexdigest()
        try:
            reply = account.answer(inputs, key, digest)
        except HTTPException:
            raise
        except Exception as error:  # of the victim's code, of the disk: nothing was written
            traceback.print_exception(error, file=sys.stderr)
            if isinstance(error, NotFiniteError):  # asking again would be of no use
                raise HTTPException(
                    400, 'the victim has no finite answer to these inputs; nothing was billed'
                ) from None
            raise HTTPException(
                503,
                'the service cannot answer these inputs now; nothing was billed',
                {'Retry-After': '10'},
            ) from None
        return bodies.write(accepted, reply)


def make_app(service: Service, limits: Limits | None = None) -> Starlette:
    """Makes the ASGI application of a service.

    Args:
        service: an open service.
        limits: None are the default limits.
    """
    desk = Desk(service, limits or Limits())
    handlers = {
        ('POST', '/v1/answers'): desk.answers,
        ('GET', '/v1/about'): desk.about,
        ('GET', '/v1/account'): desk.account,
        ('GET', '/v1/ledger'): desk.ledger,
        ('GET', '/health'): desk.health,
        ('GET', '/openapi.json'): desk.document,
    }
    made = Starlette(
        routes=[Route(path, fn, methods=[method]) for (method, path), fn in handlers.items()],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    made.router.redirect_slashes = False
    return made


async def _refused(request: Request, error: HTTPException) -> Response:
    del request
    return JSONResponse({'error': error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    del request, error
    return JSONResponse({'error': 'the service failed'}, 500)


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """Reads the body of a request, of at most `most` bytes.

    A body that is too large is read up to four times that size and dropped, so that its sender
    reads the refusal instead of a broken connection.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    body += part
                if size > 4 * most:
                    break
    except TimeoutError:
        raise HTTPException(
            408, f'the body did not arrive within {seconds:g} s', {'Connection': 'close'}
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, 'the connection was closed before the body ended') from None
    if size > most:
        raise HTTPException(413, f'the body has more than {most} bytes: send fewer inputs')
    return bytes(body)


def _kinds(request: Request) -> tuple[str, str]:
    """Returns the formats of the request and of the answer."""
    known = (bodies.JSON, bodies.NPZ)
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind not in known:
        raise HTTPException(400, f'send Content-Type {" or ".join(known)}')
    accept = request.headers.get('accept', '').lower()
    accepted = [other for other in known if other in accept]
    return kind, kind if kind in accepted or not accepted else accepted[0]


def _key(request: Request) -> str:
    key = request.headers.get('idempotency-key')
    if key is not None and not re.fullmatch(r'[!-~]{1,200}', key):
        raise HTTPException(400, 'an Idempotency-Key has 1 to 200 ASCII letters, no spaces')
    return key or ''
