"""The legitimate users' stage.

A user has a separate account behind the same defense as the attacker. The user sends labeled
inputs, fits a classifier to the answers, and then sends the test inputs on the same account. The
users of Dziedzic et al. (arXiv 2205.07890, section A.2) train and are tested in the same way
through the noisy API. Each user is measured without a defense too, with the same inputs and
classifier: the difference is the accuracy that the defense costs the user. The kinds of users are
in `ssl_extract.users`.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import attacks, augment, data
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task, intervals
from ssl_extract.evaluation.features import check_features
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.oracle.store import Answers, Queries
from ssl_extract.pipeline import ask, owner, stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.owner import Owner, Service
from ssl_extract.pipeline.sets import Sets
from ssl_extract.users import MODELS, USERS, Predict
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


class UserSettings(NamedTuple):
    """The common settings of the users of a run.

    Attributes:
        task: the task of the users' labeled inputs and test inputs.
        task_spec: the description of the task.
        count: labeled inputs of each user.
        test_count: test inputs of each user; 0 is all.
        model: the spec of the users' classifier.
        probe: the linear probe of the model 'probe'.
        seed: the seed of the users' draws.
        batch_size: queries sent at a time.
    """

    task: Task
    task_spec: dict[str, Any]
    count: int
    test_count: int
    model: str
    probe: str
    seed: int
    batch_size: int


def check_users(run: Run, sets: Sets) -> None:
    """Checks the fields of `legitimate` against the first task, whose sets must have labels.

    Args:
        run: the run.
        sets: the run's data.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    settings = settings_of(run, sets)
    make_model(settings)
    for kind in run.config.legitimate.users:
        visit_of(settings, kind, _answers_classes(attacks.endpoint_of(run.config.attack.name)))


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
        c.legitimate.model,
        c.evaluation.probe,
        c.seed,
        c.attack.batch_size,
    )


def user_rows(run: Run, sets: Sets, victims_owner: Owner) -> dict[str, list[dict[str, Any]]]:
    """Measures the users of a defended victim, with and without the defense.

    The metrics are `user_accuracy`, on the test inputs as the defense answers them;
    `user_accuracy_clean`, of the same classifier on undefended answers to them (none where the
    defense changes the width of the answers); and `noticed.NAME`, what the defense knows of the
    account in the end. Without a defense there are no users.

    Args:
        run: the run.
        sets: the run's data.
        victims_owner: the victim's owner.

    Returns:
        The rows of each measured user, by the address of its stage.
    """
    c, settings = run.config, settings_of(run, sets)
    endpoint, rows = attacks.endpoint_of(c.attack.name), {}
    for kind in c.legitimate.users if c.defense else ():
        for defense in ('', c.defense):
            account = account_spec(run.workspace, victims_owner, settings, kind, endpoint, defense)
            spec = result_spec(settings, account)
            measure_user = functools.partial(
                _measure, run.workspace, victims_owner, settings, kind, endpoint, defense
            )
            result = stage.cached(
                run.workspace, 'legitimate', spec, lambda folder, m=measure_user: m()
            )
            common = {
                'role': 'legitimate',
                'user': kind,
                'endpoint': endpoint,
                'defense': defense,
                'encoder': _name_of(victims_owner),
                'budget': result['sent'],
                'seed': settings.seed,
                **{f'queries_{name}': count for name, count in result['bill'].items()},
                'dollars': result['bill']['billed'] * c.cost.dollars_per_1000_queries / 1000,
                'seconds': result['seconds'],
            }
            where = stage.address(run.workspace, spec)
            rows[where] = [common | {'stage': where} | m for m in result['measured']]
    return rows


def accounts_of(
    run: Run, sets: Sets, victims_owner: Owner
) -> list[tuple[str, str, dict[str, Any], int]]:
    """Returns (user, defense, spec, number of queries) of each account; computes nothing.

    Args:
        run: the run.
        sets: the run's data.
        victims_owner: the victim's owner.
    """
    c, settings = run.config, settings_of(run, sets)
    endpoint, accounts = attacks.endpoint_of(c.attack.name), []
    for kind in c.legitimate.users if c.defense else ():
        count = len(visit_of(settings, kind, _answers_classes(endpoint)).queries.index)
        for defense in ('', c.defense):
            spec = account_spec(run.workspace, victims_owner, settings, kind, endpoint, defense)
            accounts.append((kind, defense, spec, count))
    return accounts


