"""Extraction from the answers of several layers at once.

Hsu et al., "Model Extraction Attack against Self-supervised Speech Models" (arXiv 2211.16044), as
DistilHuBERT (Chang et al. 2022, arXiv 2110.01900): the endpoint `layers` answers one query with the
outputs of all layers. A linear head for each layer stands behind the surrogate's representation;
the loss is the mean over the layers. The heads are discarded in the end.
"""

import jax.numpy as jnp
import numpy as np

from ssl_extract.attacks.base import Attack, make_student, register
from ssl_extract.attacks.direct import imitate
from ssl_extract.errors import UserError
from ssl_extract.losses import Loss
from ssl_extract.ranges import Whole, Width


@register('several_layers', endpoint='layers', loss='l1_cosine')
def several_layers(
    encoder,
    answer_dim,
    plan,
    loss,
    student_augmentation,
    widths: tuple[Width, ...] = (),
    take: tuple[Whole, ...] = (),
) -> Attack:
    """Trains the surrogate to tell the outputs of several of the victim's layers.

    >>> from ssl_extract import attacks
    >>> attacks.endpoint_of('several_layers(widths=(64, 64, 128))')
    'layers'

    Args:
        widths: of the layers in an answer, in order; () is one layer.
        take: the layers to learn, from 0; () is all of them.

    Raises:
        UserError: the answers have another width than the layers together, or a layer is none of
            them.
    """
    widths = widths or (answer_dim,)
    if sum(widths) != answer_dim:
        raise UserError(
            f'widths={widths}: the layers have {sum(widths)} numbers together, and the answers '
            f"{answer_dim}: write the widths of the victim's layers"
        )
    chosen = take or tuple(range(len(widths)))
    if max(chosen) >= len(widths) or len(set(chosen)) < len(chosen):
        raise UserError(f'take={take}: write different layers from 0 to {len(widths) - 1}')
    learned = sum(widths[layer] for layer in chosen)
    student = make_student(encoder, learned, ('layers', f'linear(dim={learned})'))
    return Attack(imitate(student, plan, _of_layers(loss, widths, chosen), student_augmentation))


def _of_layers(loss: Loss, widths: tuple[int, ...], chosen: tuple[int, ...]) -> Loss:
    """Makes the mean of a loss over the chosen layers of the answers."""
    answered_ends = np.cumsum(widths)[:-1]
    learned_ends = np.cumsum([widths[layer] for layer in chosen])[:-1]

    def mean(student, teacher, *, labels=None, where=None):
        answered = jnp.split(teacher, answered_ends, axis=-1)
        predicted = jnp.split(student, learned_ends, axis=-1)
        values = [
            loss(rows, answered[layer], labels=labels, where=where)
            for rows, layer in zip(predicted, chosen, strict=True)
        ]
        return sum(values) / len(values)

    return mean
