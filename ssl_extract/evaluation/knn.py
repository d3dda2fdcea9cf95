"""Nearest-neighbor and few-shot classifiers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import numerics
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.evaluation.features import check_features, check_labels, check_training_set
from ssl_extract.evaluation.probe import standardization

_BLOCK = 2**24  # similarities in memory at a time


def knn_predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    num_classes: int,
    *,
    k: int | None = None,
    temperature: float = 0.5,
) -> np.ndarray:
    """Predicts classes by the k training features of largest cosine, weighted exp(cosine / T).

    Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (CVPR
    2018), section 3.4, with k = 200 and T = 0.07. The monitors of SimCLR and of the extraction
    attacks use T = 0.5. `temperature=math.inf` counts all k neighbors alike.

    Args:
        train_features: float [M, D].
        train_labels: int [M] in [0, num_classes).
        test_features: float [N, D].
        num_classes: of the task.
        k: neighbors; None takes min(200, M).
        temperature: T > 0.

    Returns:
        int32 [N].

    Raises:
        UserError: wrong features or labels, k > M, T <= 0.
    """
    train_features, train_labels = check_training_set(train_features, train_labels, num_classes)
    test_features = check_features(test_features, 'test features', width=train_features.shape[1])
    k = min(200, len(train_features)) if k is None else k
    if not temperature > 0:
        raise UserError(f'temperature must be > 0, got {temperature}')
    similarities, index = neighbors(test_features, train_features, k)
    # Relative to the nearest neighbor, so that no temperature underflows.
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    votes = np.zeros((len(test_features), num_classes))
    np.add.at(votes, (np.arange(len(votes))[:, None], train_labels[index]), weights)
    return votes.argmax(axis=1).astype(np.int32)


def neighbors(
    queries: np.ndarray, bank: np.ndarray, k: int, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k rows of `bank` [M, D] with the largest cosine to each of `queries` [N, D].

    The cosines are computed in blocks of queries, of at most 64 MiB each.

    Args:
        queries: float [N, D].
        bank: float [M, D].
        k: number of neighbors.
        exclude_self: whether the queries are the bank, and no row is a neighbor of itself.

    Returns:
        Cosines float64 [N, k], decreasing, and row numbers int32 [N, k].
        A row of zeros has cosine 0 with every other row.

    Raises:
        UserError: there are fewer than k rows to choose from.
    """
    available = len(bank) - exclude_self
    if not 1 <= k <= available:
        raise UserError(
            f'k={k} neighbors cannot be taken from {available} examples: use 1 <= k <= {available}'
        )
    block = min(len(queries), max(1, _BLOCK // len(bank)))
    zeros = [~points.any(axis=1) for points in (queries, bank)]
    bank, queries = numerics.centered_units(bank, queries)
    bank_on_device, bank_is_zero = jnp.asarray(bank), jnp.asarray(zeros[1])
    blocks = []
    for start in range(0, len(queries), block):
        part = slice(start, start + block)
        missing = block - len(queries[part])
        blocks.append(
            _top(
                np.pad(queries[part], ((0, missing), (0, 0))),
                np.pad(zeros[0][part], (0, missing)),
                bank_on_device,
                bank_is_zero,
                start if exclude_self else -len(queries) - 1,
                k=k,
            )
        )
    distances, index = (
        np.concatenate(parts)[: len(queries)] for parts in zip(*blocks, strict=True)
    )
    return 1 - distances.astype(np.float64), index


@functools.partial(jax.jit, static_argnames='k')
def _top(
    queries: jax.Array,
    query_is_zero: jax.Array,
    bank: jax.Array,
    bank_is_zero: jax.Array,
    offset: jax.Array,
    *,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    """Finds the nearest rows of `numerics.centered_units`: cosine distances and row numbers.

    Row offset + i of `bank` is excluded for query i, if not negative. The cosine distance is half
    of the squared distance; a row of zeros, which has no direction, is 1 away from all rows.
    """
    squares = [jnp.sum(jnp.square(points), axis=1) for points in (queries, bank)]
    products = numerics.product(queries, bank.T)
    distances = jnp.maximum((squares[0][:, None] + squares[1][None]) / 2 - products, 0)
    distances = jnp.where(query_is_zero[:, None] | bank_is_zero[None], 1, distances)
    same = jnp.arange(len(queries))[:, None] + offset == jnp.arange(len(bank))[None]
    nearest, index = jax.lax.top_k(jnp.where(same, -jnp.inf, -distances), k)
    return -nearest, index


def fewshot(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
    *,
    shots: int = 10,
    draws: int = 5,
    ridge: float = 1.0,
    seed: int = 0,
) -> intervals.Measurement:
    """Measures the test accuracy of classifiers that see `shots` labeled examples of each class.

    The classifier is a ridge regression of the one-hot labels on the standardized features, in
    closed form and with a fixed penalty: `ridge` times the mean squared norm of the shots. Nothing
    is tuned.

    Args:
        train_features: float [M, D].
        train_labels: int [M] in [0, num_classes).
        test_features: float [N, D].
        test_labels: int [N] in [0, num_classes).
        num_classes: of the task.
        shots: labeled examples of each class.
        draws: number of random draws of the shots.
        ridge: the penalty, relative to the mean squared norm of the shots.
        seed: of the draws.

    Returns:
        The mean over the draws with a Student-t interval; `n` is the number of draws.

    Raises:
        UserError: wrong features or labels, or a class with fewer than `shots` examples; a class
            without any is left out.
    """
    train_features, train_labels = check_training_set(train_features, train_labels, num_classes)
    test_features = check_features(test_features, 'test features', width=train_features.shape[1])
    test_labels = check_labels(test_labels, len(test_features), num_classes, 'test labels')
    present, targets, counts = np.unique(train_labels, return_inverse=True, return_counts=True)
    if not 1 <= shots <= counts.min():
        raise UserError(
            f'shots={shots} per class cannot be drawn: class {present[counts.argmin()]} has '
            f'{counts.min()} training examples'
        )
    if draws < 2 or not 0 < ridge < math.inf:
        raise UserError(f'fewshot needs draws >= 2 and ridge > 0, got {draws} and {ridge}')
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(targets == index) for index in range(len(present))]
    labels = jnp.repeat(jnp.arange(len(present)), shots)
    accuracies = []
    for _ in range(draws):
        index = np.concatenate([rng.choice(group, shots, replace=False) for group in groups])
        mean, scale = standardization(train_features[index])
        inputs, test = ((x - mean) / scale for x in (train_features[index], test_features))
        scores = np.asarray(_ridge_scores(inputs, labels, test, ridge, len(present)))
        if not np.isfinite(scores).all():
            raise UserError(f'fewshot with ridge={ridge} has scores that are not finite: raise it')
        accuracies.append(np.mean(present[scores.argmax(axis=1)] == test_labels))
    low, high = intervals.student(np.array(accuracies))
    return intervals.Measurement(float(np.mean(accuracies)), max(low, 0.0), min(high, 1.0), draws)


@functools.partial(jax.jit, static_argnames='num_classes')
def _ridge_scores(
    inputs: jax.Array, labels: jax.Array, test: jax.Array, ridge: jax.Array, num_classes: int
) -> jax.Array:
    """Computes dual ridge regression: weights = X' (X X' + penalty)^-1 Y, no bias needed."""
    kernel = numerics.product(inputs, inputs.T)
    penalty = ridge * jnp.maximum(jnp.trace(kernel) / len(inputs), 1e-6)
    targets = jax.nn.one_hot(labels, num_classes)
    identity = jnp.eye(len(inputs))
    dual = jax.scipy.linalg.solve(kernel + penalty * identity, targets, assume_a='pos')
    return numerics.product(test, numerics.product(inputs.T, dual))


def mixing(first: np.ndarray, second: np.ndarray, *, most: int = 1_000) -> intervals.Measurement:
    """Measures how entangled two groups of representations lie.

    The value is the share of representations, of both groups together, whose nearest neighbor by
    cosine is of the other group. Groups of one distribution give about 0.5, and groups that lie
    apart give 0. The larger group is cut to the size of the smaller one. The interval is Wilson's
    of independent draws, and neighbors are not quite independent.

    >>> mixing(np.eye(4)[[0, 0]], np.eye(4)[[3, 3, 3]]).value
    0.0

    Args:
        first, second: float [N, D] and [M, D], two or more rows in each.
        most: rows of a group, above which no more are read.

    Raises:
        UserError: a group has fewer than two rows.
    """
    size = min(len(first), len(second), most)
    if size < 2:
        raise UserError(f'mixing takes two or more rows of each group, got {size}')
    rows = np.concatenate([first[:size], second[:size]]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    groups = np.arange(2 * size) < size
    return intervals.accuracy(groups[cosines.argmax(axis=1)], ~groups)
