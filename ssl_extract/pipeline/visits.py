"""The queries of legitimate users and their accounts."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import augment, data
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.oracle.queries import Queries
from ssl_extract.oracle.store import Answers
from ssl_extract.pipeline import ask, services, stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.owner import Owner
from ssl_extract.pipeline.services import Service
from ssl_extract.pipeline.sets import Sets
from ssl_extract.recovery import Received
from ssl_extract.users import USERS, User
from ssl_extract.victims import endpoints


class Visit(NamedTuple):
    """The queries of a user: its labeled inputs, then the test inputs.

    Attributes:
        queries: the first `len(labels)` are the labeled inputs, the others the test inputs.
        labels: int[M], of the labeled inputs, one for each query.
        test_labels: int[N], of the test inputs.
    """

    queries: Queries
    labels: np.ndarray
    test_labels: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """Returns int[M], the number of the labeled input of each query."""
        return self.queries.index[: len(self.labels)]


class UserSettings(NamedTuple):
    """The common settings of the users of a run.

    Attributes:
        task: the task of the users' labeled inputs and test inputs.
        task_spec: the description of the task.
        count: labeled inputs of each user.
        test_count: test inputs of each user; 0 is all.
        augmentation: of the victim's pretraining, which users follow who name none.
        recover: the chains of recoveries that a user chooses among; the first is '', none.
        repeats: how often a user may ask each input, to average; the first is 1.
        model: the spec of the users' classifier.
        probe: the linear probe of the model 'probe'.
        seed: the seed of the users' draws.
        batch_size: queries sent at a time.
    """

    task: Task
    task_spec: dict[str, Any]
    count: int
    test_count: int
    augmentation: str
    recover: tuple[str, ...]
    repeats: tuple[int, ...]
    model: str
    probe: str
    seed: int
    batch_size: int


def settings_of(run: Run, sets: Sets) -> UserSettings:
    """Returns the settings of the users that a config describes.

    Args:
        run: the run.
        sets: the run's data.
    """
    c = run.config
    return UserSettings(
        sets.tasks[0],
        sets.tasks_spec[0],
        c.legitimate.images,
        c.legitimate.test_images,
        c.victim.augmentation,
        tuple(c.legitimate.recover),
        tuple(c.legitimate.repeats),
        c.legitimate.model,
        c.evaluation.probe,
        c.seed,
        c.attack.batch_size,
    )


def repeats_of(settings: UserSettings, endpoint: str, defense: str) -> tuple[int, ...]:
    """Returns how often a user asks each input, one account for each number.

    Undefended answers do not change, so that asking again would average nothing. A user that is
    answered with classes has no labeled inputs to choose by.

    Args:
        settings: the common settings of the users.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
    """
    return settings.repeats if defense and not answers_classes(endpoint) else (1,)


def visit_of(
    settings: UserSettings, kind: str, answers_classes: bool = False, repeats: int = 1
) -> Visit:
    """Returns the queries of a user of `kind`.

    The labeled inputs are the first `count` of the user's classes in the task's training set, in an
    order drawn from the seed, or all of them. A user that is answered with classes has no labeled
    inputs. The test inputs are the first `test_count` of the user's classes, or all of them.

    Args:
        settings: the common settings of the users.
        kind: the spec of the user.
        answers_classes: whether the endpoint answers with classes.
        repeats: how often each query is asked, one time after the other.

    Raises:
        UserError: there is no such user, or the task has no inputs of its classes.
    """
    user, task, seed = USERS.make(kind), settings.task, settings.seed
    present = np.unique(task.train.labels)
    try:
        classes = present[user.classes(np.random.default_rng((seed, 4)), len(present))]
    except (UserError, IndexError) as error:
        raise UserError(f'legitimate.users has {kind!r}: {error}') from error
    order = np.random.default_rng((seed, 5)).permutation(len(task.train.inputs))
    train = order[np.isin(task.train.labels[order], classes)][: settings.count]
    test = np.flatnonzero(np.isin(task.test.labels, classes))[: settings.test_count or None]
    for chosen, dataset in ((train, task.train), (test, task.test)):
        if not len(chosen):
            raise UserError(
                f'legitimate.users has {kind!r}: {dataset.name} has no input of its classes '
                f'{sorted(map(int, classes))}; write a larger split, or another user'
            )
    train = train[:0] if answers_classes else train
    repeated = np.repeat(np.arange(len(train)), max(user.views, 1))
    index = np.concatenate([repeated, len(train) + np.arange(len(test))])
    seeds = np.zeros(len(index), np.uint32)
    if user.views:  # above 0, which stands for the input as it is
        rng = np.random.default_rng((seed, 6))
        seeds[: len(repeated)] = rng.integers(1, 2**32 // repeats, len(repeated), np.uint32)
    # The store tells queries apart by their seeds, so each repetition has a seed of its own: that
    # of its view times `repeats`, plus the number of the repetition.
    seeds = (seeds[:, None] * np.uint32(repeats) + np.arange(repeats, dtype=np.uint32)).ravel()
    inputs = np.concatenate([task.train.inputs[train], task.test.inputs[test]])
    view = _view(augmentation_of(settings, user), repeats) if user.views else None
    index = np.repeat(index, repeats)
    queries = Queries(inputs, index, seeds, view, data.decoder(task.train))
    return Visit(queries, task.train.labels[train][repeated], task.test.labels[test])


def ask_service(
    workspace: Workspace,
    victims_owner: Owner,
    settings: UserSettings,
    kind: str,
    service: Service,
    repeats: int = 1,
) -> Answers:
    """Returns the answers to all queries of a user; sends those that the store lacks.

    The budget of a user has no end, so that one compiled program serves all users.

    Args:
        workspace: where results are kept.
        victims_owner: the victim's owner.
        settings: the common settings of the users.
        kind: the spec of the user.
        service: the service that the user queries.
        repeats: how often each query is asked.
    """
    endpoint, defense = service.spec['endpoint'], service.spec['defense']
    return ask.collect(
        workspace,
        service,
        account_spec(workspace, victims_owner, settings, kind, endpoint, defense, repeats),
        account_key(settings, kind, repeats),
        visit_of(settings, kind, answers_classes(endpoint), repeats).queries,
        budget=MAX_BUDGET,
        batch_size=settings.batch_size,
        description=f'{kind} user asks',
    )


def account_spec(
    workspace: Workspace,
    victims_owner: Owner,
    settings: UserSettings,
    kind: str,
    endpoint: str,
    defense: str,
    repeats: int = 1,
) -> dict[str, Any]:
    """Returns what a user's answers depend on.

    Args:
        workspace: where results are kept.
        victims_owner: the victim's owner.
        settings: the common settings of the users.
        kind: the spec of the user.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
        repeats: how often each query is asked.
    """
    user = USERS.make(kind)
    return {
        'stage': 'answers',
        'role': 'legitimate',
        'user': kind,
        **services.service_spec(workspace, victims_owner, endpoint, defense),
        'inputs': settings.count,
        'test_inputs': settings.test_count,
        'train': settings.task_spec['train'],
        'test': settings.task_spec['test'],
        'seed': settings.seed,
        **({'augmentation': augmentation_of(settings, user)} if user.views else {}),
        **({'repeats': repeats} if repeats > 1 else {}),
    }


def account_key(settings: UserSettings, kind: str, repeats: int = 1) -> jax.Array:
    """Returns the random key of a user's account."""
    words = f'legitimate {kind}' + (f' {repeats} times' if repeats > 1 else '')
    return jax.random.key(stage.seed_of(words, settings.seed))


