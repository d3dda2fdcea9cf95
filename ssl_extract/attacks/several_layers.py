"""Extraction from the answers of several layers at once.

Hsu et al., "Model Extraction Attack against Self-supervised Speech Models" (arXiv 2211.16044), as
DistilHuBERT (Chang et al. 2022, arXiv 2110.01900): the endpoint `layers` answers one query with the
outputs of all layers. A linear head for each layer stands behind the surrogate's representation;
the loss is the mean over the layers. The heads are discarded in the end.
"""

import jax.numpy as jnp

from ssl_extract.attacks.base import Attack, make_student, register
from ssl_extract.attacks.direct import imitate
from ssl_extract.errors import UserError
from ssl_extract.losses import Loss
from ssl_extract.ranges import Count, Whole


@register('several_layers', endpoint='layers', loss='l1_cosine')
def several_layers(
    encoder,
    answer_dim,
    plan,
    loss,
    student_augmentation,
    count: Count = 1,
    take: tuple[Whole, ...] = (),
) -> Attack:
    """Trains the surrogate to tell the outputs of several of the victim's layers.

    >>> from ssl_extract import attacks
    >>> attacks.endpoint_of('several_layers(count=4)')
    'layers'

    Args:
        count: number of layers in an answer.
        take: the layers to learn, from 0; () is all of them.

    Raises:
        UserError: the answers do not have so many layers, or a layer is none of them.
    """
    if answer_dim % count:
        raise UserError(
            f'count={count} layers cannot have answers of {answer_dim} numbers: write the number '
            "of the victim's layers"
        )
    chosen = take or tuple(range(count))
    if max(chosen) >= count or len(set(chosen)) < len(chosen):
        raise UserError(f'take={take}: write different layers from 0 to {count - 1}')
    width = answer_dim // count
    head = 'layers', f'linear(dim={width * len(chosen)})'
    student = make_student(encoder, width * len(chosen), head)
    return Attack(imitate(student, plan, _of_layers(loss, count, chosen), student_augmentation))


def _of_layers(loss: Loss, count: int, chosen: tuple[int, ...]) -> Loss:
    """Makes the mean of a loss over the chosen layers of the answers."""

    def mean(student, teacher, *, labels=None, where=None):
        predicted = jnp.split(student, len(chosen), axis=-1)
        answered = jnp.split(teacher, count, axis=-1)
        values = [
            loss(row, answered[layer], labels=labels, where=where)
            for row, layer in zip(predicted, chosen, strict=True)
        ]
        return sum(values) / len(values)

    return mean
