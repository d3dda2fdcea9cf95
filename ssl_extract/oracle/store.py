"""The answer store and the bill of an account.

The store is a folder of numbered parts, append-only. The parts hold the answers of one account in
the order of the queries, each under the fingerprint of the query. Beside the parts lies the
account's state after the last part. The state is written before the part, and the older state is
removed after the part. A run killed at any moment thus has an answer together with the bill, or
neither, and a query with a stored answer is never sent again. A refused query is stored as refused.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import augment, defenses
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import fingerprint
from ssl_extract.oracle import Answer, Oracle, OracleState
from ssl_extract.runtime import files, parallel, progress

PART_SIZE = 2048  # answers in a part, which a kill may cost in repeated computation


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


class Answers(NamedTuple):
    """The stored answers to `Queries`.

    Attributes:
        representations: float32[Q, D], zeros where refused.
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


class Queries(NamedTuple):
    """Queries to ask: row q is the view `seeds[q]` of `inputs[index[q]]`.

    Attributes:
        inputs: [N, ...], as they are stored.
        index: int32[Q].
        seeds: uint32[Q]; without a view 0, and 1, 2, ... to ask the same input again.
        view: `(inputs float[B, ...], seeds uint32[B]) -> queries`, a pure function, the same object
            for the same plan, for one compilation; None asks the inputs as they are.
        decode: stored [B, ...] to the inputs of encoders, a pure function.
    """

    inputs: np.ndarray
    index: np.ndarray
    seeds: np.ndarray
    view: Callable[..., jax.Array] | None = None
    decode: Callable[[jax.Array], jax.Array] = augment.to_float


def plain(inputs: np.ndarray, decode: Callable = augment.to_float) -> Queries:
    """Makes queries of every input as it is, once."""
    number = len(inputs)
    return Queries(inputs, np.arange(number), np.zeros(number, np.uint32), decode=decode)


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
    budget = oracle.about.budget if budget is None else budget
    if identity is not None:
        _check_identity(folder, identity)
    contents, prints = _fingerprints(queries, batch_size, mesh)
    wanted = dict.fromkeys(map(bytes, prints))
    shape = (batch_size, *queries.inputs.shape[1:])
    example = jax.eval_shape(queries.decode, jax.ShapeDtypeStruct(shape, queries.inputs.dtype))
    account = oracle.init(key, jnp.zeros(example.shape, example.dtype))
    account = parallel.replicate(account, mesh)
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
    # The missing queries are sent in the order of their first occurrence, each once. A part ends
    # when all batches of the part were answered. The part and the account after the part are then
    # written together, and `places` grows: the account on disk never runs ahead of or behind the
    # answers on disk. A victim that is no JAX function has one batch a part, so that no paid answer
    # is lost; a traced victim has larger parts, since answers can be computed again.
    query = _compile_query(queries.view, queries.decode, mesh) if oracle.traced else _send
    part_size = PART_SIZE if oracle.traced else batch_size
    with progress.progress(total=len(missing), desc=description, unit='query') as bar:
        for start in range(0, len(missing), part_size):
            rows = np.array(missing[start : start + part_size])
            new_answers, new_granted = [], []
            for inputs, seeds, where in _batches(queries, rows, batch_size):
                if not oracle.traced:
                    inputs = np.asarray(_compile_view(queries.view, queries.decode)(inputs, seeds))
                answer, account = query(account, oracle, inputs, seeds, where)
                new_answers.append(np.asarray(answer.representations)[where])
                new_granted.append(np.asarray(answer.granted)[where])
                bar.update(int(where.sum()))
            answers.append(np.concatenate(new_answers))
            granted.append(np.concatenate(new_granted))
            _write(folder, len(places), prints[rows], answers[-1], granted[-1], account)
            places |= {bytes(p): len(places) + i for i, p in enumerate(prints[rows])}
    order = np.array([places[bytes(p)] for p in prints])
    sent_granted = np.concatenate(granted)[order]
    return Answers(
        np.concatenate(answers)[order],
        sent_granted,
        _bill(queries, prints, contents, sent_granted),
        defenses.noticed(account.defense),
    )


