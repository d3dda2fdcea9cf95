"""Linear probe: softmax regression, solved to its optimum."""

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features, check_training_set
from ssl_extract.runtime import parallel

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
MAX_ITERATIONS = 300
ABSENT = -1e9  # the logit of a class without examples, finite, whose probability is exactly 0
TOLERANCE = 1e-5  # of the gradient norm, in the whitened coordinates of `_solve`


class Probe(NamedTuple):
    """A fitted linear classifier: logits = (features - mean) / scale @ weights + bias.

    Attributes:
        mean: [D], of the standardization; 0 without standardization.
        scale: [D], of the standardization; 1 without standardization.
        weights: [D, K].
        bias: [K].
        l2: the weight of the penalty.
        validation_accuracy: of the probe fitted with `l2` on the rest of the training set; None if
            the grid has one value.
        gradient_norm: at the solution, whitened; None for `fit_probe_sgd`.
        evaluations: of the objective and the gradient in the whole fit; None for `fit_probe_sgd`.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    l2: float
    validation_accuracy: float | None
    gradient_norm: float | None
    evaluations: int | None


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    l2_grid: tuple[float, ...] = L2_GRID,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Probe:
    """Fits softmax regression on standardized features [N, D] by full-batch L-BFGS.

    Minimizes mean cross-entropy + l2/2 ||weights||^2 (the bias is free), which is scikit-learn's
    `LogisticRegression(C=1 / (N * l2))`. `l2` is the value of the grid with the best accuracy on a
    seeded, stratified validation part of the training set (at a tie the larger value). The probe is
    then fitted on the whole training set. With one value in the grid there is no validation. The
    rows are shared out over the devices of this process.

    >>> x = np.array([[0.0, 1.0], [0.2, 0.9], [1.0, 0.1], [0.9, 0.0]])
    >>> probe = fit_probe(x, np.array([0, 0, 1, 1]), num_classes=2, l2_grid=(0.01,))
    >>> predict(probe, np.array([[0.1, 0.8], [0.8, 0.1]]))
    array([0, 1], dtype=int32)

    Args:
        features: float [N, D] of the training set.
        labels: int [N] in [0, num_classes).
        num_classes: K.
        l2_grid: penalties to choose from, each > 0.
        validation_fraction: share of each class held out to choose a penalty.
        seed: of the validation split.

    Raises:
        UserError: non-finite features, labels that do not fit, examples of one class only.
    """
    features, labels = check_training_set(features, labels, num_classes)
    present, numbers = np.unique(labels, return_inverse=True)
    all_classes, num_classes = num_classes, len(present)
    if not l2_grid or not all(0 < l2 < np.inf for l2 in l2_grid):
        raise UserError(f'l2_grid must hold numbers > 0, got {l2_grid}')
    if not 0 < validation_fraction < 1:
        raise UserError(f'validation_fraction must lie in (0, 1), got {validation_fraction}')
    mean, scale = standardization(features)
    if constant(features).all() and np.ptp(features, axis=0).any():
        warnings.warn(
            'all features vary by less than a millionth of their size, as rounding does, and are '
            'taken as constant: the encoder has collapsed, or subtract the mean of the features',
            stacklevel=2,
        )
    standard = (features - mean) / scale
    inputs, targets = spread(standard), spread(numbers)
    gram = np.asarray(jnp.matmul(inputs.T, inputs, precision='highest'), np.float64) / len(labels)

    def solve(l2: float, where: np.ndarray, start: tuple) -> tuple[tuple, float, int]:
        """Solves for rows in `where`: (weights, bias), the gradient norm and evaluations."""
        # The Hessian at zero is (gram / K + l2) in `weights`. In whitened coordinates, in which the
        # Hessian is the identity, L-BFGS takes 20-50 steps instead of many hundreds.
        jitter = 1e-6 * gram.shape[0] / num_classes  # gram is exact to float32 only
        factor = np.linalg.cholesky(gram / num_classes + (l2 + jitter) * np.eye(len(gram)))
        whiten = np.linalg.inv(factor).T.astype(np.float32)
        start = ((factor.T @ start[0]).astype(np.float32), start[1])
        weight = spread(np.float32(where / where.sum()))
        (white, bias), *rest = _solve(inputs, targets, weight, whiten, jnp.float32(l2), start)
        check_weights(white, bias, f'l2={l2}: write other values in l2_grid')
        return (whiten @ np.asarray(white), np.asarray(bias)), *map(float, rest)

    start = (np.zeros((len(gram), num_classes)), np.zeros(num_classes, np.float32))
    best_l2, best_accuracy, evaluations = l2_grid[0], None, 0
    if len(set(l2_grid)) > 1:
        held_out = stratified(labels, validation_fraction, seed)
        current, best_start = start, start
        for l2 in sorted(set(l2_grid), reverse=True):  # each starts at the last solution
            current, _, count = solve(l2, ~held_out, current)
            evaluations += count
            scores = standard[held_out] @ current[0] + current[1]
            accuracy = float(np.mean(scores.argmax(1) == numbers[held_out]))
            if best_accuracy is None or accuracy > best_accuracy:
                best_l2, best_accuracy, best_start = l2, accuracy, current
        start = best_start
    (weights, bias), norm, count = solve(best_l2, np.ones(len(labels)), start)
    if norm > 100 * TOLERANCE:
        warnings.warn(
            f'the linear probe with l2={best_l2} stopped after {MAX_ITERATIONS} iterations at a '
            f'gradient norm of {norm:.1e}: raise the smallest value of l2_grid',
            stacklevel=2,
        )
    evaluations = int(evaluations + count)
    weights, bias = among_all(weights, bias, present, all_classes)
    return Probe(mean, scale, weights, bias, float(best_l2), best_accuracy, norm, evaluations)


def spread(rows: np.ndarray) -> jax.Array:
    """Shares out rows [N, ...] over the devices of this process; zeros make N a multiple of them.

    In `_solve` such a row has weight 0.
    """
    mesh = parallel.data_mesh(jax.local_device_count())
    if missing := -len(rows) % mesh.size:
        rows = np.concatenate([rows, np.zeros_like(rows[:missing])])
    return parallel.put(rows, mesh)


def among_all(
    weights: np.ndarray, bias: np.ndarray, present: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the classes without examples to a linear classifier, with a probability of 0.

    Args:
        weights: float [D, P], of the classes that have examples.
        bias: float [P].
        present: int [P], the numbers of these classes.
        num_classes: K, of all classes.

    Returns:
        weights float32 [D, K] and bias float32 [K].
    """
    all_weights = np.zeros((len(weights), num_classes), np.float32)
    all_biases = np.full(num_classes, ABSENT, np.float32)
    all_weights[:, present], all_biases[present] = weights, bias
    return all_weights, all_biases


