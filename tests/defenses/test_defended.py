"""Whole runs behind defenses that need something of the victim's owner, and what they leave."""

import json

import numpy as np
import pytest
import tiny
from etils import epath

from ssl_extract import config, defenses
from ssl_extract.encoders import trained
from ssl_extract.evaluation import features
from ssl_extract.pipeline import run as experiment
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.sets import load_sets, pool_order
from ssl_extract.pipeline.validate import validate
from ssl_extract.runtime import parallel

POISONED = 'prediction_poisoning(radius=0.5)'
GUARDED = 'similarity_guard(of="projection", threshold=0.9, capacity=64, then="refuse")'
MARKED = 'dynamarks(key=5)'
RUNS = (
    {'defense': POISONED},
    {'defense': GUARDED},
    {'defense': MARKED, 'attack.name': 'posteriors'},
    {'defense': MARKED, 'attack.name': 'posteriors', 'attack.recover': 'harden'},
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """(rows, workdir) of one experiment."""
    workdir = epath.Path(tmp_path_factory.mktemp('defended'))
    cfg = tiny.get_config()
    cfg.baselines.scratch_epochs = 0
    cfg.baselines.random = False
    cfg.runs = RUNS
    return experiment.run(cfg, workdir=workdir), workdir


def of(run, **wanted):
    return [row for row in run[0] if all(row[name] == value for name, value in wanted.items())]


def test_attacker_and_user_stand_beside_each_other(run):
    for defense in (POISONED, GUARDED, MARKED):
        assert of(run, role='surrogate', defense=defense, metric='linear_probe')
        (user,) = of(run, role='legitimate', defense=defense, metric='user_accuracy')
        alike = dict(role='legitimate', metric='user_accuracy', endpoint=user['endpoint'])
        (alone,) = of(run, defense='', **alike)
        assert user['n'] == alone['n'] == 40 and user['budget'] == alone['budget']


def test_the_owners_attacker_is_trained_once_and_poisons_by_the_radius(run):
    _, workdir = run
    (shadow,) = workdir.glob('shadow/*/meta.json')
    assert json.loads(shadow.read_text())['flops'] > 0
    (meta,) = workdir.glob('victim/*/meta.json')
    victim = trained.load(meta.parent)
    accounts = {
        path.parent: json.loads(path.read_text()) for path in workdir.glob('answers/*/spec.json')
    }
    (store,) = [
        folder
        for folder, spec in accounts.items()
        if spec['defense'] == POISONED and spec.get('role') != 'legitimate'
    ]
    (part,) = store.glob('part-*.npz')
    run = _only(RUNS[0])
    pool, seed = load_sets(run).pool, run.config.seed
    images = pool.inputs[pool_order(len(pool.inputs), seed)[:41]]
    clean = features.extract(
        victim.network.apply, victim.variables, images, mesh=parallel.data_mesh()
    )
    moved = np.linalg.norm(np.load(part)['representations'] - clean, axis=1)
    np.testing.assert_allclose(moved, 0.5 * np.linalg.norm(clean, axis=1), rtol=1e-3, atol=1e-5)


def test_what_a_guard_refuses_is_neither_billed_nor_trained_on(run):
    (row,) = of(run, role='surrogate', defense=GUARDED, metric='linear_probe')
    assert row['queries_billed'] + row['queries_refused'] == 41 and row['queries_refused'] > 0
    (flagged,) = of(
        run, role='surrogate', defense=GUARDED, metric='noticed.similarity_guard.num_flagged'
    )
    assert flagged['value'] == row['queries_refused']


def test_a_mark_is_looked_for_where_one_was_made(run):
    found = of(run, metric='mark_p_value')
    assert {(r['defense'], r['adaptive']) for r in found} == {(MARKED, ''), (MARKED, 'harden')}
    assert all(0 < row['value'] <= 1 and row['n'] == 100 for row in found)
    assert all(-1 <= row['value'] <= 1 for row in of(run, metric='mark'))
    kept = [json.loads(p.read_text())['result'] for p in run[1].glob('mark/*/result.json')]
    assert sorted(rows[1]['value'] for rows in kept) == sorted(row['value'] for row in found)


def _only(overrides):
    cfg = tiny.get_config()
    cfg.runs = (overrides,)
    (cfg,) = config.expand(cfg)
    return make_run(cfg, 'nowhere', parallel.data_mesh())


@pytest.mark.parametrize('plan', ['once', 'online'])
def test_every_defense_goes_with_stored_and_with_online_answers(plan):
    """Traced only: that every kind of state fits into a training step."""
    for defense in defenses.DEFENSES:
        overrides = {'defense': 'top_k(k=3)' if defense == 'top_k' else defense}
        if defense == 'dynamarks':
            overrides |= {'attack.name': 'posteriors'}
        validate(_only(overrides | {'attack.plan': plan}))