def _send(
    account: OracleState, oracle: Oracle, inputs: np.ndarray, seeds: np.ndarray, where: np.ndarray
) -> tuple[Answer, OracleState]:
    del seeds  # the views are made already
    return oracle.query(inputs, account, where)


def _check_identity(folder: epath.Path, identity: dict[str, Any]) -> None:
    path = folder / 'account.json'
    if not path.exists():
        files.write_json(path, identity)
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


@functools.lru_cache(maxsize=32)
def _compile_view(view: Callable | None, decode: Callable) -> Any:
    return jax.jit(lambda inputs, seeds: view(decode(inputs), seeds) if view else decode(inputs))


@functools.cache
def _compile_fingerprint(decode: Callable, mesh: jax.sharding.Mesh) -> Any:
    return parallel.compile_init(lambda inputs: fingerprint(decode(inputs)), mesh)


def _fingerprints(
    queries: Queries, batch_size: int, mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Computes fingerprints uint32[Q, 2] of inputs, and of inputs with seeds.

    The view is not fingerprinted: the result would differ with the rounding of the hardware.
    """
    compute = _compile_fingerprint(queries.decode, mesh)
    whole = plain(queries.inputs)
    batches = _batches(whole, whole.index, batch_size)
    prints = np.concatenate([np.asarray(compute(inputs))[where] for inputs, _, where in batches])
    contents = prints[queries.index]
    return contents, contents + queries.seeds[:, None] * np.uint32([0x9E3779B1, 0x85EBCA77])


def _batches(queries: Queries, rows: np.ndarray, batch_size: int) -> Iterator[tuple]:
    """Yields (inputs, seeds, where) of `rows`, in batches of one size, for one compilation."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        where = np.arange(batch_size) < len(batch)
        batch = np.pad(batch, (0, batch_size - len(batch)))
        yield queries.inputs[queries.index[batch]], queries.seeds[batch], where


def _write(
    folder: epath.Path,
    count: int,
    prints: np.ndarray,
    representations: np.ndarray,
    granted: np.ndarray,
    account: OracleState,
) -> None:
    leaves = [np.asarray(_raw(leaf)) for leaf in jax.tree.leaves(account)]
    after = folder / f'account-{count + len(prints):010d}.npz'
    files.write_npz(after, **{str(i): leaf for i, leaf in enumerate(leaves)})
    files.write_npz(
        folder / f'part-{count:010d}.npz',
        fingerprints=prints,
        representations=representations,
        granted=granted,
    )
    for older in folder.glob('account-*.npz'):
        if older.name < after.name:
            older.unlink()


def _read(
    folder: epath.Path, account: OracleState, mesh: jax.sharding.Mesh
) -> tuple[list[np.ndarray], list[np.ndarray], dict[bytes, int], OracleState]:
    """Reads the stored answers, whether each was granted, their places, and the account."""
    answers, granted, places = [], [], {}
    parts = sorted(folder.glob('part-*.npz')) if folder.exists() else []
    for path in parts:
        part = files.read_npz(path)
        if len(places) != int(path.stem.split('-')[1]):
            raise UserError(f'{folder}: a part before {path.name} is missing; remove the folder')
        places |= {bytes(p): len(places) + i for i, p in enumerate(part['fingerprints'])}
        answers.append(part['representations'])
        granted.append(part['granted'])
    if parts:
        leaves, treedef = jax.tree.flatten(account)
        saved = files.read_npz(folder / f'account-{len(places):010d}.npz')
        if len(saved) != len(leaves):
            raise UserError(f'{folder}: its account is of another defense; give each its folder')
        restored = [
            jax.random.wrap_key_data(saved[str(i)])
            if _is_key(leaf)
            else jnp.asarray(saved[str(i)], leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        account = parallel.replicate(jax.tree.unflatten(treedef, restored), mesh)
    return answers, granted, places, account


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
