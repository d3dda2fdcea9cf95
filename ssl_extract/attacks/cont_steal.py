"""Cont-Steal, contrastive extraction with augmented queries.

Sha et al., CVPR 2023, arXiv 2201.07513.

Two views of each image are drawn apart: one view is asked, the surrogate sees the other. The
surrogate's output is attracted to the answer for the same image, and repelled by the answers and by
the surrogate's outputs for all other images (the loss `cont_steal`).
"""

import jax

from ssl_extract import augment
from ssl_extract.attacks.base import Attack, objective, register
from ssl_extract.training import Recipe

_VIEW = 'rand_augment(n=2, m=14) | random_crop(padding=4) | flip'


@register(
    'cont_steal',
    plan='online',  # the authors draw and ask a fresh view of every image in every epoch
    loss='cont_steal(temperature=0.5)',
    query_augmentation=_VIEW,
    student_augmentation=_VIEW,
    budget=5_000_000,  # 50,000 images, 100 epochs: the paper names no number, RDA's comparison 100
    batch_size=128,
    optimizer='adam',
    schedule='constant',
    learning_rate=1e-3,
)
def cont_steal(student, plan, loss, student_augmentation) -> Attack:
    """Trains the surrogate's view of an image against the answer to another view of the image.

    >>> from ssl_extract import attacks
    >>> attacks.preset('cont_steal')['plan']
    'online'
    """

    def prepare(batch, key, ask, account):
        query_key, student_key = jax.random.split(key)
        answered = plan.ask(batch, query_key, ask, account, 1)
        plain = batch['inputs']
        batch = batch | {
            'inputs': augment.views(student_augmentation, student_key, plain),
            'answers': answered.answers[0],
            'where': answered.where[0],
        }
        return batch, answered.account, answered.ledger

    return Attack(Recipe(student.init, prepare, objective(student, loss), student.heads))
