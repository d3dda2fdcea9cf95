"""The answer store and the bill of an account.

The store is a folder of numbered parts, append-only: the answers of one account in the order it
asked, each under the fingerprint of the image that was sent; and the account's state after the last
part. The state is written before its part and the older one removed after it, so a run killed
anywhere has an answer together with its bill or neither, and a query whose answer is stored is
never sent again. A query that was refused is stored as such.
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
from ssl_extract.oracle import Oracle, OracleState
from ssl_extract.runtime import files, parallel, progress

PART_SIZE = 2048  # answers in a part: what a kill can cost in repeated computation


class Bill(NamedTuple):
    """What the queries of one attack cost its account, in queries (one view sent is one query).

    Attributes:
        billed: granted queries; each is paid for.
        unique: how many different inputs were among them.
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
        bill: what they cost.
        noticed: what the defense knows of the account; see `defenses.noticed`.
    """

    representations: np.ndarray
    granted: np.ndarray
    bill: Bill
    noticed: dict[str, float]


def make_bill(asked: np.ndarray, refused: int = 0) -> Bill:
    """The bill for granted queries with the fingerprints `asked` uint32[Q, 2]."""
    unique = len(np.unique(asked, axis=0))
    return Bill(len(asked), unique, len(asked) - unique, int(refused))


class Queries(NamedTuple):
    """What is to be asked: row q is the view `seeds[q]` of `inputs[index[q]]`.

    Attributes:
        inputs: [N, ...], as they are stored.
        index: int32[Q].
        seeds: uint32[Q]; where the image is asked as it is, 0, and 1, 2, ... to ask it again.
        view: `(inputs float[B, ...], seeds uint32[B]) -> queries`, a pure function, the same
            object for the same plan, so that it is compiled once; None asks the inputs.
        decode: stored [B, ...] to what encoders see, a pure function.
    """

    inputs: np.ndarray
    index: np.ndarray
    seeds: np.ndarray
    view: Callable[..., jax.Array] | None = None
    decode: Callable[[jax.Array], jax.Array] = augment.to_float


def plain(inputs: np.ndarray, decode: Callable = augment.to_float) -> Queries:
    """Every input as it is, once."""
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
    """Answers to `queries`, in their order; sends the oracle only what the store does not hold.

    A victim that is no JAX function is sent one batch at a time, and each batch is on disk before
    the next is sent. After an error or a kill the same call goes on behind the last one.

    Args:
        folder: the store of one account; another victim, defense or seed needs another folder.
        oracle: what is asked.
        key: the account's key, used when the account is opened.
        queries: what to ask.
        batch_size: queries sent at a time.
        mesh: a traced oracle's batches are sharded over it.
        budget: of the oracle; a store may already hold more, from a run with a larger one.
        identity: what the account's answers depend on; it is written into the folder, and a folder
            with another one is refused.
        description: for the progress bar.

    Raises:
        UserError: more queries are to be sent than the budget leaves (nothing is sent then), the
            folder is another account's, or its files are damaged.
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
    left = max(0, budget - int(account.num_queries + account.num_withheld))
    if len(missing) > left:
        raise UserError(
            f'{len(missing)} different queries were to be sent, and {left} of the budget of '
            f'{budget} are left: nothing was sent; send at most {left}, or raise the budget'
        )
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


def _send(account: OracleState, oracle: Oracle, inputs, seeds, where) -> Any:
    return oracle.query(inputs, account, where)


def _check_identity(folder: epath.Path, identity: dict[str, Any]) -> None:
    path = folder / 'account.json'
    if not path.exists():
        files.write_json(path, identity)
    there = files.read_json(path)
    if there != identity:
        differing = ', '.join(k for k in identity if there.get(k) != identity[k])
        raise UserError(
            f'{folder} holds the answers of another account ({differing} differs): give each '
            'account a folder of its own'
        )


def _bill(queries: Queries, prints: np.ndarray, contents: np.ndarray, granted: np.ndarray) -> Bill:
    """The bill of stored answers: whoever asks the same view twice in `queries` sends it once."""
    _, sent = np.unique(prints, axis=0, return_index=True)
    paid = sent[granted[sent]]
    what = contents if queries.view is None else prints  # unseeded, what is sent is the image
    return make_bill(what[paid], refused=len(sent) - len(paid))


@functools.lru_cache(maxsize=32)
def _compile_query(view: Callable | None, decode: Callable, mesh: jax.sharding.Mesh) -> Any:
    def query(account: OracleState, oracle: Oracle, inputs, seeds, where):
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
    """uint32[Q, 2] of each image, and of image and seed.

    The view's own would differ with the hardware's rounding.
    """
    compute = _compile_fingerprint(queries.decode, mesh)
    whole = plain(queries.inputs)
    batches = _batches(whole, whole.index, batch_size)
    prints = np.concatenate([np.asarray(compute(inputs))[where] for inputs, _, where in batches])
    contents = prints[queries.index]
    return contents, contents + queries.seeds[:, None] * np.uint32([0x9E3779B1, 0x85EBCA77])


def _batches(queries: Queries, rows: np.ndarray, batch_size: int) -> Iterator[tuple]:
    """(images, seeds, where) of `rows`; all batches have one size, so that it is compiled once."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        where = np.arange(batch_size) < len(batch)
        batch = np.pad(batch, (0, batch_size - len(batch)))
        yield queries.inputs[queries.index[batch]], queries.seeds[batch], where


def _write(folder, count, prints, representations, granted, account) -> None:
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
    folder, account, mesh
) -> tuple[list[np.ndarray], list[np.ndarray], dict[bytes, int], OracleState]:
    """All stored answers, which were granted, where each is, and the account after the last."""
    held, given, known = [], [], {}
    parts = sorted(folder.glob('part-*.npz')) if folder.exists() else []
    for path in parts:
        part = files.read_npz(path)
        if len(known) != int(path.stem.split('-')[1]):
            raise UserError(f'{folder}: a part before {path.name} is missing; remove the folder')
        known |= {bytes(p): len(known) + i for i, p in enumerate(part['fingerprints'])}
        held.append(part['representations'])
        given.append(part['granted'])
    if parts:
        leaves, treedef = jax.tree.flatten(account)
        kept = files.read_npz(folder / f'account-{len(known):010d}.npz')
        if len(kept) != len(leaves):
            raise UserError(f'{folder}: its account is of another defense; give each its folder')
        restored = [
            jax.random.wrap_key_data(kept[str(i)])
            if _is_key(leaf)
            else jnp.asarray(kept[str(i)], leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        account = parallel.replicate(jax.tree.unflatten(treedef, restored), mesh)
    return held, given, known, account


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
