"""The legitimate users' stage.

A user has a separate account behind the same defense as the attacker. The user sends labeled
inputs, fits a classifier to the answers, and then sends the test inputs on the same account. The
users of Dziedzic et al. (arXiv 2205.07890, section A.2) train and are tested in the same way
through the noisy API. Each user adapts to the defense, and its number is that of the adaptation
which does best on validation inputs of its own (`ssl_extract.users.adapting`). Each user is
measured without a defense too, with the same inputs, classifier and choice: the difference is the
accuracy that the defense costs the user. The kinds of users are in `ssl_extract.users`.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ssl_extract import attacks, augment, data, users
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.evaluation.features import check_features
from ssl_extract.oracle.store import Bill
from ssl_extract.pipeline import rows as rows_lib
from ssl_extract.pipeline import services, stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.owner import Owner
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.visits import (
    UserSettings,
    Visit,
    account_spec,
    answers_classes,
    ask_service,
    augmentation_of,
    received_of,
    repeats_of,
    settings_of,
    visit_of,
)


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
    if not settings.recover or settings.recover[0]:
        raise UserError(
            f"legitimate.recover={settings.recover}: write '' first, for a user that leaves the "
            'answers as they are'
        )
    for recover in settings.recover:
        users.check(recover)
    if settings.repeats[:1] != (1,):
        raise UserError(
            f'legitimate.repeats={settings.repeats}: write 1 first, for a user that asks once'
        )
    classes = answers_classes(attacks.endpoint_of(run.config.attack.name))
    for kind in run.config.legitimate.users:
        user = users.USERS.make(kind)
        if run.config.defense:  # without one, no user asks
            visit_of(settings, kind, classes)
            if user.views and not classes:
                takes = augment.takes(augmentation_of(settings, user))
                data.check_kind(settings.task.train, takes, f'legitimate.users has {kind!r}, which')


def user_rows(run: Run, sets: Sets, victims_owner: Owner) -> dict[str, list[dict[str, Any]]]:
    """Measures the users of a defended victim, with and without the defense.

    The metrics are `user_accuracy`, on the test inputs as the defense answers them;
    `user_accuracy_plain`, of the same user if it takes the answers as they are;
    `user_accuracy_clean`, of the first classifier on undefended answers (none where the defense
    changes the width of the answers); and `noticed.NAME`, what the defense knows of the account in
    the end. The bill is that of the account whose answers the user chose: who asks each input four
    times pays four times. Without a defense there are no users.

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
                'encoder': victims_owner.victim.name,
                'adaptation': result['adaptation'],
                'budget': result['inputs'],
                'seed': settings.seed,
                **Bill(**result['bill']).columns(),
                'dollars': result['bill']['billed'] * c.cost.dollars_per_1000_queries / 1000,
                'seconds': result['seconds'],
            }
            where = stage.address(run.workspace, spec)
            rows[where] = [
                common | {'stage': where} | rows_lib.presentation(m['metric']) | m
                for m in result['measured']
            ]
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
        count = len(visit_of(settings, kind, answers_classes(endpoint)).queries.index)
        for defense in ('', c.defense):
            asks = functools.partial(
                account_spec, run.workspace, victims_owner, settings, kind, endpoint, defense
            )
            for repeats in repeats_of(settings, endpoint, defense):
                accounts.append((kind, defense, asks(repeats), count * repeats))
    return accounts


def result_spec(settings: UserSettings, account: dict[str, Any]) -> dict[str, Any]:
    """Returns what a user's measurement depends on; `account` describes the answers."""
    return {
        **account,
        'stage': 'legitimate',
        'task': settings.task_spec['name'],
        'model': settings.model,
        'probe': settings.probe,
        'recover': settings.recover,
        'repeats': settings.repeats,
    }


def fit_model(
    settings: UserSettings, features: np.ndarray, labels: np.ndarray
) -> users.Predict | None:
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


def make_model(settings: UserSettings) -> Callable[..., users.Predict]:
    """Makes the classifier of the users."""
    return users.MODELS.make(settings.model, probe=settings.probe, seed=settings.seed)


def _measure(
    workspace: Workspace,
    victims_owner: Owner,
    settings: UserSettings,
    kind: str,
    endpoint: str,
    defense: str,
) -> dict[str, Any]:
    """Measures a user of `kind`: sends the queries, adapts, fits the classifier, tests it.

    A test input that is not answered counts as wrong. A user with answers to fewer than two of its
    classes has no classifier: the user guesses the commonest class of the labeled inputs, answered
    or not. A user that is answered with classes needs no classifier: the largest coordinate is the
    prediction.
    """
    started, service = time.monotonic(), services.serve(workspace, victims_owner, endpoint, defense)
    visit = visit_of(settings, kind, answers_classes(endpoint))
    tried, accounts = [], []
    for repeats in repeats_of(settings, endpoint, defense):
        answers = ask_service(workspace, victims_owner, settings, kind, service, repeats)
        received = received_of(visit, answers, repeats)
        for recover in ('',) if answers_classes(endpoint) else settings.recover:
            tried.append(users.adapt(received, recover))
            accounts.append(answers)
    fit = functools.partial(fit_model, settings)
    best = users.choose(tried, users.Labeled(visit.labels, visit.inputs), fit, settings.seed)
    classify = _classifier_of(settings, visit, tried[best], endpoint)
    measured = []

    def add(metric: str, predictions: np.ndarray) -> None:
        accuracy = intervals.accuracy(predictions, visit.test_labels)
        measured.append({'task': settings.task.name, 'metric': metric, **accuracy._asdict()})

    add('user_accuracy', classify(tried[best]))
    if len(tried) > 1:
        plain = tried[0]
        add('user_accuracy_plain', _classifier_of(settings, visit, plain, endpoint)(plain))
    if defense:
        undefended = services.serve(workspace, victims_owner, endpoint, '')
        clean = ask_service(workspace, victims_owner, settings, kind, undefended)
        if clean.representations.shape[1] == tried[best].features.shape[1]:
            add('user_accuracy_clean', classify(users.adapt(received_of(visit, clean))))
    answers = accounts[best]
    return {
        'measured': measured + rows_lib.noticed_rows(answers.noticed),
        'adaptation': tried[best].name,
        'inputs': len(visit.queries.index),
        'bill': answers.bill._asdict(),
        'seconds': round(time.monotonic() - started, 2),
    }


def _classifier_of(
    settings: UserSettings, visit: Visit, adapted: users.Adapted, endpoint: str
) -> Callable[[users.Adapted], np.ndarray]:
    """Returns the function from answers to predictions of the test inputs; -1 without an answer."""
    count = len(visit.labels)
    if answers_classes(endpoint):
        classify = functools.partial(np.argmax, axis=1)
    else:
        kept = adapted.kept[:count]
        classify = fit_model(settings, adapted.features[:count][kept], visit.labels[kept])
    if classify is None:
        commonest = np.bincount(visit.labels).argmax()
        return lambda answers: np.full(len(visit.test_labels), commonest)
    return lambda answers: np.where(answers.granted[count:], classify(answers.features[count:]), -1)