def ask_service(
    workspace: Workspace,
    victims_owner: Owner,
    settings: UserSettings,
    kind: str,
    service: Service,
) -> Answers:
    """Returns the answers to all queries of a user; sends those that the store lacks.

    The budget of a user has no end, so that one compiled program serves all users.

    Args:
        workspace: where results are kept.
        victims_owner: the victim's owner.
        settings: the common settings of the users.
        kind: the spec of the user.
        service: the service that the user queries.
    """
    endpoint, defense = service.spec['endpoint'], service.spec['defense']
    return ask.collect(
        workspace,
        service,
        account_spec(workspace, victims_owner, settings, kind, endpoint, defense),
        account_key(settings, kind),
        visit_of(settings, kind, _answers_classes(endpoint)).queries,
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
) -> dict[str, Any]:
    """Returns what a user's answers depend on.

    Args:
        workspace: where results are kept.
        victims_owner: the victim's owner.
        settings: the common settings of the users.
        kind: the spec of the user.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
    """
    return {
        'stage': 'answers',
        'role': 'legitimate',
        'user': kind,
        **owner.service_spec(workspace, victims_owner, endpoint, defense),
        'inputs': settings.count,
        'test_inputs': settings.test_count,
        'train': settings.task_spec['train'],
        'test': settings.task_spec['test'],
        'seed': settings.seed,
    }


def result_spec(settings: UserSettings, account: dict[str, Any]) -> dict[str, Any]:
    """Returns what a user's measurement depends on; `account` describes the answers."""
    return {
        **account,
        'stage': 'legitimate',
        'task': settings.task_spec['name'],
        'model': settings.model,
        'probe': settings.probe,
    }


def account_key(settings: UserSettings, kind: str) -> jax.Array:
    """Returns the random key of a user's account."""
    return jax.random.key(stage.seed_of(f'legitimate {kind}', settings.seed))


def visit_of(settings: UserSettings, kind: str, answers_classes: bool = False) -> Visit:
    """Returns the queries of a user of `kind`.

    The labeled inputs are the first `count` of the user's classes in the task's training set, in an
    order drawn from the seed, or all of them. A user that is answered with classes has no labeled
    inputs. The test inputs are the first `test_count` of the user's classes, or all of them.

    Args:
        settings: the common settings of the users.
        kind: the spec of the user.
        answers_classes: whether the endpoint answers with classes.

    Raises:
        UserError: there is no such user, or the task has no inputs of its classes.


    """
    user, task, seed = USERS.make(kind), settings.task, settings.seed
    try:
        classes = user.classes(np.random.default_rng((seed, 4)), task.train.num_classes)
    except UserError as error:
        raise UserError(f'legitimate.users has {kind!r}: {error}') from error
    order = np.random.default_rng((seed, 5)).permutation(len(task.train.inputs))
    train = order[np.isin(task.train.labels[order], classes)][: settings.count]
    test = np.flatnonzero(np.isin(task.test.labels, classes))[: settings.test_count or None]
    for chosen, dataset in ((train, task.train), (test, task.test)):
        if not len(chosen):
            raise UserError(
                f'legitimate.users has {kind!r}: {dataset.name} has no image of its classes '
                f'{sorted(map(int, classes))}; write a larger split, or another user'
            )
    train = train[:0] if answers_classes else train
    repeated = np.repeat(np.arange(len(train)), max(user.views, 1))
    index = np.concatenate([repeated, len(train) + np.arange(len(test))])
    seeds = np.zeros(len(index), np.uint32)
    if user.views:  # above 0, which stands for the input as it is
        drawn = np.random.default_rng((seed, 6)).integers(1, 2**32, len(repeated), np.uint32)
        seeds[: len(repeated)] = drawn
    inputs = np.concatenate([task.train.inputs[train], task.test.inputs[test]])
    view = _view(user.augmentation) if user.views else None
    queries = Queries(inputs, index, seeds, view, data.decoder(task.train))
    return Visit(queries, task.train.labels[train][repeated], task.test.labels[test])


