"""Query plans: the views that are asked of each image, and when.

Under a *stored* plan (`once`, `views(m)`, `repeat(m)`) the queries are asked before training and
lie beside the images in the training arrays: `answers` float32[N, m, D], `answered` bool[N, m] (an
odd budget ends within an image's views) and `view_seeds` uint32[N, m], from which a view is made
again on the device. Under `online` every step asks fresh views until the budget is spent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import augment
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import fingerprint
from ssl_extract.registry import Registry

PLANS = Registry('query plan', adaptive=False)  # whether it acts against a defense
register = PLANS.register
AS_IT_IS = augment.make('')


class Asked(NamedTuple):
    """Views of a batch and the answers to them.

    Attributes:
        queries: float[K, B, ...], K views of each image, as they were sent.
        answers: float32[K, B, D].
        where: bool[K, B], whether it was answered.
        account: the account after asking.
        ledger: for `Recipe.prepare`.
    """

    queries: jax.Array
    answers: jax.Array
    where: jax.Array
    account: Any
    ledger: Any


class Plan(NamedTuple):
    """When and what an attack asks.

    Attributes:
        stored: m, the views of each image that are asked beforehand; 0 where a step asks.
        view: `(inputs float[B, ...], seeds uint32[B]) -> queries`, of a stored plan; None
            where the images are asked as they are.
        ask: `(batch, key, ask, account, count) -> Asked`, in a training step: `count` views of each
            image with their answers.
    """

    stored: int
    view: Callable[..., jax.Array] | None
    ask: Callable[..., Asked]


@register('once')
def once() -> Plan:
    """Each image is asked one time, as it is; all views of a step are that image."""

    def ask(batch, key, ask, account, count):
        answers, where = batch['answers'][:, 0], batch['answered'][:, 0]
        return Asked(*(_repeat(x, count) for x in (batch['inputs'], answers, where)), account, None)

    return Plan(1, None, ask)


@register('views')
def views(m: int = 10, query_augmentation: augment.Op = AS_IT_IS) -> Plan:
    """m augmented views of each image are asked one time each; a step draws among them.

    Raises:
        UserError: m is not a whole number above 0; a step needs more views of an image than m.
    """
    _check_m(m)

    def view(inputs, seeds):
        return jax.vmap(query_augmentation)(jax.vmap(jax.random.key)(seeds), inputs)

    def ask(batch, key, ask, account, count):
        if count > m:
            raise UserError(
                f'a step works with {count} views of an image, and the plan stores {m}: write '
                f"attack.plan='views(m={count})'"
            )
        inputs, answered = batch['inputs'], batch['answered']
        drawn = jax.random.uniform(key, answered.shape) + ~answered  # those without answer last
        which = jnp.argsort(drawn, axis=1)[:, :count]
        seeds = jnp.take_along_axis(batch['view_seeds'], which, axis=1)
        answers = jnp.take_along_axis(batch['answers'], which[..., None], axis=1)
        where = jnp.take_along_axis(answered, which, axis=1)
        queries = jnp.stack([view(inputs, seeds[:, k]) for k in range(count)])
        return Asked(queries, jnp.swapaxes(answers, 0, 1), where.T, account, None)

    return Plan(m, view, ask)


@register('repeat', adaptive=True)
def repeat(m: int = 4) -> Plan:
    """Each image is asked m times as it is; all views of a step are that image and its mean answer.

    The adversary of noise that is drawn anew for every query (`defenses.gaussian_noise`): the mean
    of m answers has 1/m of its variance. The repeats are billed like any other query, and are in
    vain where a defense answers the same image alike.

    Raises:
        UserError: m is not a whole number above 0.
    """
    _check_m(m)

    def ask(batch, key, ask, account, count):
        inputs, answered = batch['inputs'], batch['answered']
        number = answered.sum(axis=1)
        total = jnp.where(answered[..., None], batch['answers'], 0).sum(axis=1)
        answers = total / jnp.maximum(number, 1)[:, None]
        return Asked(*(_repeat(x, count) for x in (inputs, answers, number > 0)), account, None)

    return Plan(m, None, ask)


@register('online')
def online(query_augmentation: augment.Op = AS_IT_IS) -> Plan:
    """Every step asks fresh views of each image of its batch, all views of one image in a row."""

    def ask(batch, key, ask, account, count):
        inputs = jnp.repeat(batch['inputs'], count, axis=0)
        queries = augment.views(query_augmentation, key, inputs)
        answer, account = ask(queries, account)
        ledger = fingerprint(queries), answer.granted
        parts = (queries, answer.representations, answer.granted)
        apart = [jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1) for x in parts]
        return Asked(*apart, account, ledger)

    return Plan(0, None, ask)


def view_seeds(plan: Plan, size: int, seed: int) -> np.ndarray:
    """uint32[size, m], the seed of each view of each input under a stored plan.

    Inputs that are asked as they are have 0, 1, ..., to ask them again.
    """
    if plan.view is None:
        return np.tile(np.arange(plan.stored, dtype=np.uint32), (size, 1))
    rng = np.random.default_rng((seed, 3))
    return rng.integers(2**32, size=(size, plan.stored), dtype=np.uint32)


def sent_views(seeds: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """(index int[Q], seed uint32[Q]) of the views that the budget pays for.

    An odd budget ends within an input's views.

    Args:
        seeds: uint32[N, m], of the inputs to ask, in their order.
        budget: queries.
    """
    count = min(budget, seeds.size)
    return np.repeat(np.arange(len(seeds)), seeds.shape[1])[:count], seeds.ravel()[:count]


def stored_arrays(
    seeds: np.ndarray, representations: np.ndarray, granted: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays that a stored plan works on, from answers to `sent_views`.

    Args:
        seeds: uint32[N, m].
        representations: float32[Q, D], Q <= N m, in the order sent.
        granted: bool[Q].

    Returns:
        answers float32[N, m, D], answered bool[N, m] and view_seeds uint32[N, m].
    """
    answers = np.zeros((seeds.size, representations.shape[1]), np.float32)
    answers[: len(representations)] = representations
    answered = np.zeros(seeds.size, bool)
    answered[: len(granted)] = granted
    return {
        'answers': answers.reshape(*seeds.shape, -1),
        'answered': answered.reshape(seeds.shape),
        'view_seeds': seeds,
    }


def _check_m(m: Any) -> None:
    if not isinstance(m, int) or isinstance(m, bool) or m < 1:
        raise UserError(f'm={m!r}: write a whole number of at least 1')


def _repeat(x: jax.Array, count: int) -> jax.Array:
    return jnp.broadcast_to(x, (count, *x.shape))
