"""What a user has without any victim, and how far a defense moves its answers."""

import numpy as np
import pytest
import test_users
import untrained
from numpy.testing import assert_allclose

from ssl_extract.evaluation import PROBES
from ssl_extract.evaluation.probe import predict
from ssl_extract.oracle.store import Answers, Bill
from ssl_extract.pipeline import baselines, floors, stage
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.report import headroom

STDDEV, ENCODER = 0.1, test_users.ENCODER
KINDS = ('broad', 'narrow(classes=3)', test_users.AUGMENTING)


@pytest.fixture(scope='module')
def victim():
    return untrained.victim(ENCODER)


def rows_of(run, victim):
    sketch, owner = untrained.sketch(victim), untrained.owner(run, victim)
    found = floors.floor_rows(run, load_sets(run), sketch, owner)
    return {(row['user'], row['defense'], row['metric']): row for row in found}


@pytest.fixture(scope='module')
def measured(victim, tmp_path_factory):
    run = test_users.run_of(tmp_path_factory.mktemp('run'), legitimate__users=KINDS)
    return run, test_users.by_metric(test_users.rows_of(run, victim)), rows_of(run, victim)


def floor_of(kind, victim, **fields):
    run = test_users.run_of(**fields)
    owner = untrained.owner(run, victim)
    return floors.floor_of(run, load_sets(run), untrained.sketch(victim), owner, kind)


def test_a_floor_has_the_condition_of_the_undefended_user(measured):
    _, users, found = measured
    assert {key[1:] for key in found} == {
        *(('', 'user_chance'), ('', 'user_untrained'), (test_users.NOISE, 'answer_change')),
    }
    assert {key[0] for key in found} == set(KINDS)
    for (kind, defense, _), row in found.items():
        user = users[kind, defense, 'user_accuracy']
        for column in ('role', 'user', 'endpoint', 'defense', 'encoder', 'budget', 'seed', 'task'):
            assert row[column] == user[column]


def test_chance_is_the_commonest_class_of_the_test_images(measured, victim):
    _, users, found = measured
    for kind in KINDS:
        labels = floor_of(kind, victim).visit.test_labels
        chance = found[kind, '', 'user_chance']
        assert chance['value'] == np.bincount(labels).max() / len(labels)
        assert chance['n'] == len(labels) == users[kind, '', 'user_accuracy']['n']


def test_untrained_is_the_users_classifier_on_an_encoder_of_its_own(measured, victim):
    run, _, found = measured
    floor, settings = floor_of('broad', victim), test_users.settings_of()
    encoder, _ = baselines.untrained(run.workspace, ENCODER, untrained.SHAPE, settings.seed)
    inputs, count = floor.visit.queries.inputs, len(floor.visit.labels)
    own = test_users.features.extract(encoder.network.apply, encoder.variables, inputs)
    probe = PROBES.make(settings.probe)(own[:count], floor.visit.labels, 10)
    expected = np.mean(predict(probe, own[count:]) == floor.visit.test_labels)
    assert found['broad', '', 'user_untrained']['value'] == expected


def test_noise_is_told_in_standard_deviations_of_the_answers(measured, victim):
    visit = floor_of('broad', victim).visit
    answers = test_users.extract(victim, visit.queries.inputs[visit.queries.index])
    expected = STDDEV / np.sqrt(np.mean(np.var(answers, axis=0)))
    row = measured[2]['broad', test_users.NOISE, 'answer_change']
    assert row['value'] == pytest.approx(expected, rel=0.03)
    assert row['ci_low'] < row['value'] < row['ci_high'] and row['n'] == len(answers)


def test_change_of_answers_by_hand():
    def answers(values, granted=(True, True, True)):
        return Answers(np.float32(values), np.array(granted), Bill(3, 3, 0, 0), {})

    plain = answers([[0, 0], [2, 2], [4, 4]])  # of variance 8/3
    moved = answers([[1, 0], [2, 2], [4, 4]])
    assert_allclose(floors.answer_change(plain, moved).value, np.sqrt((1 / 2 / 3) / (8 / 3)))
    refused = answers([[1, 0], [2, 2], [0, 0]], (True, True, False))
    change = floors.answer_change(plain, refused)  # what is refused is not moved
    assert_allclose((change.value, change.n), (np.sqrt((1 / 2 / 2) / (8 / 3)), 2))
    assert floors.answer_change(plain, plain).value == 0
    assert floors.answer_change(plain, answers([[1], [2], [3]])) is None
    assert floors.answer_change(answers([[1, 1]] * 3), moved) is None
    assert floors.answer_change(plain, answers([[0, 0]] * 3, (False,) * 3)) is None


def test_users_that_are_answered_with_classes_have_no_encoder_of_their_own(victim):
    floor = floor_of('broad', victim, attack__name='posteriors', attack__loss='cross_entropy')
    assert len(floor.visit.labels) == 0 and not floor.spec['labeled']
    run = test_users.run_of()
    (row,) = floors._measure(run.workspace, test_users.settings_of(), floor)
    assert row['metric'] == 'user_chance'


@pytest.mark.parametrize(
    ('fields', 'changes'),
    [
        ({'seed': 9}, True),
        ({'data__size': 10}, True),
        ({'legitimate__images': 40}, True),
        ({'legitimate__test_images': 40}, True),
        ({'legitimate__model': 'mlp'}, True),
        ({'probe': 'lbfgs(l2_grid=(0.1,))'}, True),
        ({'attack__name': 'posteriors', 'attack__loss': 'cross_entropy'}, True),
        ({'defense': ''}, False),
        ({'attack__loss': 'cosine'}, False),
        ({'victim__seed': 5}, False),
    ],
)
def test_floors_are_kept_under_all_that_they_depend_on(fields, changes, victim):
    first, second = floor_of('broad', victim), floor_of('broad', victim, **fields)
    specs = [stage.address(test_users.run_of().workspace, floor.spec) for floor in (first, second)]
    assert (specs[0] != specs[1]) == changes
    assert floor_of('narrow', victim).spec != first.spec


def test_the_report_finds_the_floors(measured):
    _, users, found = measured
    rows = [*users.values(), *found.values()]
    table = headroom.headroom(rows, users['broad', '', 'user_accuracy']['task'])
    moved, who = (table.header.index(name) for name in ('Answers moved, SD', 'Loss of'))
    assert {row[who] for row in table.rows} == {f'user, {kind}' for kind in KINDS}
    values = [row['value'] for key, row in found.items() if key[2] == 'answer_change']
    expected = '–'.join(f'{value:.3g}' for value in (min(values), max(values)))
    assert {row[moved] for row in table.rows} == {expected}