def fit_model(settings: UserSettings, features: np.ndarray, labels: np.ndarray) -> Predict | None:
    """Fits the user's model to its answers; None where they are of fewer than two classes.

    Args:
        settings: the common settings of the users.
        features: float32[M, D], the answers.
        labels: int[M].
    """
    classes, targets, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        return None
    single = counts[targets] == 1  # given twice: a probe needs one to learn from, one to validate
    features = np.concatenate([features, features[single]])
    targets = np.concatenate([targets, targets[single]])
    classify = make_model(settings)(features, targets, len(classes))
    return lambda features: classes[classify(check_features(features))]


def make_model(settings: UserSettings) -> Callable[..., Predict]:
    """Makes the classifier of the users."""
    return MODELS.make(settings.model, probe=settings.probe, seed=settings.seed)


def _measure(
    workspace: Workspace,
    victims_owner: Owner,
    settings: UserSettings,
    kind: str,
    endpoint: str,
    defense: str,
) -> dict[str, Any]:
    """Measures a user of `kind`: sends the queries, fits the classifier, tests it.

    A test input that is not answered counts as wrong. A user with answers to fewer than two of its
    classes has no classifier: the user guesses the commonest class of the labeled inputs, answered
    or not. A user that is answered with classes needs no classifier: the largest coordinate is the
    prediction.
    """
    started, classes = time.monotonic(), _answers_classes(endpoint)
    visit = visit_of(settings, kind, classes)
    service = owner.serve(workspace, victims_owner, endpoint, defense)
    answers = ask_service(workspace, victims_owner, settings, kind, service)
    num_labeled = len(visit.labels)
    answered = answers.granted[:num_labeled]
    features, granted = answers.representations[num_labeled:], answers.granted[num_labeled:]
    if classes:
        classify = functools.partial(np.argmax, axis=1)
    else:
        own_features = answers.representations[:num_labeled][answered]
        classify = fit_model(settings, own_features, visit.labels[answered])
    if classify is None:
        granted = np.ones_like(granted)
        commonest = np.bincount(visit.labels).argmax()
        classify = lambda features: np.full(len(features), commonest)  # noqa: E731
    measured = []

    def add(metric: str, predictions: np.ndarray) -> None:
        accuracy = intervals.accuracy(predictions, visit.test_labels)
        measured.append({'task': settings.task.name, 'metric': metric, **accuracy._asdict()})

    add('user_accuracy', np.where(granted, classify(features), -1))
    if defense:
        undefended = owner.serve(workspace, victims_owner, endpoint, '')
        clean = ask_service(workspace, victims_owner, settings, kind, undefended)
        clean_features = clean.representations[num_labeled:]
        if clean_features.shape == features.shape:
            add('user_accuracy_clean', classify(clean_features))
    for name, value in answers.noticed.items():
        if math.isfinite(value):
            measured.append({'metric': f'noticed.{name}', 'value': value})
    return {
        'measured': measured,
        'sent': len(visit.queries.index),
        'bill': answers.bill._asdict(),
        'seconds': round(time.monotonic() - started, 2),
    }


def _answers_classes(endpoint: str) -> bool:
    return endpoints.gives(endpoint) == 'probabilities'


def _name_of(victims_owner: Owner) -> str:
    victim = victims_owner.victim
    return victim.encoder.spec if victim.encoder else victim.address


@functools.cache
def _view(augmentation: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes views by their seeds; a seed of 0 is the input as it is."""
    op = augment.make(augmentation)

    def view(inputs: jax.Array, seeds: jax.Array) -> jax.Array:
        augmented = jax.vmap(op)(jax.vmap(jax.random.key)(seeds), inputs)
        plain = (seeds == 0).reshape(-1, *[1] * (inputs.ndim - 1))
        return jnp.where(plain, inputs, augmented)

    return view
