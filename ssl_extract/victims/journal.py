"""The journal of an account at a service: queries, before they are sent.

The answers of an account lie in its store, which knows what came back. The journal beside them
knows what left. It holds the number of queries sent, and the last request under its key. A request
that a kill interrupted is thus sent again under the same key, and a service that keeps its answers
by key bills it once. The journals of all accounts in one folder, as of a workdir, share a limit for
each url, whatever the service calls itself.
"""

import hashlib
import uuid
from typing import Any

from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.runtime import files, progress

NAME = 'queries_sent.json'


class Journal:
    """The journal of one account.

    Args:
        folder: of the account's store; None keeps the journal in memory.
        url: of the service.
        limit: queries that all accounts beside the folder may send to the url; None is none.
        repeats: whether the service answers a repeated request again without billing it.
    """

    def __init__(
        self, folder: epath.Path | None, url: str, limit: int | None, repeats: bool
    ) -> None:
        self.folder, self.url, self.limit, self.repeats = folder, url, limit, repeats
        # `sent` is by url, as a service under a declared address may move; the rest after `before`
        # is of the last request.
        self.state: dict[str, Any] = {'id': uuid.uuid4().hex, 'sent': {}, 'billed': 0, 'before': 0}
        self.state |= {'url': url, 'key': '', 'number': -1, 'rows': 0}
        if folder is not None and (folder / NAME).exists():
            self.state |= _read(folder)
        self.before: dict[str, Any] | None = None  # the state before a request that may not count

    def key(self, number: int, content: bytes) -> str:
        """Returns the key of a request: of the account, the queries before it, and its body."""
        text = f'{self.state["id"]} {number} '.encode()
        return hashlib.sha256(text + content).hexdigest()[:32]

    def begin(self, key: str, number: int, rows: int) -> None:
        """Writes that a request is about to be sent.

        Args:
            key: of the request.
            number: queries of the account before the request.
            rows: queries in the request.

        Raises:
            UserError: the limit does not leave so many queries; nothing is to be sent.
        """
        state = self.state
        again = (state['key'], state['url']) == (key, self.url)
        if state['number'] == number and self.before is None:
            self._tell(again)
        self.before = None
        if again and self.repeats:
            return
        self.check(rows)
        self.before = state
        sent = state['sent'] | {self.url: state['sent'].get(self.url, 0) + rows}
        counted = {'sent': sent, 'before': state['billed'], 'url': self.url}
        self._write(state | counted | {'key': key, 'number': number, 'rows': rows})
        if self.limit is not None and self.sent() > self.limit:  # another process was faster
            self.withdraw()
            raise self._refusal(self.sent(), rows)

    def withdraw(self) -> None:
        """Takes back a request that the service surely did not answer."""
        if self.before is not None:
            self._write(self.before)

    def finish(self, billed: int) -> None:
        """Writes that a request was answered, and how many of its queries were billed.

        An answer that a kill kept out of the store comes again, and its bill counts once.
        """
        self.before = None
        self._write(self.state | {'billed': self.state['before'] + billed})

    def check(self, rows: int, number: int | None = None) -> None:
        """Checks that the limit leaves so many queries.

        Args:
            rows: queries to send.
            number: queries of the account before them: of a request that was interrupted there, the
                queries are counted already.

        Raises:
            UserError: the limit does not.
        """
        if self.limit is None:
            return
        sent = self.sent()
        if number is not None and self.repeats:
            rows -= min(rows, self.under_way(number))
        if sent + rows > self.limit:
            raise self._refusal(sent, rows)

    def under_way(self, number: int) -> int:
        """Counts the queries that were sent after the first `number` and whose end is unknown."""
        return self.state['rows'] if self.state['number'] == number else 0

    def sent(self) -> int:
        """Counts the queries that all accounts beside the folder have sent to the url."""
        if self.folder is None:
            return self.state['sent'].get(self.url, 0)
        total = 0
        for path in {*files.find(self.folder.parent, f'*/{NAME}'), self.folder / NAME}:
            if path.exists():
                total += _read(path.parent)['sent'].get(self.url, 0)
        return total

    def _refusal(self, sent: int, rows: int) -> UserError:
        return UserError(
            f'victim.source: max_queries={self.limit}: {sent} were sent to {self.url} by this '
            f'account and those beside it, and {rows} more were to be sent: nothing more was sent; '
            'send fewer, or raise max_queries'
        )

    def _tell(self, again: bool) -> None:
        """Says what becomes of a request that was sent and whose answers are not in the store."""
        rows = self.state['rows']
        if again and self.repeats:
            said = 'are sent again under the same key, and billed once by a service that keeps it'
        else:
            said = 'have no answers in the store; the service may bill them beside what follows'
        place = f'{self.folder} {self.state["key"]} {again}'
        progress.note(place, f'{rows} queries that were sent before {said}')

    def _write(self, state: dict[str, Any]) -> None:
        self.state = state
        if self.folder is not None:
            files.write_json(self.folder / NAME, state)


def _read(folder: epath.Path) -> dict[str, Any]:
    path = folder / NAME
    with files.advised(f'put it back from a copy; without it nobody knows what {folder} has sent'):
        state = files.read_json(path)
        if not isinstance(state.get('sent'), dict):
            raise files.DamagedError(f'cannot read {path} (it has no queries sent by url)')
    return state
