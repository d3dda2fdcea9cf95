"""Classification losses: the student's rows as logits.

bce of each feature, softce of all of them against answers that are logits too, cross_entropy
against answers that are probabilities already.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_extract.checks import check_number
from ssl_extract.losses.base import Loss, masked_mean, prepare, register


@register('bce')
def bce() -> Loss:
    """Binary cross-entropy of each feature against whether the answer's is positive.

    The target is `round(sigmoid(teacher))`, the mean is over all elements (the paper's reference
    code; it has no table for this loss).
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        target = jnp.round(jax.nn.sigmoid(teacher))
        losses = optax.losses.sigmoid_binary_cross_entropy(student, target)
        return masked_mean(jnp.mean(losses, axis=-1), where)

    return loss


@register('softce')
def softce(temperature: float = 1.0) -> Loss:
    """Cross-entropy of `softmax(student)` against `softmax(teacher / temperature)`.

    The reference's direct extraction takes the target from the student itself, which carries no
    signal of the victim; this is what the loss's name says, and what its head extraction does.

    Args:
        temperature: of the target; below 1 sharpens it.

    Raises:
        UserError: the temperature is not a number above 0.
    """
    check_number('temperature', temperature, above=0)

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        target = jax.nn.softmax(teacher / temperature)
        return masked_mean(optax.losses.softmax_cross_entropy(student, target), where)

    return loss


@register('cross_entropy')
def cross_entropy() -> Loss:
    """Cross-entropy of `softmax(student)` against answers that are probabilities or one-hot labels.

    `-sum_c teacher_c log softmax(student)_c`, mean over the rows: what the attacker of a classifier
    minimizes (label and posterior stealing of ICML 2022, section 4.4; Knockoff Nets, CVPR 2019,
    arXiv 1812.02766). The answers are taken as they are, so each row should sum to 1; answers that
    are logits need `softce`.
    """

    def loss(student, teacher, *, labels=None, where=None):
        del labels
        student, teacher, where = prepare(student, teacher, where)
        return masked_mean(optax.losses.softmax_cross_entropy(student, teacher), where)

    return loss
