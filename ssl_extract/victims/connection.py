"""HTTP requests to a service, sent again after errors that may pass.

The service may be busy (429), have failed (5xx), or be silent. The token stays in memory: neither a
message nor a file has it.
"""

import contextlib
import email.utils
import functools
import os
import re
import ssl
import time
import urllib.parse
import weakref
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ssl_extract.errors import UserError, one_line
from ssl_extract.runtime import progress
from ssl_extract.victims import wire
from ssl_extract.victims.wire import ReplyError

LONGEST_WAIT = 600.0  # seconds between two attempts; a service that asks for more is left alone
MOST_BYTES = 2**20  # of a reply without answers
_MISSING = (404, 405, 501)  # statuses of a path, or a method of a path, that is not there
_LEAST_TOKEN = 8  # characters of its beginning that are hidden too
_SERVED = (200, 201, 203)  # statuses of a reply that holds what was asked
_PORTS = {'http': 80, 'https': 443}
_READ = 10_000  # characters of a text, at most, of which the beginning is shown
_TOLD_WAIT = 5.0  # seconds from which on a wait is told


class Settings(NamedTuple):
    """How a service is asked; see `sources.http`."""

    url: str
    token: str = ''
    batch_size: int | None = None
    body: str = 'npz'
    dtype: str = 'float32'
    field: str = ''
    pause: float = 0.0
    timeout: float = 60.0
    retries: int = 6
    wait: float = 1.0
    max_queries: int | None = None


class MissingError(UserError):
    """A path that the service does not have."""


class Request(NamedTuple):
    """An HTTP request, and the most bytes that its reply may have."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None = None
    most_bytes: int = MOST_BYTES


class Outcome(NamedTuple):
    """The outcome of one attempt.

    Attributes:
        status: of the reply; 0 without one.
        headers, body: of the reply.
        reason: why there is no answer, in one line.
        unserved: whether the service surely did not serve the request.
        passes: whether another attempt may succeed.
    """

    status: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b''
    reason: str = ''
    unserved: bool = False
    passes: bool = False

    @property
    def retry_after(self) -> float | None:
        """Returns the seconds that the service asks to wait; None where it does not say."""
        return _seconds(self.headers.get('retry-after'))


class Connection:
    """A connection to one service, with its token.

    Args:
        settings: how the service is asked.

    Raises:
        UserError: httpx is missing, the url is none, or the token's variable is not set.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import httpx
        except ImportError:
            raise UserError(
                "victim.source: http(...) needs httpx: pip install 'ssl_extract[http]'"
            ) from None
        self.settings, self.url = settings, _checked_url(settings.url)
        self._token = _token_of(settings.token)
        self._client = httpx.Client(
            timeout=settings.timeout, follow_redirects=False, verify=_certificates()
        )
        weakref.finalize(self, self._client.close)
        self._last = 0.0  # when the last request ended

    def exchange(
        self,
        request: Request,
        *,
        retries: int,
        begin: Callable[[], None] = lambda: None,
        withdraw: Callable[[], None] = lambda: None,
    ) -> tuple[str, bytes]:
        """Sends a request until it is answered, and returns content type and body.

        Args:
            request: to send.
            retries: attempts after the first.
            begin: called before each attempt.
            withdraw: called after an attempt that the service surely did not serve.

        Raises:
            MissingError: the service has no such path.
            UserError: the service refuses, redirects, or answers in none of the attempts.
        """
        wait = self.settings.wait
        for left in range(retries, -1, -1):
            time.sleep(max(0.0, self._last + self.settings.pause - time.monotonic()))
            begin()
            outcome = self._attempt(request)
            if outcome.status in _SERVED:
                return _content(outcome, request.most_bytes)
            if outcome.unserved:
                withdraw()
            if not outcome.passes:
                kind = MissingError if outcome.status in _MISSING else UserError
                raise kind(self._told(outcome.reason))
            pause = outcome.retry_after or wait  # also of 0, and of a date that is past
            if not left or pause > LONGEST_WAIT:
                break
            if pause >= _TOLD_WAIT:
                progress.say(f'waiting for {pause:.0f} s: {outcome.reason}')
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)
        later = f'in {pause:.0f} s' if outcome.retry_after else 'later'
        raise self.error(
            f'{outcome.reason}; what is stored stays: give the same command again {later}'
        )

    def error(self, text: str) -> UserError:
        """Returns an error that names the service."""
        return UserError(self._told(text))

    def hidden(self, text: str) -> str:
        """Returns the beginning of a text without the token, which a service may repeat."""
        text = one_line(text[:_READ])
        # Of a text that was cut, the end may be the beginning of the token.
        least = max(1, min(len(self._token), _LEAST_TOKEN))
        for length in range(len(self._token), least - 1, -1):
            text = text.replace(self._token[:length], '...')
        return wire.shown(text)

    def holds_token(self, text: str) -> bool:
        """Tells whether a text that is to be written down holds the token."""
        return len(self._token) >= _LEAST_TOKEN and self._token in text

    def without_token(self, content: bytes) -> bytes:
        """Returns a reply without the token, which a service may repeat."""
        return content.replace(self._token.encode(), b'...') if self._token else content

    def _told(self, text: str) -> str:
        return f'victim {self.url}: {text}'

    def _attempt(self, request: Request) -> Outcome:
        """Sends a request once."""
        import httpx

        try:
            outcome = self._once(request)
        except httpx.TransportError as error:
            reason = self.hidden(str(error)) or type(error).__name__
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            return Outcome(reason=f'it is not reached ({reason})', unserved=unsent, passes=True)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return Outcome(reason=f'its reply cannot be read ({self.hidden(str(error))})')
        finally:
            self._last = time.monotonic()
        return outcome._replace(
            reason=self._reason(outcome, request),
            unserved=400 <= outcome.status < 500 and outcome.status != 408,
            passes=outcome.status in (408, 429)
            or (outcome.status >= 500 and outcome.status not in _MISSING),
        )

    def _once(self, request: Request) -> Outcome:
        """Sends a request once; a reply that is too long or too slow is an error of httpx."""
        import httpx

        headers = {'Accept-Encoding': 'gzip'} | request.headers
        if self._token:
            headers['Authorization'] = f'Bearer {self._token}'
        deadline, body = time.monotonic() + self.settings.timeout, bytearray()
        sending = self._client.stream(
            request.method, request.url, headers=headers, content=request.content
        )
        with sending as response:
            for chunk in response.iter_raw():  # httpx unpacks without a limit
                body += chunk
                if len(body) > request.most_bytes:
                    raise httpx.DecodingError(f'it has more than {request.most_bytes:,} bytes')
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout('its reply takes too long')
            return Outcome(response.status_code, response.headers, bytes(body))

    def _reason(self, outcome: Outcome, request: Request) -> str:
        """Says in one line why a reply is no answer."""
        status = outcome.status
        if 300 <= status < 400:
            where = self.hidden(outcome.headers.get('location', '')) or 'nowhere'
            return f'it redirects to {where}; write that url, if it is to be trusted'
        _, body = _content(outcome, request.most_bytes)
        try:
            said = wire.read_object(body).get('error')
        except ReplyError:
            said = None
        text = said if isinstance(said, str) else body.decode('utf-8', 'replace')
        reason = f'it answered with status {status}' + (f', {self.hidden(text)!r}' if text else '')
        if status == 401:
            return f'{reason}; name the environment variable that holds the token, token="NAME"'
        if status == 413:
            size = len(request.content or b'')
            return f'{reason}; lower batch_size: this request had {size:,} bytes'
        return reason


