"""Adaptations of legitimate users to a defense.

A user repairs the answers with the recoveries of adaptive attackers (`ssl_extract.recovery`), may
ask each input several times and average, and chooses among such adaptations on validation inputs of
its own. The test inputs play no part in the choice.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_extract import recovery
from ssl_extract.errors import UserError
from ssl_extract.recovery import Received, Shadow
from ssl_extract.users.kinds import Predict

FOLDS, FEW = 5, 500  # parts of the labeled inputs; with up to FEW each part is held out in turn
Fit = Callable[[np.ndarray, np.ndarray], Predict | None]  # features [N, D], labels [N]


class Adapted(NamedTuple):
    """A user's answers after an adaptation, one to each query.

    Attributes:
        name: the adaptation in a few words; '' is none.
        features: float32 [N, D], the mean of the answers to a query that the adaptation left. Where
            all were dropped, the mean of the answers as they came; zeros where none came.
        granted: bool [N], the queries that were answered.
        kept: bool [N], the queries of which the adaptation left an answer; a classifier is fitted
            to those.
    """

    name: str
    features: np.ndarray
    granted: np.ndarray
    kept: np.ndarray


class Labeled(NamedTuple):
    """The labels of a user's first queries, and the inputs that they are views of.

    Attributes:
        labels: int [M].
        inputs: int [M], the number of the input of each query.
    """

    labels: np.ndarray
    inputs: np.ndarray


def check(recover: str) -> None:
    """Checks that users can do what a chain of recoveries does.

    Raises:
        UserError: a part is unknown, has a wrong argument, or needs an encoder of the attacker's.
    """
    recovery.make(recover)
    if recovery.needs(recover):
        raise UserError(
            f"{recover!r} learns from an encoder of the attacker's own, and users have none; leave "
            'it out'
        )


def adapt(received: Received, recover: str = '') -> Adapted:
    """Repairs the answers to queries, and averages those to the same query.

    >>> answers = np.array([[[0.0], [2.0]], [[3.0], [3.0]], [[4.0], [999.0]]], np.float32)
    >>> received = Received(None, answers, np.ones((3, 2), bool))
    >>> adapt(received, 'drop_outliers').features.ravel().tolist()
    [1.0, 3.0, 4.0]

    Args:
        received: the answers [N, m, D] to all that the user asked, tests included.
        recover: the chain of recoveries; '' is none.
    """
    granted, came = received.answered.any(axis=1), _mean(received)
    repaired = received
    if recover and granted.any():
        repaired = recovery.make(recover)(received, Shadow(_no_encoder, 0))
    kept, repeats = repaired.answered.any(axis=1), received.answered.shape[1]
    features = np.where(kept[:, None], _mean(repaired), came)
    words = [f'mean of {repeats}'] * (repeats > 1) + [recover] * bool(recover)
    return Adapted(', '.join(words), features, granted, kept)


def choose(adapted: Sequence[Adapted], labeled: Labeled, fit: Fit, seed: int) -> int:
    """Chooses the adaptation with the best accuracy on validation inputs; at a tie the first.

    A fifth of the labeled inputs is held out, with all views of each; of few labeled inputs each
    fifth in turn, for their number says little. A validation query without an answer counts as
    wrong, as a test query does.

    Args:
        adapted: the user's answers after each adaptation, the simplest first.
        labeled: the user's labels; the first queries are the labeled ones.
        fit: the user's classifier of features and labels; None of fewer than two classes.
        seed: of the validation inputs.

    Returns:
        The position of the chosen adaptation.
    """
    inputs = np.unique(labeled.inputs)
    if len(adapted) < 2 or len(inputs) < FOLDS:
        return 0
    parts = np.array_split(np.random.default_rng((seed, 9)).permutation(inputs), FOLDS)
    parts = parts if len(inputs) <= FEW else parts[:1]
    folds = [np.isin(labeled.inputs, part) for part in parts]
    right = [sum(_num_right(each, labeled.labels, f, fit) for f in folds) for each in adapted]
    return int(np.argmax(right))


def _num_right(adapted: Adapted, labels: np.ndarray, held_out: np.ndarray, fit: Fit) -> int:
    features, granted, kept = (rows[: len(labels)] for rows in adapted[1:])
    learned = kept & ~held_out
    classify = fit(features[learned], labels[learned])
    if classify is None:
        return 0
    right = classify(features[held_out]) == labels[held_out]
    return int(np.sum(right & granted[held_out]))


def _mean(received: Received) -> np.ndarray:
    """Returns the mean of the answers to each query, float32 [N, D]; zeros where there is none."""
    where = received.answered[..., None]
    total = np.where(where, received.answers, 0).sum(axis=1, dtype=np.float64)
    return (total / np.maximum(where.sum(axis=1), 1)).astype(np.float32)


def _no_encoder(inputs: np.ndarray) -> np.ndarray:
    raise UserError('a user has no encoder to learn a recovery from')
