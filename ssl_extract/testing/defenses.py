"""The contract of a defense, tried behind an oracle on random queries."""

import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import defenses
from ssl_extract.contract import Contract, raw, require, require_same
from ssl_extract.defenses import Defense
from ssl_extract.oracle import Oracle, make_oracle
from ssl_extract.runtime import parallel

_DIM, _QUERIES, _BATCH, _BUDGET = 8, 64, 16, 60
_SCALE = np.random.default_rng(0).uniform(1, 3, _DIM).astype(np.float32)
_ALL = np.ones(_BATCH, bool)
_TOLERANCE = 1e-5

_ask = jax.jit(lambda oracle, inputs, account, where: oracle.query(inputs, account, where))
_open = jax.jit(lambda oracle, key, inputs: oracle.init(key, inputs))
_open_many = jax.jit(
    lambda oracle, keys, inputs: jax.vmap(lambda key: oracle.init(key, inputs))(keys)
)
_ask_many = jax.jit(lambda oracle, *args: jax.vmap(oracle.query)(*args))


def check_defense(
    defense: Defense | str,
    *,
    answer: Callable[[jax.Array], jax.Array] | None = None,
    **parts: Any,
) -> None:
    """Tries the contract of `defenses.Defense`, and prints each clause that holds.

    The defense stands behind an oracle with a budget of 60 queries. The trial sends 64 random
    images, near and exact copies among them.

    Args:
        defense: the defense to try, or its spec or chain.
        answer: the victim, a JAX function `images [B, 2, 2, 3] -> [B, D]`; None for
            representations of width 8, or for probabilities where the spec defends only these.
        **parts: the owner's arguments to the factory of a spec, such as `head=`.

    Raises:
        UserError: names the first clause that the defense breaks.
    """
    if isinstance(defense, str):
        traits = defenses.DEFENSES.traits_of_chain(defense)
        of_posteriors = any(t.endpoints and 'representation' not in t.endpoints for t in traits)
        answer = answer or (_posteriors if of_posteriors else _representations)
        defense = defenses.make(defense, **parts)
    victim = jax.tree_util.Partial(answer or _representations)
    oracle, queries = make_oracle(victim, defense, budget=_BUDGET), _queries()
    contract = Contract('the defense')
    _check_init(contract, defense, victim, queries)
    expected, accounts = _check_apply(contract, defense, oracle, victim, queries)
    _check_batches(contract, oracle, queries, expected, accounts)
    _check_padding(contract, oracle, queries, expected, accounts)
    _check_accounts(contract, oracle, queries)
    _check_devices(contract, oracle, queries, expected, accounts)
    _check_saved(contract, oracle, queries, expected, accounts)


def _representations(images: jax.Array) -> jax.Array:
    return jnp.sin(images.reshape(len(images), -1)[:, :_DIM] * _SCALE[None])


def _posteriors(images: jax.Array) -> jax.Array:
    """Returns probabilities of some images, and one class for sure of the others."""
    logits = _representations(images)
    labels = jax.nn.one_hot(jnp.argmax(logits, axis=1), _DIM)
    return jnp.where(images[:, 1, 1, 2:] > 0, labels, jax.nn.softmax(logits))