def check_weights(weights: jax.Array, bias: jax.Array, advice: str) -> None:
    """Raises UserError, with `advice`, unless all weights of a linear probe are finite."""
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise UserError(f'the linear probe has diverged, its weights are not finite: {advice}')


def logits(probe: Probe, features: np.ndarray) -> np.ndarray:
    """Computes the logits [N, K] of `features` [N, D].

    Raises:
        UserError: the features are not finite or of another width, or the logits overflow.
    """
    features = check_features(features, 'features', width=len(probe.mean))
    with np.errstate(over='ignore', invalid='ignore'):
        scores = (features - probe.mean) / probe.scale @ probe.weights + probe.bias
    if not np.isfinite(scores).all():
        raise UserError(
            'the logits of the linear probe are not finite: lower the learning rate of the probe, '
            'or scale the features'
        )
    return scores


def predict(probe: Probe, features: np.ndarray) -> np.ndarray:
    """Predicts the classes int32 [N] of `features` [N, D]."""
    return logits(probe, features).argmax(axis=1).astype(np.int32)


def standardization(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation [D] of `features` [N, D].

    A constant feature has its magnitude in place of a deviation, or 1 if it is 0.
    """
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    largest = np.abs(features).max(axis=0)
    scale = np.where(constant(features), np.where(largest > 0, largest, 1.0), std)
    return mean.astype(np.float32), scale.astype(np.float32)


def constant(features: np.ndarray) -> np.ndarray:
    """Finds the features that vary by no more than rounding in float32 does, bool [D]."""
    std = features.std(axis=0, dtype=np.float64)
    return std <= 1e-6 * np.abs(features).max(axis=0)


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draws a random part of each class, bool [N]: at least one example, and not all examples.

    Raises:
        UserError: a class has a single example.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        index = np.flatnonzero(labels == label)
        if len(index) < 2:
            raise UserError(
                f'class {label} has a single training example and cannot be split to choose l2: '
                'use more training examples, or an l2_grid of one value'
            )
        count = min(max(1, round(fraction * len(index))), len(index) - 1)
        chosen[rng.permutation(index)[:count]] = True
    return chosen


@jax.jit
def _solve(
    inputs: jax.Array,
    labels: jax.Array,
    where: jax.Array,
    whiten: jax.Array,
    l2: jax.Array,
    start: tuple[jax.Array, jax.Array],
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    """Solves by L-BFGS (Liu & Nocedal 1989) on weights = whiten @ start[0]; `where` sums to 1.

    Held-out examples have weight 0 instead of being cut out, so that all solves of the grid and the
    final solve share a shape and one compilation.
    """
    num_classes = start[1].shape[0]
    # Accelerators round the inputs of a float32 product by default, which breaks a line search.
    exact = functools.partial(jnp.matmul, precision='highest')

    def objective(params):
        weights, bias = exact(whiten, params[0]), params[1]
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(
            exact(inputs, weights) + bias[None] * jnp.sqrt(num_classes), labels
        )
        return jnp.sum(where * losses) + l2 / 2 * jnp.sum(weights**2)

    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry):
        params, state, _, count, evaluations = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=objective)
        params = optax.apply_updates(params, updates)
        norm = optax.tree.norm(optax.tree.get(state, 'grad'))  # at the new params
        tried = optax.tree.get(state, 'num_linesearch_steps')
        return params, state, norm, count + 1, evaluations + tried

    def unfinished(carry):
        return (carry[2] > TOLERANCE) & (carry[3] < MAX_ITERATIONS)

    params = (start[0], start[1] / jnp.sqrt(num_classes))
    params, _, norm, _, evaluations = jax.lax.while_loop(
        unfinished, step, (params, tx.init(params), jnp.float32(jnp.inf), 0, jnp.int32(1))
    )
    return (params[0], params[1] * jnp.sqrt(num_classes)), norm, evaluations
