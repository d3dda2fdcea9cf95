"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from ssl_extract import checks
from ssl_extract.errors import UserError
from ssl_extract.ranges import Decay, NotNegative, Range
from ssl_extract.registry import Registry, split_chain

# The traits of an optimizer.
# before: whether it stands before another optimizer in a chain, which it takes as `optimizer`.
OPTIMIZERS = Registry('optimizer', before=False)
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


@register_optimizer('accumulate', before=True)
def accumulate(optimizer: Callable, steps: Annotated[int, Range(2, 10_000)]) -> Callable:
    """Averages the gradients of several batches for one update: `accumulate(steps=4) | adam`.

    A step of the training is then one of `steps` microbatches. The parameters change in the last of
    them, by the learning rate of the first: number and rates of the updates are those of a batch of
    `steps` times the size. A last, incomplete group has an update of its own.

    The gradient is that of the large batch if the loss is a mean over rows (mse, cosine, ...), as
    many rows of each microbatch count, and the encoder has no BatchNorm. BatchNorm has the
    statistics of a microbatch. A contrastive loss compares the rows of a microbatch alone, so that
    there are not more negatives than without `accumulate`: more need a larger batch, on more
    devices, or with `remat` and `dtype` of the encoder.

    >>> tx = accumulate(sgd(momentum=0.0), steps=2)(learning_rate=0.1)
    >>> first, state = tx.update(1.0, tx.init(1.0), 1.0)
    >>> second, state = tx.update(3.0, state, 1.0)
    >>> float(first), round(float(second), 3)
    (0.0, -0.2)

    Args:
        optimizer: the optimizer behind, `learning_rate -> optax.GradientTransformation`.
        steps: the microbatches of an update.

    Returns:
        `learning_rate -> optax.GradientTransformation`, whose `update` takes `last`: whether the
        group is complete, however many batches it has.
    """

    def make(learning_rate: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
        tx = optimizer(learning_rate)

        def update(grads: Any, state: Any, params: Any = None, *, last: Any = False, **_: Any):
            size = jnp.where(last, state.mini_step + 1, steps)
            return optax.MultiSteps(tx, lambda _: size).update(grads, state, params)

        return optax.GradientTransformationExtraArgs(optax.MultiSteps(tx, steps).init, update)

    return make


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


def make_optimizer(spec: str) -> Callable:
    """Makes the optimizer of a spec, or of a chain whose last part is the optimizer.

    >>> tx = make_optimizer('accumulate(steps=4) | adam(weight_decay=1e-4)')(learning_rate=0.1)

    Returns:
        `learning_rate -> optax.GradientTransformation`.

    Raises:
        UserError: a name or an argument is wrong, or the chain has another order.
    """
    *firsts, last = split_chain(spec, OPTIMIZERS.kind) or [spec]
    befores = [OPTIMIZERS.traits(part).before for part in (*firsts, last)]
    if befores not in ([False], [True, False]):
        raise UserError(
            f'optimizer {checks.shown(spec)}: write one optimizer, or '
            "'accumulate(steps=4) | adam' for one update in four steps"
        )
    optimizer = OPTIMIZERS.make(last)
    for part in firsts:
        optimizer = OPTIMIZERS.make(part, optimizer=optimizer)
    return optimizer


def make_tx(optimizer: str) -> optax.GradientTransformation:
    """Makes the optimizer of a spec, with the learning rate in the state."""
    return optax.inject_hyperparams(make_optimizer(optimizer))(learning_rate=0.0)