def _content(outcome: Outcome, most: int) -> tuple[str, bytes]:
    """Returns the content type and the unpacked body of a reply.

    What is packed otherwise than by gzip, or to more than `most` bytes, stays as it came, and its
    type says so.
    """
    kind, body = outcome.headers.get('content-type', ''), outcome.body
    encoding = outcome.headers.get('content-encoding', '').strip().lower()
    if encoding in ('', 'identity'):
        return kind, body
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)  # of gzip
    with contextlib.suppress(zlib.error):
        content = unpacker.decompress(body, most)
        if encoding == 'gzip' and unpacker.eof and not unpacker.unused_data:
            return kind, content
    return f'{encoding} of {kind}', body


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Returns the trusted certificates, which are read once in a process."""
    import httpx

    return httpx.create_ssl_context()


def _checked_url(url: str) -> str:
    """Returns a url in one spelling, which what was sent to it is counted under.

    >>> _checked_url('HTTP://Example.org:80/Path/')
    'http://example.org/Path'

    Raises:
        UserError: it is no http url, or holds a name, a password or a query.
    """
    usage = 'victim.source: http(url=...): write https://HOST/PATH'
    try:
        parts = urllib.parse.urlsplit(url)
        hidden = parts.username or parts.password or parts.query or parts.fragment
        fine = parts.scheme in _PORTS and parts.hostname and parts.port != 0
        fine = fine and not {'.', '..'} & {*parts.path.split('/')}  # another spelling of a path
    except ValueError:
        hidden, fine = None, False
    if hidden:
        raise UserError(
            f'{usage} alone: what is secret in a url would stay in the records; put a token into '
            'an environment variable and name it, token="NAME"'
        )
    if not fine or not url.isascii() or not url.isprintable() or ' ' in url:
        raise UserError(f'{usage}, got {wire.shown(url)!r}')
    host = f'[{parts.hostname}]' if ':' in parts.hostname else parts.hostname
    usual = parts.port in (None, _PORTS[parts.scheme])
    return parts._replace(netloc=host if usual else f'{host}:{parts.port}').geturl().rstrip('/')


def _token_of(variable: str) -> str:
    """Returns the token in an environment variable; '' without a variable.

    Raises:
        UserError: the variable is not set, or is no name; the message does not repeat what may be
            the token itself.
    """
    if not variable:
        return ''
    if not re.fullmatch(r'[A-Z][A-Z0-9_]{0,63}', variable):
        raise UserError(
            'victim.source: http(token=...): write the NAME of an environment variable in capital '
            'letters, not the token, which would stay in the records'
        )
    token = os.environ.get(variable, '').strip()
    if not re.fullmatch(r'[!-~]+', token):
        raise UserError(
            f'victim.source: http(token={variable!r}): the environment variable {variable} '
            f'{"is not set" if not token else "is no single word of ASCII letters"}; export it'
        )
    return token


def _seconds(text: str | None) -> float | None:
    """Returns the seconds that a Retry-After asks for; None where it does not say.

    >>> _seconds('7'), _seconds('soon')
    (7.0, None)
    """
    if text is None:
        return None
    if re.fullmatch(r'\d{1,9}', text.strip()):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
