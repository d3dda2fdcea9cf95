"""The answer store and the bill of an account.

The store is a folder of numbered parts, append-only. The parts hold the answers of one account in
the order of the queries, each under the fingerprint of the query. Beside the parts lies the
account's state after the last part. The state is written before the part, as pending; it gets its
name after the part, and then the older state is removed. A run killed at any moment thus has an
answer together with the bill, or neither, and a query with a stored answer is never sent again. A
state under its name proves that its parts were there: where one is missing, nothing is sent. A
refused query is stored as refused.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import defenses
from ssl_extract.errors import UserError
from ssl_extract.oracle import Answer, Oracle, OracleState, states
from ssl_extract.oracle.queries import Queries, batches, check_known, compile_view, fingerprints
from ssl_extract.runtime import files, hosts, parallel, progress
from ssl_extract.runtime.rows import Rows

# A kill costs the answers since the last part, which a traced victim must compute again. A part
# ends after so many bytes or seconds, unless more than a fiftieth of the time went into writing.
PART_BYTES, PART_SECONDS, PART_WRITES = 2**22, 10.0, 50
PART_MOST = 2**25  # bytes, after which a part ends whatever writing costs: parts are in memory


class Bill(NamedTuple):
    """The bill of an account, in queries (one view sent is one query).

    Attributes:
        billed: granted queries; each is paid for.
        unique: different inputs among the granted queries.
        repeated: `billed - unique`, inputs that were paid for again.
        refused: queries sent and not answered: the defense refused, or the budget was spent.
    """

    billed: int
    unique: int
    repeated: int
    refused: int

    def columns(self) -> dict[str, int]:
        """Returns the columns of a row of results, `queries_billed` and so on."""
        return {f'queries_{name}': count for name, count in self._asdict().items()}


class Answers(NamedTuple):
    """The stored answers to `Queries`.

    Attributes:
        representations: float32[Q, D], zeros where refused; many lie in a file, see `Rows`.
        granted: bool[Q].
        bill: of the queries.
        noticed: the counters of the defense for the account; see `defenses.noticed`.
    """

    representations: np.ndarray
    granted: np.ndarray
    bill: Bill
    noticed: dict[str, float]


def make_bill(prints: np.ndarray, refused: int = 0) -> Bill:
    """Makes the bill of granted queries with the fingerprints `prints` uint32[Q, 2]."""
    unique = len(np.unique(prints, axis=0))
    return Bill(len(prints), unique, len(prints) - unique, int(refused))


def collect(
    folder: epath.Path,
    oracle: Oracle,
    key: jax.Array,
    queries: Queries,
    *,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    budget: int | None = None,
    identity: dict[str, Any] | None = None,
    description: str = 'ask',
) -> Answers:
    """Collects answers to `queries`, in order; the oracle gets queries without stored answers only.

    A victim that is no JAX function gets one batch at a time, and the answers to a batch are on
    disk before the next batch is sent. After an error or a kill the same call goes on after the
    last stored batch.

    Args:
        folder: the store of one account; another victim, defense or seed needs another folder.
        oracle: access to the victim.
        key: the account's key, used when the account is opened.
        queries: to ask.
        batch_size: queries sent at a time.
        mesh: the batches of a traced oracle are sharded over the mesh.
        budget: of the oracle; the store may hold more answers, from a run with a larger budget.
        identity: everything that the account's answers depend on. The identity is written into the
            folder, and a folder with another identity is refused.
        description: the title of the progress bar.

    Raises:
        UserError: more queries are to be sent than the budget leaves (nothing is sent then), the
            folder is that of another account, or files are damaged.
    """
    about = oracle.about
    budget = about.budget if budget is None else budget
    if about.service:  # a request is a part: its answers are on disk before the next is sent
        batch_size = min(batch_size, about.service.batch_size)
    if identity is not None:
        _check_identity(folder, identity)
    contents, prints = fingerprints(queries, batch_size, mesh)
    wanted = dict.fromkeys(map(bytes, prints))
    shape = (batch_size, *queries.inputs.shape[1:])
    example = jax.eval_shape(queries.decode, jax.ShapeDtypeStruct(shape, queries.inputs.dtype))
    account = oracle.init(key, jnp.zeros(example.shape, example.dtype))
    account = parallel.replicate(account, mesh)
    with files.advised(_remedy(folder)):
        answers, granted, places, account = _read(folder, account, mesh)
    first = {fingerprint: i for i, fingerprint in reversed(list(enumerate(map(bytes, prints))))}
    missing = [first[p] for p in wanted if p not in places]
    stored = f'{len(wanted) - len(missing)} of {len(wanted)} answers are stored'
    progress.note(folder, f'{folder.parent.name}/{folder.name}: {stored}' if places else '')
    left = max(0, budget - int(account.num_queries + account.num_withheld))
    if len(missing) > left:
        raise UserError(
            f'{len(missing)} different queries were to be sent, and {left} of the budget of '
            f'{budget} are left: nothing was sent; send at most {left}, or raise the budget'
        )
    check_known(about.victim, about.knows, queries, np.array(missing, np.int64), batch_size)
    if missing and about.service:
        hosts.agreed(lambda: about.service.check(folder, len(missing), len(places)))
    # The missing queries are sent in the order of their first occurrence, each once. A part ends
    # behind a batch that was answered. The part and the account after the part are then written
    # together, and `places` grows: the account on disk never runs ahead of or behind the answers on
    # disk. A victim that is no JAX function has one batch a part, so that no paid answer is lost; a
    # traced victim has parts as `_Pace` lets them end.
    query = functools.partial(_send, folder)
    if oracle.traced:
        query = _compile_query(queries.view, queries.decode, mesh)
    rows, pace, done = np.array(missing, np.int64), _Pace(), 0
    with progress.progress(total=len(rows), desc=description, unit='query') as bar:
        part: list[tuple[np.ndarray, np.ndarray]] = []
        for inputs, seeds, where in batches(queries, rows, batch_size):
            if not oracle.traced:
                inputs = np.asarray(compile_view(queries.view, queries.decode)(inputs, seeds))
            answer, account = query(account, oracle, inputs, seeds, where)
            part.append(
                (np.asarray(answer.representations)[where], np.asarray(answer.granted)[where])
            )
            done += int(where.sum())
            bar.update(int(where.sum()))
            if pace.ends(part[-1][0].nbytes) or not oracle.traced or done == len(rows):
                new = [np.concatenate(arrays) for arrays in zip(*part, strict=True)]
                sent = prints[rows[done - len(new[0]) : done]]
                with pace.writing():
                    _write(folder, len(places), sent, *new, account)
                places |= {bytes(p): len(places) + i for i, p in enumerate(sent)}
                answers.append(new[0])
                granted, part = [*granted, new[1]], []
    order = np.array([places[bytes(p)] for p in prints])
    sent_granted = np.concatenate(granted)[order]
    return Answers(
        answers.take(order),
        sent_granted,
        _bill(queries, prints, contents, sent_granted),
        defenses.noticed(account.defense),
    )


def num_stored(folder: epath.Path) -> int:
    """Counts the answers of an account by its files' names.

    A part is named by how many answers lie before it and a state by how many it is the state after.
    """
    starts = _numbers(folder, 'part')
    ends = _numbers(folder, 'account') + _numbers(folder, 'pending')
    return min((end for end in ends if starts and end > max(starts)), default=0)


class _Pace:
    """The length of a part: some bytes or seconds of answers, as long as writing is cheap."""

    def __init__(self) -> None:
        self.started, self.nbytes, self.cost = 0.0, 0, 0.0

    def ends(self, nbytes: int) -> bool:
        """Returns whether the part ends with this batch; the time starts with the first batch."""
        self.started, self.nbytes = self.started or time.monotonic(), self.nbytes + nbytes
        passed = time.monotonic() - self.started
        full = self.nbytes >= PART_BYTES or passed >= PART_SECONDS
        return full and passed >= PART_WRITES * self.cost or self.nbytes >= PART_MOST

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Measures the writing of a part, after which the next one begins."""
        begun = time.monotonic()
        yield
        self.started, self.nbytes = time.monotonic(), 0
        self.cost = self.started - begun


