"""Whole assessments: metrics by name, victims in JAX and out of it, inputs that are no images."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import evaluation
from ssl_extract.errors import UserError
from ssl_extract.evaluation import fidelity, intervals, probes
from ssl_extract.evaluation.assess import assess, project

RNG = np.random.default_rng(0)
LABELS = np.arange(260) % 3
VECTORS = (np.eye(3, 16)[LABELS] * 3 + RNG.normal(size=(260, 16))).astype(np.float32)
ROTATION = np.linalg.qr(RNG.normal(size=(16, 16)))[0].astype(np.float32)
FAST = {'neighbors': 5, 'shots': 3, 'probe': 'lbfgs(l2_grid=(0.01,))'}
FIDELITY = ['cosine', 'l2', 'affine_l2', 'cka', 'neighbor_overlap']


@pytest.fixture(scope='module')
def tasks(tmp_path_factory):
    """One file of vectors as two tasks."""
    path = tmp_path_factory.mktemp('npz') / 'vectors.npz'
    np.savez(path, inputs=VECTORS, labels=LABELS)
    return evaluation.make_tasks(
        [
            f'npz(path="{path}", train="all[:150]", test="all[150:]")',
            f'npz(path="{path}", name="few", train="all[:30]", test="all[150:]")',
        ]
    )


def identity(inputs):
    return inputs


def linear(variables, inputs):
    return inputs @ variables


@pytest.fixture(scope='module')
def victim(tasks):
    return assess(identity, tasks, **FAST)


def _values(assessment):
    return {(row['task'], row['metric']): row['value'] for row in assessment.measured}


def test_a_victim_that_is_no_network(victim):
    rows = [(row['task'], row['metric'], row['n']) for row in victim.measured]
    assert rows == [
        (task, metric, n)
        for task in ('npz', 'few')
        for metric, n in (('linear_probe', 110), ('knn', 110), ('fewshot', 5))
    ]
    values = _values(victim)
    assert min(values['npz', 'linear_probe'], values['few', 'knn']) > 0.9
    np.testing.assert_array_equal(victim.arrays['features'], VECTORS[150:])
    np.testing.assert_array_equal(victim.arrays['labels'], LABELS[150:])
    assert victim.arrays['projection'].shape == (110, 2)


def test_a_rotated_victim_is_a_faithful_surrogate(victim, tasks):
    stolen = assess((linear, jnp.asarray(ROTATION)), tasks, victim=victim.arrays, **FAST)
    rows = [(row['task'], row['metric']) for row in stolen.measured]
    probes = ['linear_probe', 'knn', 'fewshot', 'agreement']
    assert rows == [('npz', m) for m in [*probes, *FIDELITY]] + [('few', m) for m in probes]
    values = _values(stolen)
    assert values['npz', 'cka'] == pytest.approx(1, abs=1e-4)
    assert values['npz', 'neighbor_overlap'] == pytest.approx(1, abs=0.01)
    assert values['npz', 'affine_l2'] == pytest.approx(0, abs=1e-3)
    assert values['npz', 'knn'] == _values(victim)['npz', 'knn']  # cosines do not see a rotation
    compared = fidelity.compare(stolen.arrays['features'], VECTORS[150:])
    assert [values['npz', metric] for metric in FIDELITY] == [
        compared[metric].value for metric in FIDELITY
    ]


def test_a_classifier_is_measured_on_the_first_task(tasks):
    first = np.eye(16, 3, dtype=np.float32)
    found = assess(identity, tasks, classifier=(linear, jnp.asarray(first)), **FAST)
    expected = np.mean(VECTORS[150:, :3].argmax(axis=1) == LABELS[150:])
    assert [row for row in found.measured if row['metric'] == 'classifier'][0]['value'] == expected
    assert sum(row['metric'] == 'classifier' for row in found.measured) == 1


def test_no_shots_and_chosen_metrics(tasks):
    none = assess(identity, tasks[:1], **FAST | {'shots': 0})
    assert [row['metric'] for row in none.measured] == ['linear_probe', 'knn']
    one = assess(identity, tasks[:1], metrics=['fewshot'], **FAST)
    assert [row['metric'] for row in one.measured] == ['fewshot']


def test_a_metric_of_ones_own(registries_restored, victim, tasks):
    @evaluation.register_metric('norm')
    def norm(features):
        return intervals.mean(np.linalg.norm(features.test, axis=1))

    @evaluation.register_metric('same_norm', fidelity=True, first_task=True)
    def same_norm(features):
        norms = [np.linalg.norm(x, axis=1) for x in (features.test, features.victim)]
        return intervals.mean(np.isclose(*norms, rtol=1e-4))

    chosen = ('norm', 'same_norm', 'knn')
    alone = assess(identity, tasks, metrics=chosen, **FAST)
    assert [row['metric'] for row in alone.measured] == ['knn', 'norm'] * 2
    beside = assess(
        (linear, jnp.asarray(ROTATION)), tasks, victim=victim.arrays, metrics=chosen, **FAST
    )
    assert [row['metric'] for row in beside.measured] == ['knn', 'norm', 'same_norm', 'knn', 'norm']
    values = _values(beside)
    assert values['npz', 'same_norm'] == 1
    expected = np.linalg.norm(VECTORS[150:], axis=1).mean()
    assert values['few', 'norm'] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ('metric', 'message'),
    [
        (lambda features: 0.5, "metric 'mine' gives .*float.*: return a Measurement"),
        (
            lambda features: intervals.Measurement(float('nan'), 0.0, 1.0, 3),
            "metric 'mine' on 'npz' is not finite",
        ),
        (
            lambda features: intervals.Measurement(0.5, None, None, 3),
            "metric 'mine' on 'npz' gives no numbers",
        ),
    ],
    ids=['a number', 'NaN', 'None'],
)
def test_metrics_are_finite_measurements(registries_restored, tasks, metric, message):
    evaluation.register_metric('mine')(metric)
    with pytest.raises(UserError, match=message):
        assess(identity, tasks[:1], metrics=['mine'], **FAST)


def test_a_row_holds_plain_numbers(registries_restored, tasks):
    evaluation.register_metric('mine')(
        lambda features: intervals.Measurement(*np.float32([0.5, 0.25, 1.0]), np.int64(3))
    )
    (row,) = assess(identity, tasks[:1], metrics=['mine'], **FAST).measured
    assert [type(row[name]) for name in ('value', 'ci_low', 'n')] == [float, float, int]


def test_wrong_assessments(tasks, victim):
    with pytest.raises(UserError, match='tasks is empty'):
        assess(identity, [])
    with pytest.raises(UserError, match="unknown metric 'accuracy': known are affine_l2"):
        assess(identity, tasks, metrics=['accuracy'])
    with pytest.raises(UserError, match="not assessed on task 'other'"):
        assess(identity, [tasks[0]._replace(name='other')], victim=victim.arrays, **FAST)
    with pytest.raises(UserError, match='hold NaN or infinity in 150 of 150 rows'):
        assess(lambda inputs: inputs * np.nan, tasks, **FAST)


def test_one_coordinate_is_shown_on_a_line():
    flat = project(np.arange(5.0)[:, None])
    np.testing.assert_array_equal(flat[:, 1], 0)
    assert np.ptp(flat[:, 0]) > 0


def test_a_set_that_tasks_share_is_represented_and_fitted_once(tasks, monkeypatch):
    fits, sent = [], []
    original = probes.fit_probe
    monkeypatch.setattr(probes, 'fit_probe', lambda *a, **k: fits.append(a) or original(*a, **k))
    whole = tasks[0]._replace(name='again', train=tasks[0].train._replace(name='copy'))

    def counted(inputs):
        sent.append(len(inputs))
        return inputs

    found = _values(assess(counted, [*tasks, whole], **FAST | {'shots': 0}))
    assert sum(sent) == 150 + 110 + 30 and len(fits) == 2
    assert found['again', 'linear_probe'] == found['npz', 'linear_probe']
    assert found['again', 'knn'] == found['npz', 'knn']
