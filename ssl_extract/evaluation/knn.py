"""Nearest-neighbor and few-shot classifiers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.evaluation.features import check_features, check_labels, check_training_set

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
        Cosines float32 [N, k], decreasing, and row numbers int32 [N, k].
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
    bank = _unit(jnp.asarray(bank))
    blocks = []
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)))
        blocks.append(_top(padded, bank, start if exclude_self else -len(queries) - 1, k=k))
    cosines, index = (np.concatenate(parts)[: len(queries)] for parts in zip(*blocks, strict=True))
    return cosines, index


def _unit(features: jax.Array) -> jax.Array:
    norms = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.where(norms > 0, norms, 1)


@functools.partial(jax.jit, static_argnames='k')
def _top(
    queries: jax.Array, bank: jax.Array, offset: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
    """Finds the nearest rows; row offset + i of `bank` is excluded for query i, if not negative."""
    cosines = jnp.matmul(_unit(queries), bank.T, precision='highest')
    same = jnp.arange(len(queries))[:, None] + offset == jnp.arange(len(bank))[None]
    return jax.lax.top_k(jnp.where(same, -jnp.inf, cosines), k)


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
    test = jnp.asarray(test_features)
    accuracies = []
    for _ in range(draws):
        index = np.concatenate([rng.choice(group, shots, replace=False) for group in groups])
        predictions = _ridge_predict(train_features[index], labels, test, ridge, len(present))
        accuracies.append(np.mean(present[np.asarray(predictions)] == test_labels))
    low, high = intervals.student(np.array(accuracies))
    return intervals.Measurement(float(np.mean(accuracies)), max(low, 0.0), min(high, 1.0), draws)


@functools.partial(jax.jit, static_argnames='num_classes')
def _ridge_predict(
    shots: jax.Array, labels: jax.Array, test: jax.Array, ridge: jax.Array, num_classes: int
) -> jax.Array:
    """Predicts by dual ridge regression: weights = X' (X X' + penalty)^-1 Y, no bias needed."""
    mean, std = shots.mean(axis=0, keepdims=True), shots.std(axis=0, keepdims=True)
    scale = jnp.where(std > 1e-6 * jnp.abs(shots).max(axis=0, keepdims=True), std, 1)
    inputs = (shots - mean) / scale
    kernel = jnp.matmul(inputs, inputs.T, precision='highest')
    penalty = ridge * jnp.maximum(jnp.trace(kernel) / len(shots), 1e-6)
    targets = jax.nn.one_hot(labels, num_classes)
    dual = jax.scipy.linalg.solve(kernel + penalty * jnp.eye(len(shots)), targets, assume_a='pos')
    return jnp.argmax((test - mean) / scale @ (inputs.T @ dual), axis=1)
