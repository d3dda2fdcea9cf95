"""The answer store and the bill: what an account asked, what it got, what it owes.

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
    """What is to be asked: row q is the view `seeds[q]` of `images[index[q]]`.

    Attributes:
        inputs: uint8[N, H, W, 3].
        index: int32[Q].
        seeds: uint32[Q]; where the image is asked as it is, 0, and 1, 2, ... to ask it again.
        view: `(images float32[B, H, W, 3], seeds uint32[B]) -> queries`, a pure function, the same
            object for the same plan, so that it is compiled once; None asks the images.
    """

    inputs: np.ndarray
    index: np.ndarray
    seeds: np.ndarray
    view: Callable[..., jax.Array] | None = None


def plain(images: np.ndarray) -> Queries:
    """Every image as it is, once."""
    return Queries(images, np.arange(len(images)), np.zeros(len(images), np.uint32))


def collect(
    folder: epath.Path,
    oracle: Oracle,
    key: jax.Array,
    queries: Queries,
    *,
    budget: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    description: str = 'ask',
) -> Answers:
    """Answers to `queries`, in their order; asks the oracle only what the store does not hold.

    Args:
        folder: the store of one account; another victim, defense or seed needs another folder.
        key: the account's key, used when the account is opened.
        budget: of the oracle; a store may already hold more, from a run with a larger one.

    Raises:
        UserError: there are more different queries than the budget allows.
    """
    contents, prints = _fingerprints(queries, batch_size, mesh)
    wanted = dict.fromkeys(map(bytes, prints))
    if len(wanted) > budget:
        raise UserError(
            f'{len(wanted)} different images were to be asked with a budget of {budget}'
        )
    account = oracle.init(key, jnp.zeros((batch_size, *queries.inputs.shape[1:])))
    account = parallel.replicate(account, mesh)
    held, given, known, account = _read(folder, account, mesh)
    first = {fingerprint: i for i, fingerprint in reversed(list(enumerate(map(bytes, prints))))}
    missing = [first[p] for p in wanted if p not in known]
    query = _compile_query(queries.view, mesh)
    with progress.progress(total=len(missing), desc=description, unit='query') as bar:
        for start in range(0, len(missing), PART_SIZE):
            rows = np.array(missing[start : start + PART_SIZE])
            answers, granted = [], []
            for images, seeds, where in _batches(queries, rows, batch_size):
                answer, account = query(account, oracle, images, seeds, where)
                answers.append(np.asarray(answer.representations)[where])
                granted.append(np.asarray(answer.granted)[where])
                bar.update(int(where.sum()))
            answers, granted = np.concatenate(answers), np.concatenate(granted)
            held.append(answers)
            given.append(granted)
            spent = int(account.num_queries + account.num_withheld)
            if spent != len(known) + len(rows):
                raise UserError(
                    f'{folder}: the account is spent: it holds more answers than a budget '
                    f'of {budget} pays for, and not those asked for; remove the folder'
                )
            _write(folder, len(known), prints[rows], answers, granted, account)
            known |= {bytes(p): len(known) + i for i, p in enumerate(prints[rows])}
    places = np.array([known[bytes(p)] for p in prints])
    granted = np.concatenate(given)[places]
    return Answers(
        np.concatenate(held)[places],
        granted,
        _bill(queries, prints, contents, granted),
        defenses.noticed(account.defense),
    )


def _bill(queries: Queries, prints: np.ndarray, contents: np.ndarray, granted: np.ndarray) -> Bill:
    """The bill of stored answers: whoever asks the same view twice in `queries` sends it once."""
    _, sent = np.unique(prints, axis=0, return_index=True)
    paid = sent[granted[sent]]
    what = contents if queries.view is None else prints  # unseeded, what is sent is the image
    return make_bill(what[paid], refused=len(sent) - len(paid))


@functools.lru_cache(maxsize=32)
def _compile_query(view: Callable | None, mesh: jax.sharding.Mesh) -> Any:
    def query(account: OracleState, oracle: Oracle, images, seeds, where):
        images = augment.to_float(images)
        return oracle.query(view(images, seeds) if view else images, account, where)

    return parallel.compile_query(query, mesh)


@functools.cache
def _compile_fingerprint(mesh: jax.sharding.Mesh) -> Any:
    return parallel.compile_init(lambda images: fingerprint(augment.to_float(images)), mesh)


def _fingerprints(
    queries: Queries, batch_size: int, mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """uint32[Q, 2] of each image, and of image and seed.

    The view's own would differ with the hardware's rounding.
    """
    compute, every = _compile_fingerprint(mesh), plain(queries.inputs)
    batches = _batches(every, every.index, batch_size)
    prints = np.concatenate([np.asarray(compute(images))[where] for images, _, where in batches])
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
