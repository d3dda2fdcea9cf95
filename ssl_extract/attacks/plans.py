"""Query plans: the views of each input to ask, and the time to ask.

Under a *stored* plan (`once`, `views(m)`, `repeat(m)`, `near_duplicates(m)`) the queries are asked
before training. The answers lie beside the inputs in the training arrays: `answers` float32[N, m,
D], `answered` bool[N, m] (an odd budget ends within an input's views) and `view_seeds` uint32[N,
m], from which a view is made again on the device. Under `online` every step asks fresh views until
the budget is spent.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import augment
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import fingerprint
from ssl_extract.numerics import finite_rows
from ssl_extract.ranges import Range
from ssl_extract.registry import Registry

# The traits of a query plan.
# adaptive: whether the plan acts on a defense.
# augments: whether a query is a view of the input under `attack.query_augmentation`.
# changes: whether a query is the input with other numbers, which inputs with padding are not.
PLANS = Registry('query plan', adaptive=False, augments=False, changes=False)
register = PLANS.register
Views = Annotated[int, Range(1, 10_000)]  # of an input
AS_IT_IS = augment.make('')


class Answered(NamedTuple):
    """Views of a batch and the answers to them.

    Attributes:
        queries: float[K, B, ...], K views of each input, as sent.
        answers: float32[K, B, D].
        where: bool[K, B], the answered views.
        account: the account after asking.
        ledger: for `Recipe.prepare`.
    """

    queries: jax.Array
    answers: jax.Array
    where: jax.Array
    account: Any
    ledger: Any


class Plan(NamedTuple):
    """The queries of an attack.

    Attributes:
        stored: m, the number of views of each input that are asked before training; 0 where the
            steps ask.
        view: `(inputs float[B, ...], seeds uint32[B]) -> queries`, of a stored plan; None where
            inputs are asked as they are.
        ask: `(batch, key, ask, account, count) -> Answered`, in a training step: `count` views of
            each input with the answers.
    """

    stored: int
    view: Callable[..., jax.Array] | None
    ask: Callable[..., Answered]


@register('once')
def once() -> Plan:
    """Asks each input one time, as it is; all views of a step are the input.

    >>> once().stored
    1
    """

    def ask(batch, key, ask, account, count):
        answers, where = batch['answers'][:, 0], batch['answered'][:, 0]
        return Answered(
            *(_repeat(x, count) for x in (batch['inputs'], answers, where)), account, None
        )

    return Plan(1, None, ask)


@register('views', augments=True)
def views(m: Views = 10, query_augmentation: augment.Op = AS_IT_IS) -> Plan:
    """Asks m augmented views of each input one time each; a step draws among the views.

    >>> views(m=3).stored
    3

    Args:
        m: number of views of each input.
        query_augmentation: `(key, input) -> view`.

    Raises:
        UserError: m is not a whole number above 0; a step needs more than m views of an input.
    """

    def view(inputs, seeds):
        return jax.vmap(query_augmentation)(jax.vmap(jax.random.key)(seeds), inputs)

    def ask(batch, key, ask, account, count):
        if count > m:
            raise UserError(
                f'a step works with {count} views of an input, and the plan stores {m}: write '
                f"attack.plan='views(m={count})'"
            )
        inputs, answered = batch['inputs'], batch['answered']
        drawn = jax.random.uniform(key, answered.shape) + ~answered  # views without answer last
        which = jnp.argsort(drawn, axis=1)[:, :count]
        seeds = jnp.take_along_axis(batch['view_seeds'], which, axis=1)
        answers = jnp.take_along_axis(batch['answers'], which[..., None], axis=1)
        where = jnp.take_along_axis(answered, which, axis=1)
        queries = jnp.stack([view(inputs, seeds[:, k]) for k in range(count)])
        return Answered(queries, jnp.swapaxes(answers, 0, 1), where.T, account, None)

    return Plan(m, view, ask)


@register('repeat', adaptive=True)
def repeat(m: Views = 4) -> Plan:
    """Asks each input m times as it is; all views of a step are the input and the mean answer.

    The plan is the adversary of noise that is drawn anew for every query
    (`defenses.gaussian_noise`): the mean of m answers has 1/m of the variance. The repeats are
    billed like any other query, and are in vain where a defense answers the same input alike.

    >>> repeat(m=4).stored
    4

    Args:
        m: number of queries of each input.

    Raises:
        UserError: m is not a whole number above 0.
    """
    return Plan(m, None, _ask_mean)


@register('near_duplicates', adaptive=True, changes=True)
def near_duplicates(m: Views = 4) -> Plan:
    """Asks m copies of each input, each with one value changed by 1/255, and averages the answers.

    The plan is the adversary of noise that is drawn by the content of the input
    (`gaussian_noise(keyed_by="image")`) and of a defense that looks for equal inputs. The victim
    hardly sees the change, and each copy is another input with other noise, so that the mean of m
    answers has 1/m of the variance. The copies are billed like any other query. The place of the
    change is drawn: of the pairs of copies of an input with V values, one in V is alike.

    >>> near_duplicates(m=4).stored
    4

    Args:
        m: number of copies of each input.

    Raises:
        UserError: m is not a whole number above 0.
    """
    return Plan(m, _nudge, _ask_mean)


@register('online', augments=True)
def online(query_augmentation: augment.Op = AS_IT_IS) -> Plan:
    """Asks fresh views of each input of a batch in every step, all views of one input in a row.

    >>> online().stored
    0

    Args:
        query_augmentation: `(key, input) -> view`.
    """

    def ask(batch, key, ask, account, count):
        inputs = jnp.repeat(batch['inputs'], count, axis=0)
        queries = augment.views(query_augmentation, key, inputs)
        answer, account = ask(queries, account)
        ledger = fingerprint(queries), answer.granted
        parts = (queries, answer.representations, answer.granted)
        apart = [jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1) for x in parts]
        return Answered(*apart, account, ledger)

    return Plan(0, None, ask)


def view_seeds(plan: Plan, size: int, seed: int) -> np.ndarray:
    """Draws the seed of each view of each input under a stored plan, uint32[size, m].

    Inputs without views have the seeds 0, 1, ..., for repeated queries.
    """
    if plan.view is None:
        return np.tile(np.arange(plan.stored, dtype=np.uint32), (size, 1))
    rng = np.random.default_rng((seed, 3))
    return rng.integers(2**32, size=(size, plan.stored), dtype=np.uint32)


def sent_views(seeds: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the views that the budget pays for; an odd budget ends within an input's views.

    Args:
        seeds: uint32[N, m], of the inputs to ask, in order.
        budget: number of queries.

    Returns:
        (index int[Q], seed uint32[Q]).
    """
    count = min(budget, seeds.size)
    return np.repeat(np.arange(len(seeds)), seeds.shape[1])[:count], seeds.ravel()[:count]


