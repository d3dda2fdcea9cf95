"""Sybils: accounts that share queries, and maps between their answers.

Sybils attack a defense that counts the queries of an account, or that gives each account another
transformation of the representations (B4B, arXiv 2310.08571, section 3.5). All accounts ask the
first `overlap` inputs. The answers to the overlap determine a map from each account's answers to
those of the first account; of D coordinates, through noise, from about 5 D inputs on. Without an
overlap no map is fitted: the answers stay apart, for an attack with an adapter for each account.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ssl_extract.checks import check_whole
from ssl_extract.errors import UserError
from ssl_extract.recovery.base import Received

PENALTIES = tuple(10.0**power for power in range(-10, 3))


def num_images(budget: int, accounts: int, overlap: int) -> int:
    """Returns the number of different inputs that `budget` pays for.

    >>> num_images(1_000, 4, 100)
    700

    Args:
        budget: number of inputs asked by all accounts together.
        accounts: number of accounts; a single account has no overlap.
        overlap: number of inputs that all accounts ask.

    Raises:
        UserError: an argument is not a whole number of at least 1 (the overlap: 0), or the budget
            leaves an account nothing but the overlap.
    """
    for name, value, least in (
        ('attack.budget', budget, 1),
        ('attack.accounts', accounts, 1),
        ('attack.overlap', overlap, 0),
    ):
        check_whole(name, value, least)
    if accounts == 1:
        return budget
    if budget < accounts * (overlap + 1):
        raise UserError(
            f'attack.overlap={overlap}: {accounts} accounts that all ask {overlap} inputs, and one '
            f'of their own each, need a budget of {accounts * (overlap + 1)} inputs, and it is '
            f'{budget}: lower attack.overlap or attack.accounts, or raise attack.budget'
        )
    return budget - (accounts - 1) * overlap


def deal(num_images: int, accounts: int, overlap: int) -> list[np.ndarray]:
    """Deals the inputs out to accounts: the first `overlap` to all, the others one by one.

    With more inputs each account gets the same inputs and more.

    >>> [indices.tolist() for indices in deal(7, 2, 2)]
    [[0, 1, 2, 4, 6], [0, 1, 3, 5]]

    Returns:
        int [N_j] for each account, ascending indices below `num_images`.
    """
    if accounts == 1:
        return [np.arange(num_images)]
    shared, rest = np.arange(overlap), np.arange(overlap, num_images)
    return [np.concatenate([shared, rest[j::accounts]]) for j in range(accounts)]


def fit_map(
    source: np.ndarray, target: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a ridge regression with an intercept from rows of `source` to rows of `target`.

    The penalty is the one with the least leave-one-out error. More rows than columns determine an
    existing linear map; further rows average noise out.

    >>> source = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [3.0, 5.0]])
    >>> second = fit_map(source, source[:, 1:])
    >>> second(np.array([[7.0, 4.0]])).round(4).tolist()
    [[4.0]]

    Args:
        source: float [K, D1].
        target: float [K, D2], of the same queries.
        penalties: squared-norm penalties, as shares of the mean eigenvalue of the source's
            scatter matrix.

    Returns:
        float [M, D1] -> float32 [M, D2].
    """
    from sklearn.linear_model import RidgeCV  # takes a second to import

    source, target = (np.asarray(x, np.float64) for x in (source, target))
    scale = np.square(source - source.mean(axis=0)).sum() / source.shape[1]
    if scale == 0:  # constant answers determine no map
        mean = target.mean(axis=0, dtype=np.float64).astype(np.float32)
        return lambda rows: np.tile(mean, (len(rows), 1))
    ridge = RidgeCV(alphas=[p * scale for p in penalties]).fit(source, target)
    shape = (-1, target.shape[1])
    return lambda rows: ridge.predict(np.asarray(rows, np.float64)).reshape(shape).astype('float32')


def merge(received: Sequence[Received], overlap: int) -> Received:
    """Merges the answers of all accounts in the first account's space, in the order of the inputs.

    An input of the overlap keeps the first account's answers. Without an overlap all answers stay
    as they are.

    Args:
        received: of each account, the inputs as `deal` gave them; the same views of the overlap.
        overlap: number of inputs that all accounts asked.

    Raises:
        UserError: another account has fewer than two answers to the overlap.
    """
    first, *others = received
    if not others:
        return first
    parts = [first]
    for number, other in enumerate(others, 1):
        both = first.answered[:overlap] & other.answered[:overlap]
        if overlap == 0:
            parts.append(other)
            continue
        if both.sum() < 2:
            raise UserError(
                f'attack.overlap={overlap}: accounts 0 and {number} have {both.sum()} answers to '
                f'the same queries, and a map needs at least 2: raise attack.overlap'
            )
        mapped = fit_map(other.answers[:overlap][both], first.answers[:overlap][both])
        share = Received(*(rows[overlap:] for rows in other))
        answers = np.zeros((*share.answered.shape, first.answers.shape[-1]), np.float32)
        if share.answered.any():
            answers[share.answered] = mapped(share.answers[share.answered])
        parts.append(share._replace(answers=answers))
    number = sum(len(part.inputs) for part in parts)
    dealt = deal(number, len(received), overlap)
    order = np.argsort(np.concatenate([dealt[0], *(rows[overlap:] for rows in dealt[1:])]))
    return Received(*(np.concatenate(rows)[order] for rows in zip(*parts, strict=True)))
