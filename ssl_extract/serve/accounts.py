"""The accounts of a service, on disk: ledger, defense, last answers."""

import json
import secrets
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from starlette.exceptions import HTTPException

from ssl_extract import defenses
from ssl_extract.oracle import MAX_BUDGET, Oracle, OracleState, states
from ssl_extract.runtime import files
from ssl_extract.serve.bodies import Reply
from ssl_extract.serve.worker import padded

ROWS = 1024  # queries of a request that are charged and defended at a time
KEPT = 16  # answers to the last requests with an Idempotency-Key


class Book(NamedTuple):
    """An account between two requests; a request replaces the whole.

    Attributes:
        state: of the oracle; None before the first request.
        requests: how many were answered.
        last: the time of the last one, in UTC.
        answered: of the last requests with a key: [number of the request, hash of its content].
    """

    state: OracleState | None = None
    requests: int = 0
    last: str = ''
    answered: dict[str, list] = {}  # noqa: RUF012  (never changed)


class Account:
    """One account, which answers one request at a time.

    A request is charged, answered by the victim, defended, written, and only then answered. The
    account's file holds the whole account after a request and appears at once, so that a kill
    leaves the account before the request or after. The answer to a request with a key is written
    before the account's file names it; without that name the answer does not count.

    Attributes:
        budget: queries that the account may send; None is no limit.
    """

    def __init__(
        self, folder: epath.Path, oracle: Oracle, shape: tuple[int, ...], budget: int | None
    ) -> None:
        """Reads the account from its folder, which need not exist.

        Args:
            folder: of this account alone.
            oracle: the victim behind the defense.
            shape: of one input.
            budget: queries that the account may send; None is no limit.

        Raises:
            UserError: the file is damaged, or of an account under another defense.
        """
        self.budget, self._folder, self._oracle = budget, folder, oracle
        self._inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        self._turn = threading.Lock()
        self._book = self._read() if self._path.exists() else Book()

    def answer(self, inputs: np.ndarray, key: str = '', body: str = '') -> Reply:
        """Answers one request, once it is on the disk.

        Args:
            inputs: float32 [B, ...].
            key: the Idempotency-Key of the request; '' is none.
            body: a hash of the request's content.

        Raises:
            HTTPException: the key was used with another body, or the account is closed.
        """
        with self._turn:
            if key in self._book.answered:
                return self._again(*self._book.answered[key], body)
            state = self._book.state or self._oracle.init(_secret(), self._inputs)
            if int(state.num_refused) > MAX_BUDGET:  # an int32, which must not overflow
                raise HTTPException(403, 'a billion refused queries: this account is closed')
            answers, granted, state = self._query(inputs, state)
            if not np.isfinite(answers).all():
                raise FloatingPointError('the defense made answers of NaN or infinity')
            reply = Reply(answers, granted, self._left(state))
            self._write(state, reply, key, body)
            return reply

    def _query(
        self, inputs: np.ndarray, state: OracleState
    ) -> tuple[np.ndarray, np.ndarray, OracleState]:
        """Queries the oracle in parts: the memory of some defenses grows with a part's square."""
        answers, granted = [], []
        for start in range(0, len(inputs), ROWS):
            part = inputs[start : start + ROWS]
            rows = padded(part)
            answer, state = self._oracle.query(rows, state, np.arange(len(rows)) < len(part))
            answers.append(np.asarray(answer.representations, np.float32)[: len(part)])
            granted.append(np.asarray(answer.granted)[: len(part)])
        return np.concatenate(answers), np.concatenate(granted), state

    def bill(self) -> dict[str, Any]:
        """Returns the account's `billed`, `refused`, `budget` and `remaining` queries."""
        return self._bill(self._book.state)

    def ledger(self) -> dict[str, Any]:
        """Returns the bill, the requests, the time of the last one, and the defense's counters."""
        book = self._book
        return self._bill(book.state) | {
            'requests': book.requests,
            'last': book.last,
            'noticed': defenses.noticed(book.state.defense) if book.state else {},
        }

    def _bill(self, state: OracleState | None) -> dict[str, Any]:
        return {
            'billed': int(state.num_queries) if state else 0,
            'refused': int(state.num_refused) if state else 0,
            'budget': self.budget,
            'remaining': self._left(state) if state else self.budget,
        }

    def _left(self, state: OracleState) -> int | None:
        if self.budget is None:
            return None
        return max(0, self.budget - int(state.num_queries + state.num_withheld))

    def _again(self, number: int, before: str, body: str) -> Reply:
        if before != body:
            raise HTTPException(409, 'this Idempotency-Key was used with another body')
        arrays = files.read_npz(self._answer_path(number))
        remaining = int(arrays['remaining'])
        return Reply(arrays['answers'], arrays['granted'], None if remaining < 0 else remaining)

    def _write(self, state: OracleState, reply: Reply, key: str, body: str) -> None:
        number, last = self._book.requests + 1, time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
        answered = self._book.answered
        if key:
            answered = dict([*answered.items(), (key, [number, body])][-KEPT:])
            remaining = -1 if reply.remaining is None else reply.remaining
            files.write_npz(
                self._answer_path(number),
                answers=reply.answers,
                granted=reply.granted,
                remaining=np.int64(remaining),
            )
        about = json.dumps({'requests': number, 'last': last, 'answered': answered})
        files.write_npz(self._path, about=np.array(about), **states.to_arrays(state))
        before, self._book = self._book, Book(state, number, last, answered)
        for dropped in before.answered.keys() - answered.keys():
            self._answer_path(before.answered[dropped][0]).unlink(missing_ok=True)

    def _read(self) -> Book:
        with files.advised('put it back from a copy; without it the account starts anew'):
            arrays = files.read_npz(self._path)
        about = json.loads(str(arrays.pop('about')))
        example = jax.eval_shape(lambda key: self._oracle.init(key, self._inputs), _secret())
        state = states.from_arrays(arrays, example, self._folder)
        files.remove_temporary(self._folder)
        kept = {self._answer_path(number) for number, _ in about['answered'].values()}
        for path in files.find(self._folder, 'answer-*.npz'):
            if path not in kept:
                path.unlink()
        return Book(state, **about)

    @property
    def _path(self) -> epath.Path:
        return self._folder / 'account.npz'

    def _answer_path(self, number: int) -> epath.Path:
        return self._folder / f'answer-{number:010d}.npz'


def _secret() -> jax.Array:
    """Draws the key of a new account: nobody shall compute the noise of its answers."""
    words = jax.random.key_data(jax.random.key(0))
    drawn = np.frombuffer(secrets.token_bytes(words.nbytes), np.uint32).reshape(words.shape)
    return jax.random.wrap_key_data(drawn)
