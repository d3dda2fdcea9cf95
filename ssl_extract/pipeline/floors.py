"""Floors of legitimate users, and the change of answers by a defense.

A loss is read against what could be lost: a user without any victim guesses one class, or fits its
classifier to an untrained encoder of its own.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ssl_extract import attacks
from ssl_extract.encoders.trained import Encoder
from ssl_extract.evaluation import Measurement, features, intervals
from ssl_extract.oracle.queries import Queries, render
from ssl_extract.oracle.store import Answers, Bill
from ssl_extract.pipeline import baselines, rows, services, stage, users, visits
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.owner import Owner
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.victim import Sketch
from ssl_extract.pipeline.visits import UserSettings, Visit


class Floor(NamedTuple):
    """The floors of one kind of user.

    Attributes:
        kind: the spec of the user.
        visit: the labeled inputs and test inputs of the user.
        encoder: an untrained encoder of the user's own, of the victim's network.
        spec: everything that the floors depend on.
    """

    kind: str
    visit: Visit
    encoder: Encoder
    spec: dict[str, Any]


def floor_rows(run: Run, sets: Sets, sketch: Sketch, victims_owner: Owner) -> list[dict[str, Any]]:
    """Measures the floors of the users of a defended victim, and the change of their answers.

    The metrics are `user_chance`, the accuracy of the best constant guess; `user_untrained`, of the
    user's classifier on an untrained encoder (none for a user that is answered with classes); and
    `answer_change`, see `answer_change`. Nothing is sent that the users have not sent.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
        victims_owner: the victim's owner.
    """
    c, settings = run.config, visits.settings_of(run, sets)
    found: list[dict[str, Any]] = []
    for kind in c.legitimate.users if c.defense else ():
        floor = floor_of(run, sets, sketch, victims_owner, kind)
        measure = functools.partial(_measure, run.workspace, settings, floor)
        measured = stage.cached(run.workspace, 'floors', floor.spec, lambda folder, m=measure: m())
        ask = functools.partial(_answers, run, victims_owner, settings, kind)
        common = {
            'role': 'legitimate',
            'user': kind,
            'endpoint': _endpoint(run),
            'encoder': victims_owner.victim.name,
            'budget': len(floor.visit.queries.index),
            'seed': settings.seed,
            'task': settings.task.name,
        }
        common['stage'] = stage.address(run.workspace, floor.spec)
        unbilled = Bill(0, 0, 0, 0).columns()
        found += [common | unbilled | {'defense': ''} | row for row in measured]
        plain, behind = ask(''), ask(c.defense)
        if change := answer_change(plain, behind):
            row = {'defense': c.defense, 'metric': 'answer_change', **change._asdict()}
            found.append(common | behind.bill.columns() | row)
    return [rows.presentation(row['metric']) | row for row in found]


def floor_of(run: Run, sets: Sets, sketch: Sketch, victims_owner: Owner, kind: str) -> Floor:
    """Describes the floors of a kind of user; computes nothing but an initialization.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
        victims_owner: the victim's owner.
        kind: the spec of the user.
    """
    c, settings, workspace = run.config, visits.settings_of(run, sets), run.workspace
    classes = visits.answers_classes(_endpoint(run))
    own = sketch.encoder or c.attack.encoder
    account = visits.account_spec(workspace, victims_owner, settings, kind, _endpoint(run), '')
    service = services.service_spec(workspace, victims_owner, _endpoint(run), '')
    spec = {
        **{name: value for name, value in account.items() if name not in service},
        'stage': 'floors',
        'labeled': not classes,
        'task': settings.task_spec['name'],
        'model': settings.model,
        'probe': settings.probe,
        'encoder': baselines.untrained_spec(own, sketch.input_shape, settings.seed),
    }
    encoder, _ = baselines.untrained(workspace, own, sketch.input_shape, settings.seed)
    return Floor(kind, visits.visit_of(settings, kind, classes), encoder, spec)


def answer_change(plain: Answers, behind: Answers) -> Measurement | None:
    """Measures how far a defense moves answers, in standard deviations of the undefended answers.

    The value is the root mean square of the differences of all coordinates of all answers that the
    defense gives, over the root mean square deviation of the undefended answers from their mean:
    0.8 for Gaussian noise of 0.8 of their standard deviation.

    Args:
        plain: to the queries of a user, without a defense.
        behind: to the same queries, behind the defense.

    Returns:
        None where the defense changes the width of the answers or answers nothing, or where all
        undefended answers are alike.
    """
    given = behind.granted & plain.granted
    old, new = (a.representations.astype(np.float64) for a in (plain, behind))
    if old.shape != new.shape or not given.any() or not np.ptp(old, axis=0).any():
        return None
    unit = math.sqrt(np.mean(np.var(old[plain.granted], axis=0)))
    squares = intervals.mean(np.mean((new[given] - old[given]) ** 2, axis=1))
    value, low, high = (math.sqrt(number) / unit for number in squares[:3])
    return Measurement(value, low, high, squares.n)


def _answers(
    run: Run, victims_owner: Owner, settings: UserSettings, kind: str, defense: str
) -> Answers:
    """Returns the answers that a user has."""
    service = services.serve(run.workspace, victims_owner, _endpoint(run), defense)
    return visits.ask_service(run.workspace, victims_owner, settings, kind, service)


def _measure(workspace: Workspace, settings: UserSettings, floor: Floor) -> list[dict[str, Any]]:
    """Measures chance, and the user's classifier on an untrained encoder."""
    visit, count = floor.visit, len(floor.visit.labels)
    common = np.bincount(visit.test_labels).argmax()
    guessed = np.full(len(visit.test_labels), common)
    found = {'user_chance': intervals.accuracy(guessed, visit.test_labels)}
    if count:
        own = _represent(workspace, floor.encoder, visit.queries)
        classify = users.fit_model(settings, own[:count], visit.labels)
        if classify is not None:
            predictions = classify(own[count:])
            found['user_untrained'] = intervals.accuracy(predictions, visit.test_labels)
    return [{'metric': name, **accuracy._asdict()} for name, accuracy in found.items()]


def _represent(workspace: Workspace, encoder: Encoder, queries: Queries) -> np.ndarray:
    """Computes the representations float32 [Q, D] of the views that the queries are."""
    inputs, decode = queries.inputs[queries.index], queries.decode
    if queries.view is not None:
        inputs, decode = render(queries), None
    return features.extract(
        encoder.network.apply, encoder.variables, inputs, decode=decode, mesh=workspace.mesh
    )


def _endpoint(run: Run) -> str:
    return attacks.endpoint_of(run.config.attack.name)
