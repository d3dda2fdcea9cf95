"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable

import optax

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

OPTIMIZERS = Registry('optimizer')
SCHEDULES = Registry('schedule')
register_optimizer, register_schedule = OPTIMIZERS.register, SCHEDULES.register


@register_optimizer('adam')
def adam(weight_decay: float = 0.0, b1: float = 0.9, b2: float = 0.999) -> Callable:
    """Adam with L2 regularization added to the gradient (not decoupled), as in the paper's code."""
    return lambda learning_rate: optax.chain(
        optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1, b2)
    )


@register_optimizer('sgd')
def sgd(weight_decay: float = 0.0, momentum: float = 0.9) -> Callable:
    """Stochastic gradient descent with momentum and L2 regularization."""
    return lambda learning_rate: optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum)
    )


@register_optimizer('lars')
def lars(weight_decay: float = 0.0, momentum: float = 0.9) -> Callable:
    """LARS (You et al. 2017, arXiv 1708.03888), the paper's choice for ImageNet victims."""
    return lambda learning_rate: optax.lars(learning_rate, weight_decay, momentum=momentum)


@register_schedule('cosine')
def cosine(warmup: float = 0.0) -> Callable:
    """From 1 to 0 along half a cosine over the whole run, after a linear warm-up.

    Args:
        warmup: share of the steps that warm up, in [0, 1).
    """
    if not 0 <= warmup < 1:
        raise UserError(f'cosine(warmup={warmup}): warmup is a share of the run, from 0 to below 1')
    if warmup == 0:
        return optax.cosine_decay_schedule(1.0, decay_steps=1.0)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=warmup, decay_steps=1.0)


@register_schedule('constant')
def constant() -> Callable:
    """The same learning rate from the first step to the last."""
    return optax.constant_schedule(1.0)


def make_tx(optimizer: str) -> optax.GradientTransformation:
    return optax.inject_hyperparams(OPTIMIZERS.make(optimizer))(learning_rate=0.0)