def augmentation_of(settings: UserSettings, user: User) -> str:
    """Returns the augmentation of a user's views: the user's own, or the victim's."""
    return user.augmentation or settings.augmentation


def received_of(visit: Visit, answers: Answers, repeats: int = 1) -> Received:
    """Returns the answers to each query of a visit.

    Args:
        visit: the queries, each one time.
        answers: to the queries, `repeats` answers to each in a row.
        repeats: how often each query was asked.
    """
    shape = -1, repeats, answers.representations.shape[1]
    return Received(
        visit.queries.inputs[visit.queries.index],
        answers.representations.reshape(shape),
        answers.granted.reshape(-1, repeats),
    )


def answers_classes(endpoint: str) -> bool:
    """Returns whether an endpoint answers with classes, which users take as they are."""
    return endpoints.gives(endpoint) == 'probabilities'


@functools.cache
def _view(augmentation: str, repeats: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes views by their seeds, which hold repetitions; a view 0 is the input as it is."""
    op = augment.make(augmentation)

    def view(inputs: jax.Array, seeds: jax.Array) -> jax.Array:
        seeds = seeds // repeats
        augmented = jax.vmap(op)(jax.vmap(jax.random.key)(seeds), inputs)
        plain = (seeds == 0).reshape(-1, *[1] * (inputs.ndim - 1))
        return jnp.where(plain, inputs, augmented)

    return view