def _send(
    folder: epath.Path,
    account: OracleState,
    oracle: Oracle,
    inputs: np.ndarray,
    seeds: np.ndarray,
    where: np.ndarray,
) -> tuple[Answer, OracleState]:
    del seeds  # the views are made already
    return oracle.query(inputs, account, where, folder=folder)


def _check_identity(folder: epath.Path, identity: dict[str, Any]) -> None:
    path = folder / 'account.json'
    if not path.exists():
        if files.find(folder, 'account-*.npz'):
            raise UserError(f'{path} is missing, and the account has answers: {_remedy(folder)}')
        files.write_json(path, identity)
    with files.advised(_remedy(folder)):
        stored = files.read_json(path)
    if stored != identity:
        differing = ', '.join(k for k in identity if stored.get(k) != identity[k])
        raise UserError(
            f'{folder} holds the answers of another account ({differing} differs): give each '
            'account a folder of its own'
        )


def _bill(queries: Queries, prints: np.ndarray, contents: np.ndarray, granted: np.ndarray) -> Bill:
    """Makes the bill of stored answers; a view that occurs twice in `queries` was sent once."""
    _, sent = np.unique(prints, axis=0, return_index=True)
    paid = sent[granted[sent]]
    inputs = contents if queries.view is None else prints  # without a view the input is sent
    return make_bill(inputs[paid], refused=len(sent) - len(paid))


