"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable
from typing import Annotated

import optax

from ssl_extract.ranges import Decay, NotNegative, Range
from ssl_extract.registry import Registry

OPTIMIZERS = Registry('optimizer')
SCHEDULES = Registry('schedule')
register_optimizer, register_schedule = OPTIMIZERS.register, SCHEDULES.register


@register_optimizer('adam')
def adam(weight_decay: NotNegative = 0.0, b1: Decay = 0.9, b2: Decay = 0.999) -> Callable:
    """Makes Adam with L2 regularization added to the gradient, as in the paper's code.

    >>> tx = adam(weight_decay=1e-4)(learning_rate=0.1)
    >>> update, state = tx.update(1.0, tx.init(1.0), 1.0)
    >>> round(float(update), 3)
    -0.1

    Args:
        weight_decay: factor of the parameters in the gradient (not decoupled).
        b1: decay of the first moment.
        b2: decay of the second moment.

    Returns:
        `learning_rate -> optax.GradientTransformation`.
    """
    return lambda learning_rate: optax.chain(
        optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1, b2)
    )


@register_optimizer('sgd')
def sgd(weight_decay: NotNegative = 0.0, momentum: Decay = 0.9) -> Callable:
    """Makes stochastic gradient descent with momentum and L2 regularization.

    >>> tx = sgd(momentum=0.9)(learning_rate=0.5)
    >>> update, state = tx.update(1.0, tx.init(1.0), 1.0)
    >>> float(update)
    -0.5

    Args:
        weight_decay: factor of the parameters in the gradient.
        momentum: decay of the sum of gradients.

    Returns:
        `learning_rate -> optax.GradientTransformation`.
    """
    return lambda learning_rate: optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum)
    )


@register_optimizer('lars')
def lars(weight_decay: NotNegative = 0.0, momentum: Decay = 0.9) -> Callable:
    """Makes LARS (You et al. 2017, arXiv 1708.03888), the paper's choice for ImageNet victims.

    >>> tx = lars(weight_decay=1e-6)(learning_rate=0.5)

    Args:
        weight_decay: factor of the parameters in the gradient.
        momentum: decay of the sum of gradients.

    Returns:
        `learning_rate -> optax.GradientTransformation`.
    """
    return lambda learning_rate: optax.lars(learning_rate, weight_decay, momentum=momentum)


@register_schedule('cosine')
def cosine(warmup: Annotated[float, Range(least=0, below=1)] = 0.0) -> Callable:
    """Falls from 1 to 0 along half a cosine over the whole run, after a linear warm-up.

    >>> factor = cosine()
    >>> [round(float(factor(share)), 2) for share in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]

    Args:
        warmup: share of the steps that warm up, in [0, 1).

    Returns:
        `share of the run, in [0, 1] -> factor of the learning rate`.

    Raises:
        UserError: `warmup` is not in [0, 1).
    """
    if warmup == 0:
        return optax.cosine_decay_schedule(1.0, decay_steps=1.0)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=warmup, decay_steps=1.0)


@register_schedule('constant')
def constant() -> Callable:
    """Keeps the learning rate the same from the first step to the last.

    >>> constant()(0.5)
    1.0
    """
    return optax.constant_schedule(1.0)


def make_tx(optimizer: str) -> optax.GradientTransformation:
    """Makes the optimizer of a spec, with the learning rate in the state."""
    return optax.inject_hyperparams(OPTIMIZERS.make(optimizer))(learning_rate=0.0)