def _queries() -> np.ndarray:
    """Makes float32[64, 2, 2, 3]: new images and copies, in one batch and across batches."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(_QUERIES, 2, 2, 3))
    images[20:28] = images[2:10] + 0.01 * rng.normal(size=(8, 2, 2, 3))
    images[34:38] = images[33]
    images[40:48] = images[3:11]
    return images.astype(np.float32)


def _check_init(contract: Contract, defense: Defense, victim: Any, queries: np.ndarray) -> None:
    inputs = jnp.asarray(queries[:_BATCH])
    key, outputs = jax.random.key(3), victim(inputs)
    with contract.clause('init gives the same state of shapes as of arrays'):
        shapes = jax.eval_shape(lambda: (outputs, inputs))
        require_same(defense.init(key, *shapes), defense.init(key, outputs, inputs))


def _check_apply(
    contract: Contract, defense: Defense, oracle: Oracle, victim: Any, queries: np.ndarray
) -> tuple[Any, list[Any]]:
    """Returns the answers to all queries, and the account after 0, 1, ... 4 batches."""
    with contract.clause('apply gives float [B, E], bool [B], and a state of unchanged types'):
        account = _open(oracle, jax.random.key(0), queries[:1])
        inputs, where = jnp.asarray(queries[:_BATCH]), jnp.arange(_BATCH) < 13
        keys = jax.vmap(lambda n: jax.random.fold_in(account.key, n))(jnp.arange(_BATCH))
        outputs, answered, state = defense.apply(
            victim(inputs), account.defense, inputs=inputs, where=where, keys=keys
        )
        shown = f'it gives {outputs.dtype}{list(outputs.shape)}'
        floats = jnp.issubdtype(outputs.dtype, jnp.floating)
        require(floats and outputs.ndim == 2 and len(outputs) == _BATCH, shown)
        shown = f'where is {answered.dtype}{list(answered.shape)}'
        require(answered.dtype == bool and answered.shape == (_BATCH,), shown)
        types = jax.tree.map(jax.typeof, (state, account.defense))
        require(types[0] == types[1], f'{types[1]} became {types[0]}')
    with contract.clause('apply answers no query that was not to be answered'):
        require(not np.any(answered & ~where))
    with contract.clause('apply gives the same compiled'):
        answer, after = _ask(oracle, queries[:_BATCH], account, where)
        zeroed = np.where(answered[:, None], outputs, 0)
        require_same((zeroed, answered), tuple(answer), _TOLERANCE)
        require_same(state, after.defense, _TOLERANCE)
    accounts, batches = [account], []
    for start in range(0, _QUERIES, _BATCH):
        answer, after = _ask(oracle, queries[start : start + _BATCH], accounts[-1], _ALL)
        accounts.append(after)
        batches.append(answer)
    answers = _joined(batches)
    with contract.clause('answers are finite, and so is what the defense notices'):
        require(np.all(np.isfinite(answers.representations)), 'not all answers are')
        for name, value in defenses.noticed(accounts[1].defense).items():
            require(np.isfinite(value), f'{name} is {value}')
    return answers, accounts


def _check_batches(
    contract: Contract, oracle: Oracle, queries: np.ndarray, expected: Any, accounts: list[Any]
) -> None:
    with contract.clause('answers do not depend on how queries are batched'):
        answer, account = _ask(oracle, queries, accounts[0], np.ones(_QUERIES, bool))
        require_same(tuple(answer), tuple(expected), _TOLERANCE)
        require_same(account, accounts[-1], _TOLERANCE)
    with contract.clause('queries beyond the budget change nothing'):
        _, account = _ask(oracle, queries[:_BATCH], accounts[-1], _ALL)
        require_same(account.defense, accounts[-1].defense)


def _check_padding(
    contract: Contract, oracle: Oracle, queries: np.ndarray, expected: Any, accounts: list[Any]
) -> None:
    with contract.clause('padding changes nothing, whatever it holds'):
        rng, parts, account = np.random.default_rng(2), [], accounts[0]
        for rows in np.split(queries, 2):  # spread among padding that looks like a query
            where = rng.permutation(_QUERIES) < _QUERIES // 2
            batch = rng.permutation(queries)
            batch[where] = rows
            answer, account = _ask(oracle, batch, account, where)
            parts.append(jax.tree.map(lambda rows, where=where: np.asarray(rows)[where], answer))
        require_same(tuple(_joined(parts)), tuple(expected), _TOLERANCE)
        require_same(account, accounts[-1], _TOLERANCE)
        nothing, account = _ask(oracle, 10 + queries[-_BATCH:], accounts[1], ~_ALL)
        require_same(account, accounts[1])
        require(not np.any(nothing.granted))


def _check_accounts(contract: Contract, oracle: Oracle, queries: np.ndarray) -> None:
    with contract.clause('accounts side by side, under vmap, are accounts alone'):
        keys = jax.vmap(jax.random.key)(jnp.arange(3))
        together = _open_many(oracle, keys, queries[:1])
        alone = [_open(oracle, jax.random.key(seed), queries[:1]) for seed in range(3)]
        streams = np.stack([queries[:32], queries[31::-1], queries[32:]])
        streams = streams.reshape(3, 2, _BATCH, *queries.shape[1:])
        where = np.stack([_ALL, np.arange(_BATCH) < 5, np.arange(_BATCH) % 2 == 0])
        for batch in (0, 1):
            answers, together = _ask_many(oracle, streams[:, batch], together, where)
            for i in range(3):
                answer, alone[i] = _ask(oracle, streams[i, batch], alone[i], where[i])
                mine = jax.tree.map(lambda x, i=i: x[i], (answers, together))
                require_same(mine, (answer, alone[i]), _TOLERANCE)


def _check_devices(
    contract: Contract, oracle: Oracle, queries: np.ndarray, expected: Any, accounts: list[Any]
) -> None:
    mesh = parallel.data_mesh()
    if _BATCH % mesh.size:
        mesh = parallel.data_mesh(2)
    with contract.clause(f'{mesh.size} devices answer like one'):
        query = parallel.compile_query(_query, mesh)
        account, parts = parallel.replicate(jax.tree.map(jnp.copy, accounts[0]), mesh), []
        for start in range(0, _QUERIES, _BATCH):
            inputs, seeds = queries[start : start + _BATCH], np.zeros(_BATCH, np.uint32)
            answer, account = query(account, oracle, inputs, seeds, _ALL)
            parts.append(answer)
        require_same(tuple(_joined(parts)), tuple(expected), _TOLERANCE)
        require_same(account, accounts[-1], _TOLERANCE)


def _query(account: Any, oracle: Oracle, inputs: jax.Array, seeds: Any, where: jax.Array) -> Any:
    del seeds
    return oracle.query(inputs, account, where)


def _check_saved(
    contract: Contract, oracle: Oracle, queries: np.ndarray, expected: Any, accounts: list[Any]
) -> None:
    with contract.clause('a state that was saved goes on exactly'):
        account, parts = _stored(accounts[2]), []
        for start in (32, 48):
            answer, account = _ask(oracle, queries[start : start + _BATCH], account, _ALL)
            parts.append(answer)
        rest = jax.tree.map(lambda x: x[32:], expected)
        require_same(tuple(_joined(parts)), tuple(rest))
        require_same(account, accounts[-1])


def _stored(account: Any) -> Any:
    """Returns the account as it comes back from disk."""
    leaves, treedef = jax.tree.flatten(account)
    file = io.BytesIO()
    np.savez(file, **{str(i): leaf for i, leaf in enumerate(raw(account))})
    file.seek(0)
    stored = np.load(file, allow_pickle=False)
    back = [
        jax.random.wrap_key_data(stored[str(i)])
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.asarray(stored[str(i)])
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, back)


def _joined(answers: list[Any]) -> Any:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *answers)
