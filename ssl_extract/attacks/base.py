"""The registry of attacks, and the query plans: when an attack asks and what the student sees.

A *collected* attack has the answers to its images in its training arrays; an *online* one asks
fresh views inside the compiled step until the budget is spent.
"""

from collections.abc import Callable

import jax

from ssl_extract import augment
from ssl_extract.answers import fingerprint
from ssl_extract.registry import Registry

ATTACKS = Registry('attack')
PLANS = Registry('query plan')


@PLANS.register('once')
def once(student_augmentation: Callable) -> Callable:
    """Each image was asked one time, unaugmented; many epochs on the stored answers are free.

    The student sees a view of its own under `student_augmentation`; the target stays the answer to
    the plain image.
    """

    def prepare(batch, key: jax.Array, oracle, oracle_state):
        images = augment.to_float(batch['images'])
        batch = batch | {'images': augment.views(student_augmentation, key, images), 'where': None}
        return batch, oracle_state, None

    return prepare


@PLANS.register('online')
def online(query_augmentation: Callable, student_augmentation: Callable) -> Callable:
    """Every step asks a fresh view of each image; the student sees a view of that view."""

    def prepare(batch, key: jax.Array, oracle, oracle_state):
        query_key, student_key = jax.random.split(key)
        queries = augment.views(query_augmentation, query_key, augment.to_float(batch['images']))
        answer, oracle_state = oracle.query(queries, oracle_state)
        batch = batch | {
            'images': augment.views(student_augmentation, student_key, queries),
            'answers': answer.representations,
            'where': answer.granted,
        }
        return batch, oracle_state, (fingerprint(queries), answer.granted)

    return prepare
