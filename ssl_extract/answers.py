"""The answer store and the bill: what an account asked, what it got, what it owes.

The store is a folder of numbered parts, append-only: the answers of one account in the order it
asked, each under the fingerprint of the image that was sent, and the account's state after them.
Answer and bill are one file, so a run killed anywhere has either both or neither, and a query whose
answer is stored is never sent again.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import augment, files, metrics, parallel
from ssl_extract.errors import UserError
from ssl_extract.oracle import Oracle, OracleState

PART_SIZE = 2048  # answers in a part: what a kill can cost in repeated computation


class Bill(NamedTuple):
    """What the queries of one attack cost its account, in queries (one view sent is one query).

    Attributes:
        billed: granted queries; each is paid for.
        unique: how many different inputs were among them.
        repeated: `billed - unique`, inputs that were paid for again.
        refused: queries sent after the budget was spent.
    """

    billed: int
    unique: int
    repeated: int
    refused: int


class Answers(NamedTuple):
    """The stored answers to `Queries`: representations float32[Q, D], and what they cost."""

    representations: np.ndarray
    bill: Bill


def fingerprint(inputs: jax.Array) -> jax.Array:
    """A 64-bit content hash of every image [B, ...], as uint32[B, 2]; runs on the device.

    Two multilinear hashes of the scrambled words (Lemire and Kaser, "Strongly universal string
    hashing is fast", 2014); equal inputs have equal fingerprints, and a million different ones
    collide with probability 3e-8.
    """
    words = jax.lax.bitcast_convert_type(inputs.astype(jnp.float32), jnp.uint32)
    words = words.reshape(words.shape[0], -1)
    words = (words ^ (words >> 15)) * np.uint32(0x2C1B3C6D)
    words = (words ^ (words >> 12)) * np.uint32(0x297A2D39)
    words = words ^ (words >> 15)
    random = np.random.default_rng(2022).integers(2**32, size=(2, words.shape[1]), dtype=np.uint32)
    return jnp.stack([jnp.sum(words * (r | 1), axis=1, dtype=jnp.uint32) for r in random], axis=1)


def make_bill(asked: np.ndarray, refused: int = 0) -> Bill:
    """The bill for granted queries with the fingerprints `asked` uint32[Q, 2]."""
    unique = len(np.unique(asked, axis=0))
    return Bill(len(asked), unique, len(asked) - unique, int(refused))


class Queries(NamedTuple):
    """What is to be asked: row q is the view `seeds[q]` of `images[index[q]]`.

    Attributes:
        images: uint8[N, H, W, 3].
        index: int32[Q].
        seeds: uint32[Q]; 0 where the image is asked as it is.
        view: `(images float32[B, H, W, 3], seeds uint32[B]) -> queries`, a pure function, the same
            object for the same plan, so that it is compiled once; None asks the images.
    """

    images: np.ndarray
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
    prints = _fingerprints(queries, batch_size, mesh)
    wanted = dict.fromkeys(map(bytes, prints))
    if len(wanted) > budget:
        raise UserError(
            f'{len(wanted)} different images were to be asked with a budget of {budget}'
        )
    account = oracle.init(key, jnp.zeros((batch_size, *queries.images.shape[1:])))
    account = parallel.replicate(account, mesh)
    held, known, account = _read(folder, account, mesh)
    first = {fingerprint: i for i, fingerprint in reversed(list(enumerate(map(bytes, prints))))}
    missing = [first[p] for p in wanted if p not in known]
    query = _compile_query(queries.view, mesh)
    with metrics.progress(total=len(missing), desc=description, unit='query') as bar:
        for start in range(0, len(missing), PART_SIZE):
            rows = np.array(missing[start : start + PART_SIZE])
            answers = []
            for images, seeds, where in _batches(queries, rows, batch_size):
                answer, account = query(account, oracle, images, seeds, where)
                granted = np.asarray(answer.granted)
                if granted.sum() != where.sum():
                    raise UserError(
                        f'{folder}: the account is spent: it holds more answers than a budget '
                        f'of {budget} pays for, and not those asked for; remove the folder'
                    )
                answers.append(np.asarray(answer.representations)[granted])
                bar.update(int(granted.sum()))
            answers = np.concatenate(answers)
            _write(folder, len(known), prints[rows], answers, account)
            known |= {bytes(p): len(known) + i for i, p in enumerate(prints[rows])}
            held.append(answers)
    stored = np.concatenate(held)
    return Answers(
        stored[[known[bytes(p)] for p in prints]],
        Bill(billed=len(wanted), unique=len(wanted), repeated=0, refused=0),
    )


@functools.lru_cache(maxsize=32)
def _compile_query(view: Callable | None, mesh: jax.sharding.Mesh) -> Any:
    def query(account: OracleState, oracle: Oracle, images, seeds, where):
        images = augment.to_float(images)
        return oracle.query(view(images, seeds) if view else images, account, where)

    return parallel.compile_query(query, mesh)


@functools.cache
def _compile_fingerprint(mesh: jax.sharding.Mesh) -> Any:
    return parallel.compile_init(lambda images: fingerprint(augment.to_float(images)), mesh)


def _fingerprints(queries: Queries, batch_size: int, mesh: jax.sharding.Mesh) -> np.ndarray:
    """uint32[Q, 2], of image and seed: the view's own would differ with the hardware's rounding."""
    compute, every = _compile_fingerprint(mesh), plain(queries.images)
    batches = _batches(every, every.index, batch_size)
    prints = np.concatenate([np.asarray(compute(images))[where] for images, _, where in batches])
    return prints[queries.index] + queries.seeds[:, None] * np.uint32([0x9E3779B1, 0x85EBCA77])


def _batches(queries: Queries, rows: np.ndarray, batch_size: int) -> Iterator[tuple]:
    """(images, seeds, where) of `rows`; all batches have one size, so that it is compiled once."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        where = np.arange(batch_size) < len(batch)
        batch = np.pad(batch, (0, batch_size - len(batch)))
        yield queries.images[queries.index[batch]], queries.seeds[batch], where


def _write(folder, count, prints, representations, account) -> None:
    leaves = [_raw(leaf) for leaf in jax.tree.leaves(account)]
    files.write_npz(
        folder / f'part-{count:010d}.npz',
        fingerprints=prints,
        representations=representations,
        **{f'account_{i}': np.asarray(leaf) for i, leaf in enumerate(leaves)},
    )


def _read(folder, account, mesh) -> tuple[list[np.ndarray], dict[bytes, int], OracleState]:
    """All stored answers, where each fingerprint's answer is, and the account after the last."""
    held, known = [], {}
    parts = sorted(folder.glob('part-*.npz')) if folder.exists() else []
    for path in parts:
        part = files.read_npz(path)
        if len(known) != int(path.stem.split('-')[1]):
            raise UserError(f'{folder}: a part before {path.name} is missing; remove the folder')
        known |= {bytes(p): len(known) + i for i, p in enumerate(part['fingerprints'])}
        held.append(part['representations'])
    if parts:
        leaves, treedef = jax.tree.flatten(account)
        stored = [part[f'account_{i}'] for i in range(len(leaves))]
        restored = [
            jax.random.wrap_key_data(s) if _is_key(leaf) else jnp.asarray(s, leaf.dtype)
            for s, leaf in zip(stored, leaves, strict=True)
        ]
        account = parallel.replicate(jax.tree.unflatten(treedef, restored), mesh)
    return held, known, account


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
