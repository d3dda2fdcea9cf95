"""The client of a victim behind HTTP.

Each request has a key, so that a service of this package's format bills it once however often it
arrives. The answers of a request are on disk before the next request is sent.
"""

from typing import Any

import numpy as np
from etils import epath

from ssl_extract.runtime import files, progress
from ssl_extract.victims import wire
from ssl_extract.victims.connection import MOST_BYTES, Connection, MissingError, Request, Settings
from ssl_extract.victims.journal import Journal
from ssl_extract.victims.wire import Reply, ReplyError

USUAL_BATCH = 64
MOST_DIM = 2**16  # numbers of an answer
_MOST_AXES = 8  # of an input
_PER_NUMBER = 64  # bytes of a number of an answer, at most, as JSON with its white space
_RETRIES_OF_GET = 2  # of what is not paid


class Service:
    """The client of one service.

    Args:
        settings: how the service is asked.
        dim: D, the width of an answer; 0 asks the service.
        address: the name of what answers; '' is what the service says, beside its url.

    Attributes:
        about: what the service says about itself, where it was asked: `answers`, `input_shape`, ...
        batch_size: inputs in a request, at most.

    Raises:
        UserError: httpx is missing, a setting is wrong, or the service does not say what it is.
    """

    def __init__(self, settings: Settings, dim: int = 0, address: str = '') -> None:
        self.settings, self.connection = settings, Connection(settings)
        self.about = {} if dim else self._ask_about()
        self.dim = dim or self.about['dim']
        named = f'{self.connection.url} {self.about.get("address") or ""}'
        self.address = address or named.rstrip()
        most = self.about.get('max_batch') or 2**31
        self.batch_size = min(settings.batch_size or min(USUAL_BATCH, most), most)
        self._unkept = Journal(None, self.connection.url, settings.max_queries, repeats=False)

    def check(self, folder: epath.Path, count: int, number: int) -> None:
        """Checks that neither the limit nor the service's budget ends before the last query.

        Args:
            folder: of the account's store.
            count: queries to send.
            number: queries of the account before them.

        Raises:
            UserError: one of the two does, or the service does not know the token.
        """
        journal = self._journal(folder)
        journal.check(count, number)
        account = None if self.settings.field else self._get('/v1/account')
        left = account and account.get('remaining')
        if _is_whole(left, 0) and left + journal.under_way(number) < count:
            raise self.connection.error(
                f'it leaves {left} queries to this account, and {count} were to be sent: nothing '
                'was sent; lower the budget, or ask its owner for more'
            )

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the answers float32 [n, D] to inputs [n, ...] outside of an account.

        Raises:
            UserError: the service refuses an input, or its reply is of no use.
        """
        answers, granted = self.send(inputs)
        if not granted.all():
            raise self.connection.error(f'it refused {(~granted).sum()} of {len(inputs)} inputs')
        return answers

    def send(
        self, inputs: np.ndarray, folder: epath.Path | None = None, number: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sends inputs [n, ...] in requests of at most `batch_size`.

        Args:
            inputs: as encoders see them.
            folder: of the account's store, in which the journal lies; None keeps none.
            number: queries of the account before these.

        Returns:
            The answers float32 [n, D], zeros where refused, and bool[n], which were granted.

        Raises:
            UserError: the service is not reached, refuses the request, or its reply is of no use;
                the reply is then kept in the folder.
        """
        journal, replies = self._journal(folder), []
        for start in range(0, len(inputs), self.batch_size):
            before = number + start if folder else journal.sent()
            part = inputs[start : start + self.batch_size]
            replies.append(self._send_one(part, journal, before))
        return (
            np.concatenate([reply.answers for reply in replies]),
            np.concatenate([reply.granted for reply in replies]),
        )

    def _send_one(self, inputs: np.ndarray, journal: Journal, number: int) -> Reply:
        s, url, count = self.settings, self.connection.url, len(inputs)
        content = wire.pack(wire.stored(inputs, s.dtype), s.body)
        key, kind = journal.key(number, content), wire.TYPES[s.body]
        request = Request(
            'POST',
            url if s.field else f'{url}/v1/answers',
            {'Content-Type': kind, 'Accept': kind, 'Idempotency-Key': key},
            content,
            MOST_BYTES + _PER_NUMBER * count * (self.dim + 1),
        )
        kind, content = self.connection.exchange(
            request,
            retries=s.retries,
            begin=lambda: journal.begin(key, number, count),
            withdraw=journal.withdraw,
        )
        try:
            reply = wire.unpack(
                content, kind, count=count, dim=self.dim, field=s.field, most=request.most_bytes
            )
        except ReplyError as error:
            kept = _keep(journal.folder, number, self.connection.without_token(content))
            raise self.connection.error(f'{self.connection.hidden(str(error))}{kept}') from None
        journal.finish(reply.billed)
        granted = int(reply.granted.sum())
        if reply.billed > granted:
            progress.note(
                f'{self.address} bills more',
                f'{url} billed {reply.billed} queries and granted {granted}: a bill here is of '
                'granted queries only',
            )
        return reply

    def _journal(self, folder: epath.Path | None) -> Journal:
        if folder is None:
            return self._unkept
        repeats = not self.settings.field  # a service of the format knows a key again
        return Journal(folder, self.connection.url, self.settings.max_queries, repeats)

    def _ask_about(self) -> dict[str, Any]:
        """Returns what the service says about itself, checked; `dim` is always there."""
        about = self._get('/v1/about')
        if about is None:
            raise self.connection.error(
                'it has no /v1/about; write dim=..., and field=... of a service of another format'
            )
        names = [about[name] for name in ('address', 'answers') if about.get(name) is not None]
        if not _is_about(about, names):
            raise self.connection.error(
                f'its /v1/about is of another form: {self.connection.hidden(str(about))!r}'
            )
        if any(map(self.connection.holds_token, names)):
            raise self.connection.error(
                'its /v1/about repeats the token, which would stay in the records; write dim=...'
            )
        if about['dim'] > MOST_DIM:
            raise self.connection.error(
                f'its answers have {about["dim"]:,} numbers; at most {MOST_DIM:,} can be asked for'
            )
        return about

    def _get(self, path: str) -> dict[str, Any] | None:
        """Returns the JSON object at a path; None where the service has no such path."""
        url = f'{self.connection.url}{path}'
        request = Request('GET', url, {'Accept': wire.JSON})
        retries = min(_RETRIES_OF_GET, self.settings.retries)
        try:
            kind, content = self.connection.exchange(request, retries=retries)
            return wire.read_object(content, kind)
        except MissingError:
            return None
        except ReplyError as error:
            said = self.connection.hidden(str(error))
            raise self.connection.error(f'{path}: {said}') from None


def _keep(folder: epath.Path | None, number: int, content: bytes) -> str:
    """Keeps a reply of no use, which may be billed, and says where."""
    if folder is None:
        return ''
    path = folder / f'reply-{number:010d}.bin'
    files.write_bytes(path, content)
    return f'; the reply is kept as {path}'


def _is_about(about: dict[str, Any], names: list[Any]) -> bool:
    """Tells whether a service describes itself, and calls itself `names`, in this format."""
    most, shape = about.get('max_batch'), about.get('input_shape')
    return (
        _is_whole(about.get('dim'), 1)
        and (most is None or _is_whole(most, 1))
        and (shape is None or _is_shape(shape))
        and all(map(wire.is_name, names))
    )


def _is_shape(value: Any) -> bool:
    """Tells whether a value of JSON is the shape of an input."""
    return (
        isinstance(value, list)
        and 1 <= len(value) <= _MOST_AXES
        and all(_is_whole(size, 1) for size in value)
    )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 2**31
