"""Linear probe by minibatch descent, the paper's recipe."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_training_set
from ssl_extract.evaluation.probe import Probe, among_all, check_weights

_LEAST = 1e-15  # size of features; the squares of smaller ones, and of their inverses, are lost


def fit_probe_sgd(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    optimizer: str = 'adam',
    learning_rate: float = 1e-4,
    weight_decay: float = 8e-4,
    epochs: int = 100,
    batch_size: int = 256,
    seed: int = 0,
) -> Probe:
    """Fits the linear evaluation of Dziedzic et al. (ICML 2022) on features as they are.

    The defaults are those of the paper's code for a stolen encoder (Adam, 1e-4, decay added to the
    gradient); the paper's text says SGD at 1e-4: `optimizer='sgd'`. The initialization is that of a
    linear layer in PyTorch. Two things differ from the paper: the encoder is frozen entirely, while
    the paper's BatchNorm keeps learning, and the examples are shuffled in every epoch.

    Args:
        features: float [N, D] of the training set.
        labels: int [N] in [0, num_classes).
        num_classes: K.
        optimizer: 'adam' or 'sgd'.
        learning_rate: constant.
        weight_decay: factor of the weights in the gradient.
        epochs: over the training set.
        batch_size: examples in a step.
        seed: of initialization and order.

    Raises:
        UserError: wrong features, labels or settings.
    """
    features, labels = check_training_set(features, labels, num_classes)
    present, numbers = np.unique(labels, return_inverse=True)
    if optimizer not in ('adam', 'sgd'):
        raise UserError(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
    if epochs < 1 or batch_size < 1 or not learning_rate > 0 or not weight_decay >= 0:
        raise UserError(
            'the probe needs epochs, batch_size >= 1, learning_rate > 0 and weight_decay >= 0, got '
            f'{epochs}, {batch_size}, {learning_rate} and {weight_decay}'
        )
    size = float(np.abs(features).max())
    if not (size == 0 or _LEAST <= size <= 1 / _LEAST):
        raise UserError(
            f'training features of size {size:.1g}: this probe takes features as they are, and '
            "learns nothing at that scale; write evaluation.probe='lbfgs', which standardizes them"
        )
    weights, bias = _descend(
        jnp.asarray(features),
        jnp.asarray(numbers),
        jax.random.key(seed),
        learning_rate,
        weight_decay,
        num_classes=len(present),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
    )
    check_weights(weights, bias, f'learning_rate={learning_rate}: lower it')
    weights, bias = among_all(np.asarray(weights), np.asarray(bias), present, num_classes)
    width = features.shape[1]
    mean, scale = np.zeros(width, np.float32), np.ones(width, np.float32)
    return Probe(mean, scale, weights, bias, float(weight_decay), None, None, None)


@functools.partial(jax.jit, static_argnames=('num_classes', 'optimizer', 'epochs', 'batch_size'))
def _descend(
    features: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    learning_rate: jax.Array,
    weight_decay: jax.Array,
    *,
    num_classes: int,
    optimizer: str,
    epochs: int,
    batch_size: int,
) -> tuple[jax.Array, jax.Array]:
    """Descends by minibatches in one scan; the last batch of an epoch may be short."""
    n, width = features.shape
    num_batches = -(-n // batch_size)
    tx = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam() if optimizer == 'adam' else optax.identity(),
        optax.scale(-learning_rate),
    )

    def objective(params, index):
        real = (index < n).astype(jnp.float32)  # the padding is n
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(
            features[index % n] @ params[0] + params[1][None], labels[index % n]
        )
        return jnp.sum(real * losses) / jnp.sum(real)

    def step(carry, index):
        params, state = carry
        updates, state = tx.update(jax.grad(objective)(params, index), state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, key):
        order = jax.random.permutation(key, n)
        order = jnp.pad(order, (0, num_batches * batch_size - n), constant_values=n)
        return jax.lax.scan(step, carry, order.reshape(num_batches, batch_size))

    init_key, loop_key = jax.random.split(key)
    bound = 1 / jnp.sqrt(width)
    params = (
        jax.random.uniform(init_key, (width, num_classes), minval=-bound, maxval=bound),
        jax.random.uniform(
            jax.random.fold_in(init_key, 1), (num_classes,), minval=-bound, maxval=bound
        ),
    )
    (params, _), _ = jax.lax.scan(
        epoch, (params, tx.init(params)), jax.random.split(loop_key, epochs)
    )
    return params
