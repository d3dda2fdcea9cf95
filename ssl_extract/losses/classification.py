"""Classification losses: the student's rows as logits.

`bce` takes each feature alone, `softce` all features against answers that are logits too, and
`cross_entropy` all features against answers that are probabilities already.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.losses.base import Loss, masked_mean, prepare, register
from ssl_extract.ranges import Positive


@register('bce')
def bce() -> Loss:
    """Computes the binary cross-entropy of each feature against the sign of the answer's feature.

    The target is `round(sigmoid(teacher))`, and the mean is over all elements, as in the paper's
    reference code; the paper has no table for this loss. Behind a ReLU and a mean no feature is
    negative and few are 0, so that nearly all targets are 1 whatever the input: the answers tell
    the loss little. The loss suits features of both signs, such as a projection.

    >>> loss = bce()
    >>> round(float(loss(jnp.zeros((2, 3)), jnp.ones((2, 3)))), 4)  # log 2
    0.6931
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        target = jnp.round(jax.nn.sigmoid(teacher))
        losses = optax.losses.sigmoid_binary_cross_entropy(student, target)
        return masked_mean(jnp.mean(losses, axis=-1), where)

    return loss


@register('softce')
def softce(temperature: Positive = 1.0) -> Loss:
    """Computes the cross-entropy of `softmax(student)` against `softmax(teacher / temperature)`.

    The reference code's head extraction does the same. Its direct extraction takes the target from
    the student, which carries no signal of the victim.

    >>> loss = softce(temperature=0.5)
    >>> round(float(loss(jnp.zeros((2, 4)), jnp.ones((2, 4)))), 4)  # log 4
    1.3863

    Args:
        temperature: of the target; a value below 1 sharpens the target.

    Raises:
        UserError: the temperature is not a number above 0.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        target = jax.nn.softmax(teacher / temperature)
        return masked_mean(optax.losses.softmax_cross_entropy(student, target), where)

    return loss


@register('cross_entropy')
def cross_entropy() -> Loss:
    """Computes the cross-entropy of `softmax(student)` against probabilities or one-hot labels.

    `-sum_c teacher_c log softmax(student)_c`, mean over the rows. The attacker of a classifier
    minimizes this loss (label and posterior stealing of ICML 2022, section 4.4; Knockoff Nets, CVPR
    2019, arXiv 1812.02766). Answers are taken as they are, so each row should sum to 1. Answers
    that are logits need `softce`.

    >>> loss = cross_entropy()
    >>> round(float(loss(jnp.zeros((2, 2)), jnp.eye(2))), 4)  # log 2
    0.6931
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(optax.losses.softmax_cross_entropy(student, teacher), where)

    return loss
