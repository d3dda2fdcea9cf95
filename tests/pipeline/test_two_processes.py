"""Three real processes in one workdir at the same time, two of them with the same config."""

import json

import numpy as np
import pytest
from processes import finish, start

SMALL = 'tests/helpers/small.py'
pytestmark = pytest.mark.wide  # two processes at one account are in test_locks.py


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """The workdir, and what the three processes said."""
    workdir = tmp_path_factory.mktemp('shared')
    seeds = ('--config.seed=1', '--config.seed=1', '--config.seed=2')
    processes = [start(workdir, seed, config=SMALL, devices=1) for seed in seeds]
    return workdir, [finish(process) for process in processes]


def test_every_stage_is_made_once(shared):
    workdir, outputs = shared
    said = ''.join(outputs)
    assert said.count('  evaluate victim\n') == 1
    assert said.count('  evaluate surrogate\n') == 2  # of two seeds
    assert [len(list(workdir.glob(f'{kind}/*'))) for kind in ('victim', 'surrogate')] == [1, 2]
    assert len(list(workdir.glob('*/*/spec.json'))) == 1 + 2 + 2 + 3
    assert 'waiting for another process (' in said or ': finished before' in said


def test_no_row_is_lost(shared):
    workdir, _ = shared
    rows = [json.loads(line) for line in (workdir / 'results.jsonl').read_text().splitlines()]
    assert sorted(path.parent.name for path in workdir.glob('runs/*/run.json')) == sorted(
        {row['run'] for row in rows if row['role'] == 'surrogate'}
    )
    probes = [(row['role'], row['seed']) for row in rows if row['metric'] == 'linear_probe']
    assert sorted(probes) == [('surrogate', 1), ('surrogate', 2), ('victim', 0)]
    assert (workdir / 'report.html').exists()


def test_every_query_is_paid_once(shared):
    workdir, _ = shared
    accounts = list(workdir.glob('answers/*'))
    assert len(accounts) == 2
    for account in accounts:
        parts = [np.load(path)['fingerprints'] for path in sorted(account.glob('part-*.npz'))]
        prints = np.concatenate(parts)
        assert len(prints) == len(np.unique(prints, axis=0)) == 32
        (state,) = account.glob('account-*.npz')
        assert int(np.load(state)['0']) == 32  # billed
