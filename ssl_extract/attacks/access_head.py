"""Extraction with access to the victim's projection head.

The setting is that of arXiv 2205.07890, section 3.1, in which the victim answers with the latent z
of the projection head: the surrogate has a separate head and imitates z, and the stolen encoder is
the network below the head.
"""

from ssl_extract.attacks.base import Attack, make_student, register
from ssl_extract.attacks.direct import imitate
from ssl_extract.ranges import Width


@register(
    'access_head',
    endpoint='projection',
    plan='once',
    loss='infonce(temperature=0.07)',
    budget=9_000,
    epochs=100,
    batch_size=256,
    optimizer='adam(weight_decay=1e-4)',
    schedule='cosine',
    learning_rate=3e-4,
)
def access_head(
    encoder, answer_dim, plan, loss, student_augmentation, hidden: Width = 512
) -> Attack:
    """Trains the surrogate with SimCLR's head of two layers to imitate the victim's projections.

    >>> from ssl_extract import attacks
    >>> attacks.endpoint_of('access_head')
    'projection'

    Args:
        hidden: width of the head's hidden layer.
    """
    head = 'head', f'simclr(hidden={hidden}, dim={answer_dim})'
    student = make_student(encoder, answer_dim, head)
    return Attack(imitate(student, plan, loss, student_augmentation))