@functools.lru_cache(maxsize=32)
def _compile_query(view: Callable | None, decode: Callable, mesh: jax.sharding.Mesh) -> Any:
    def query(
        account: OracleState, oracle: Oracle, inputs: jax.Array, seeds: jax.Array, where: jax.Array
    ) -> tuple[Answer, OracleState]:
        inputs = decode(inputs)
        return oracle.query(view(inputs, seeds) if view else inputs, account, where)

    return parallel.compile_query(query, mesh)


def _write(
    folder: epath.Path,
    count: int,
    prints: np.ndarray,
    representations: np.ndarray,
    granted: np.ndarray,
    account: OracleState,
) -> None:
    number = count + len(prints)
    pending, after = _path(folder, 'pending', number), _path(folder, 'account', number)
    files.write_npz(pending, **states.to_arrays(account))
    files.write_npz(
        _path(folder, 'part', count),
        fingerprints=prints,
        representations=representations,
        granted=granted,
    )
    files.rename(pending, after)
    for older in ('pending', 'account'):
        for path in files.find(folder, f'{older}-*.npz'):
            if path != after:
                files.remove(path)


def _read(
    folder: epath.Path, account: OracleState, mesh: jax.sharding.Mesh
) -> tuple[Rows, list[np.ndarray], dict[bytes, int], OracleState]:
    """Reads the stored answers, whether each was granted, their places, and the account."""
    answers, granted, places = Rows(folder), [], {}
    for path in files.find_together(folder, 'part-*.npz'):
        part = files.read_npz(path)
        _check_whole(folder, len(places), _number(path))
        places |= {bytes(p): len(places) + i for i, p in enumerate(part['fingerprints'])}
        answers.append(part['representations'])
        granted.append(part['granted'])
    ends = hosts.agreed(lambda: _numbers(folder, 'account'))
    _check_whole(folder, len(places), max(ends, default=0))
    if places:
        saved = _read_state(folder, len(places))
        account = parallel.replicate(states.from_arrays(saved, account, folder), mesh)
    return answers, granted, places, account


def _read_state(folder: epath.Path, count: int) -> dict[str, np.ndarray]:
    """Reads the state after `count` answers, which a kill may have left pending."""
    pending, after = _path(folder, 'pending', count), _path(folder, 'account', count)

    def name() -> None:
        if not after.exists() and pending.exists():
            files.rename(pending, after)

    hosts.agreed(name)
    return files.read_npz(after)


def _check_whole(folder: epath.Path, count: int, before: int) -> None:
    """Raises DamagedError if fewer than the `before` answers are there that once were."""
    if count < before:
        raise files.DamagedError(
            f'{folder} lacks its answers {count + 1} to {before}, which are paid: a part file is '
            'missing'
        )


def _path(folder: epath.Path, kind: str, number: int) -> epath.Path:
    return folder / f'{kind}-{number:010d}.npz'


def _number(path: epath.Path) -> int:
    return int(path.stem.split('-')[1])


def _numbers(folder: epath.Path, kind: str) -> list[int]:
    return [_number(path) for path in files.find(folder, f'{kind}-*.npz')]


def _remedy(folder: epath.Path) -> str:
    return (
        f'put it back from a copy, or move {folder} elsewhere: all queries of the account are then '
        'sent and paid again'
    )
