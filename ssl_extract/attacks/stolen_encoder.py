"""StolenEncoder, extraction with free views of the asked images.

Liu et al., CCS 2022, arXiv 2201.05889.

Each image is asked once, as it is. The surrogate f imitates the answer y on the image, and on
augmented views of the image too, which costs no further query:

    L = d(y, f(x)) + lambda / k * sum_{j=1..k} d(y, f(augment_j(x))),

with d the Euclidean distance of the normalized representations (`l2`), and lambda = 9 and k = 9 as
in the authors' code (github.com/liu00222/StolenEncoder). RDA's reimplementation of this attack has
lambda = 20 and k = 1, which is `stolen_encoder(lambda_=20.0, views=1)` with `attack.loss='mse'`.
"""

import jax
import jax.numpy as jnp

from ssl_extract import augment
from ssl_extract.attacks.base import Attack, Views, objective, register, stacked
from ssl_extract.ranges import NotNegative
from ssl_extract.training import Recipe


@register(
    'stolen_encoder',
    plan='once',
    loss='l2',
    student_augmentation='flip | color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8) | grayscale(p=0.2)',
    budget=2_500,
    epochs=100,
    batch_size=64,
    # 1e-3 and 5e-4 in the authors' code, which sums the distance over the batch of 64.
    optimizer='sgd(momentum=0.9, weight_decay=7.8e-6)',
    schedule='constant',
    learning_rate=0.064,
)
def stolen_encoder(
    student, plan, loss, student_augmentation, lambda_: NotNegative = 9.0, views: Views = 9
) -> Attack:
    """Trains the surrogate to imitate the answer on the image and on augmented views of the image.

    >>> from ssl_extract import attacks
    >>> attacks.preset('stolen_encoder')['loss']
    'l2'

    Args:
        lambda_: weight of the augmented views.
        views: k, the number of augmented views in a step. Each view costs another pass through the
            surrogate.

    Raises:
        UserError: `lambda_` is negative or `views` is not a whole number above 0.
    """

    def prepare(batch, key, ask, account):
        query_key, *keys = jax.random.split(key, 1 + views)
        answered = plan.ask(batch, query_key, ask, account, 1)
        seen = [augment.views(student_augmentation, k, answered.queries[0]) for k in keys]
        batch = batch | {
            'inputs': stacked(jnp.concatenate([answered.queries, jnp.stack(seen)])),
            'answers': answered.answers[0],
            'where': answered.where[0],
        }
        return batch, answered.account, answered.ledger

    weights = (1.0, *(lambda_ / views,) * views)
    return Attack(Recipe(student.init, prepare, objective(student, loss, weights), student.heads))
