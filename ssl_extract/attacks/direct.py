"""Direct extraction: training on the representations themselves.

Algorithm 1 of "On the Difficulty of Defending Self-Supervised Learning against Model Extraction"
(ICML 2022, arXiv 2205.07890): minimize `loss(surrogate(x), victim(x))` over the surrogate.
"""

from collections.abc import Callable

import jax

from ssl_extract import augment, losses
from ssl_extract.attacks.base import Attack, Student, make_student, objective, register
from ssl_extract.attacks.plans import Plan
from ssl_extract.training import Recipe

# The differences from the preset below for each loss of the paper's Table 2, as in the code.
PAPER_BY_LOSS = {
    'mse': dict(loss='mse', learning_rate=1e-3, batch_size=64),
    'wasserstein': dict(loss='wasserstein', learning_rate=1e-3, batch_size=64),
    'infonce': dict(loss='infonce(temperature=0.07)', learning_rate=3e-4, batch_size=256),
    'softnn': dict(loss='softnn(temperature=100.0)', learning_rate=1e-3, batch_size=256),
    'supcon': dict(
        loss='supcon(temperature=0.07)',
        plan='views(m=2)',
        query_augmentation='simclr',
        optimizer='sgd(momentum=0.9, weight_decay=1e-4)',
        learning_rate=0.05,
        batch_size=256,
    ),
    'barlow': dict(
        loss='barlow(lambda_=0.0051)',
        plan='views(m=2)',
        query_augmentation='simclr',
        learning_rate=1e-3,
        batch_size=256,
    ),
}


@register(
    'direct',
    adaptive=lambda adapter, **_: adapter,
    per_account=lambda adapter, **_: adapter,
    plan='once',
    loss='mse',
    budget=9_000,
    epochs=100,
    batch_size=64,
    optimizer='adam(weight_decay=1e-4)',
    schedule='cosine',
    learning_rate=1e-3,
)
def direct(
    student, encoder, answer_dim, plan, loss, student_augmentation, accounts, adapter: bool = False
) -> Attack:
    """Trains the surrogate on a view of each query to imitate the answer under `loss`.

    >>> from ssl_extract import attacks
    >>> attacks.preset('direct')['budget']
    9000

    Args:
        adapter: whether a linear map stands between surrogate and answers even where the widths
            agree. The map takes up any affine map of a defense, and is discarded in the end. With
            `attack.overlap=0` each account has a map of its own, so that no query is spent on
            finding how the answers of two accounts fit together.
    """
    if adapter:
        head = 'adapter', f'linear(dim={accounts * answer_dim})'
        student = make_student(encoder, answer_dim, head)
    return Attack(imitate(student, plan, loss, student_augmentation))


def imitate(
    student: Student, plan: Plan, loss: losses.Loss, student_augmentation: Callable
) -> Recipe:
    """Makes the recipe that trains a student on one query of each input and the answer."""

    def prepare(batch, key, ask, account):
        query_key, student_key = jax.random.split(key)
        answered = plan.ask(batch, query_key, ask, account, 1)
        batch = batch | {
            'inputs': augment.views(student_augmentation, student_key, answered.queries[0]),
            'answers': answered.answers[0],
            'where': answered.where[0],
        }
        return batch, answered.account, answered.ledger

    return Recipe(student.init, prepare, objective(student, loss), student.heads)
