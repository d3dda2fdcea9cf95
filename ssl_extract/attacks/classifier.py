"""Extraction of a classifier by labels or posteriors.

The attacks are the baselines of arXiv 2205.07890, section 4.4 and Table 4: the oracle answers with
class labels or probabilities, and the surrogate is an encoder with a linear classifier. The encoder
is then probed like any other ("fine-tune" in the paper: the last layer is fitted anew), and the
stolen classifier is measured as it is (`classifier` in the results: "no fine-tune").

Knockoff Nets (Orekondy et al., CVPR 2019, arXiv 1812.02766) are `posteriors` with
`attack.strategy='random'` or `'knockoff'`, the adaptive choice of queries.
"""

from ssl_extract.attacks.base import Attack, make_student, register
from ssl_extract.attacks.direct import imitate

_PAPER = dict(
    plan='once',
    loss='cross_entropy',
    budget=9_000,
    epochs=100,
    batch_size=64,
    optimizer='adam(weight_decay=8e-4)',
    schedule='cosine',
    learning_rate=3e-4,
)


@register('labels', endpoint='labels', classifies=True, **_PAPER)
def labels(encoder, answer_dim, plan, loss, student_augmentation) -> Attack:
    """Trains the surrogate on the most probable class, as a one-hot row.

    >>> from ssl_extract import attacks
    >>> attacks.endpoint_of('labels'), attacks.preset('labels')['loss']
    ('labels', 'cross_entropy')
    """
    return posteriors(encoder, answer_dim, plan, loss, student_augmentation)


@register('posteriors', endpoint='posteriors', classifies=True, **_PAPER)
def posteriors(encoder, answer_dim, plan, loss, student_augmentation) -> Attack:
    """Trains the surrogate on the probabilities of all classes.

    >>> from ssl_extract import attacks
    >>> attacks.endpoint_of('posteriors'), attacks.preset('posteriors')['loss']
    ('posteriors', 'cross_entropy')
    """
    student = make_student(encoder, answer_dim, ('classifier', f'linear(dim={answer_dim})'))
    return Attack(imitate(student, plan, loss, student_augmentation))