def stored_arrays(
    seeds: np.ndarray, representations: np.ndarray, granted: np.ndarray
) -> dict[str, np.ndarray]:
    """Makes the training arrays of a stored plan from the answers to `sent_views`.

    Args:
        seeds: uint32[N, m].
        representations: float32[Q, D], Q <= N m, in the order of the queries.
        granted: bool[Q].

    Returns:
        answers float32[N, m, D], answered bool[N, m] and view_seeds uint32[N, m].

    Raises:
        UserError: a granted answer is not finite.
    """
    finite = finite_rows(representations)
    if not finite[granted].all():
        raise UserError(
            f'{np.sum(~finite & granted)} of {np.sum(granted)} answers hold NaN or infinity: the '
            'victim has diverged, or its defense overflows; query another'
        )
    answers = np.asanyarray(representations, np.float32)  # many lie in a file, and stay there
    if len(answers) < seeds.size:
        answers = np.zeros((seeds.size, representations.shape[1]), np.float32)
        answers[: len(representations)] = representations
    answered = np.zeros(seeds.size, bool)
    answered[: len(granted)] = granted
    return {
        'answers': answers.reshape(*seeds.shape, -1),
        'answered': answered.reshape(seeds.shape),
        'view_seeds': seeds,
    }


def _ask_mean(batch: Any, key: Any, ask: Any, account: Any, count: int) -> Answered:
    """Gives the input and the mean of its answers, as all views of a step."""
    inputs, answered = batch['inputs'], batch['answered']
    number = answered.sum(axis=1)
    total = jnp.where(answered[..., None], batch['answers'], 0).sum(axis=1)
    answers = total / jnp.maximum(number, 1)[:, None]
    return Answered(*(_repeat(x, count) for x in (inputs, answers, number > 0)), account, None)


def _nudge(inputs: jax.Array, seeds: jax.Array) -> jax.Array:
    """Changes one value of each input [B, ...] in [0, 1] by 1/255, a step of 8 bits."""
    flat, rows = jnp.asarray(inputs).reshape(len(inputs), -1), jnp.arange(len(inputs))
    places = seeds % flat.shape[1]
    values = flat[rows, places]
    changed = flat.at[rows, places].add(jnp.where(values < 0.5, 1, -1) / 255)
    return changed.reshape(inputs.shape)


def _repeat(x: jax.Array, count: int) -> jax.Array:
    return jnp.broadcast_to(x, (count, *x.shape))
