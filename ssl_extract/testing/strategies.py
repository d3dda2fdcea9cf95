"""The contract of a query strategy, tried on a small random pool."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

from ssl_extract import strategies
from ssl_extract.contract import Contract, require
from ssl_extract.errors import UserError
from ssl_extract.strategies import Seen, Strategy

_SIZE, _CLASSES, _SIDE = 60, 4, 4


def check_strategy(strategy: Strategy | str, *, labeled: bool = True) -> None:
    """Tries the contract of `strategies.Strategy`, and prints each clause that holds.

    The victim and the surrogate of the trial are one linear map of 60 random images, and answers
    are probabilities.

    >>> check_strategy('random')  # doctest: +ELLIPSIS
    the query strategy: it chooses in 1 round or more
    ...
    the query strategy: it stops where the pool is too small

    Args:
        strategy: the strategy to try, or its spec.
        labeled: whether the pool has labels.

    Raises:
        UserError: names the first clause that the strategy breaks.
    """
    strategy = strategies.make(strategy) if isinstance(strategy, str) else strategy
    contract, see = Contract('the query strategy'), _pool(labeled)
    with contract.clause('it chooses in 1 round or more'):
        rounds = strategy.rounds
        require(isinstance(rounds, int) and rounds >= 1, f'rounds={rounds!r}')
    counts = [len(part) for part in np.array_split(np.arange(6 * rounds + 1), rounds)]
    whole = [len(part) for part in np.array_split(np.arange(_SIZE), rounds)]
    for asks in (counts, whole) if sum(counts) < _SIZE else (whole,):
        with contract.clause(f'of {_SIZE} inputs it asks {sum(asks)}, as told, and none twice'):
            _run(strategy, see, asks)
    with contract.clause('it leaves what it is given alone'):
        seen = see(np.arange(3, dtype=np.int32), 1 if rounds > 1 else 0)
        before = {k: v.copy() for k, v in seen._asdict().items() if isinstance(v, np.ndarray)}
        state = _run(strategy, see, [3])[1] if rounds > 1 else {}
        held = {k: v.copy() for k, v in state.items()}
        strategy.choose(seen, 5, state)
        for name, array in before.items():
            require(np.array_equal(array, getattr(seen, name)), f'it changed {name}')
        require(all(np.array_equal(held[k], state[k]) for k in held), 'it changed the state')
    with contract.clause('it chooses the same again, its state kept in memory or on disk'):
        first, state = _run(strategy, see, counts)
        again, unstored = _run(strategy, see, counts, keep=lambda state: state)
        require(np.array_equal(first, again), 'another choice')
        require(state.keys() == unstored.keys(), 'another state')
        same = [np.array_equal(state[k], unstored[k], equal_nan=True) for k in state]
        require(all(same), 'another state')
    with contract.clause('it chooses others under another seed'):
        require(not np.array_equal(first, _run(strategy, see, counts, seed=4)[0]))
    with contract.clause('it stops where the pool is too small'):
        try:
            strategy.choose(see(np.arange(_SIZE - 4, dtype=np.int32), 0), 5, {})
        except UserError:
            pass
        else:
            raise AssertionError('it raised no UserError')


def _pool(labeled: bool) -> Callable[..., Seen]:
    """Makes `(asked, round, seed) -> Seen` of a random pool and a linear victim."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_SIZE, _SIDE, _SIDE, 3), dtype=np.uint8)
    weights = rng.normal(size=(_SIDE * _SIDE * 3, _CLASSES)).astype(np.float32)

    def logits(images: np.ndarray) -> np.ndarray:
        return (images.reshape(-1, len(weights)) / np.float32(255) - 0.5) @ weights

    def see(indices: np.ndarray, number: int, seed: int = 3) -> Seen:
        return Seen(
            inputs=images.copy(),
            labels=np.arange(_SIZE, dtype=np.int32) % _CLASSES if labeled else None,
            asked=indices,
            answers=softmax(logits(images[indices]), axis=1).astype(np.float32),
            represent=logits if number else None,
            predict=logits if number else None,
            seed=seed,
            round=number,
        )

    return see


def _stored(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the state as it comes back from disk."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def _run(
    strategy: Strategy,
    see: Callable[..., Seen],
    counts: list[int],
    keep: Callable[[dict], dict] = _stored,
    **kwargs: Any,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Runs all rounds; returns the indices in the order of asking, and the last state."""
    indices, state = np.empty(0, np.int32), {}
    for number, count in enumerate(counts):
        chosen, state = strategy.choose(see(indices, number, **kwargs), count, state)
        shown = getattr(chosen, 'dtype', type(chosen)), np.shape(chosen)
        require(
            isinstance(chosen, np.ndarray) and shown == (np.dtype(np.int32), (count,)),
            f'it chose {shown[0]}{list(shown[1])}, not int32[{count}]',
        )
        require(np.all((chosen >= 0) & (chosen < _SIZE)), 'it chose what is not in the pool')
        indices = np.concatenate([indices, chosen])
        require(len(np.unique(indices)) == len(indices), 'it chose an input twice')
        state = keep(state)
    return indices, state
