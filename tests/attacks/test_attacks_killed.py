"""Every kind of attack, in a real process killed with kill -9, ends in the same results and bill.

Only the process that is killed is a real one: whole runs of the command are in test_launch.py.
"""

import shutil

import all_attacks
import pytest
from processes import assert_same_ledgers, kill_when, read, results, start

from ssl_extract.pipeline import run as experiment

pytestmark = pytest.mark.wide  # test_launch.py kills one by default, and golden rows hold the bills


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """All of them in one run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp('whole')
    experiment.run(all_attacks.get_config('killed'), workdir=workdir)
    return workdir


def test_the_bills_are_exact(whole):
    rows = [r for r in results(whole) if r['role'] == 'surrogate' and r['metric'] == 'knn']
    assert len(rows) == len(all_attacks.KILLED)
    for row in rows:
        if row['defense']:
            assert 0 < row['queries_billed'] <= all_attacks.BUDGET
            continue
        assert row['queries_billed'] == all_attacks.BUDGET == row['budget']
        assert row['queries_billed'] == row['queries_unique'] + row['queries_repeated']
        assert row['dollars'] == pytest.approx(0.137) and row['flops'] > 0


def ends_alike_when_killed(name, whole, tmp_path):
    shutil.copytree(whole / 'victim', tmp_path / 'victim')  # it is not what this is about
    config = f'tests/helpers/all_attacks.py:{name}'
    killed = start(tmp_path, config=config, will_be_killed=True)
    assert kill_when(killed, tmp_path, 'surrogate/*/checkpoints/6')
    experiment.run(all_attacks.get_config(name), workdir=tmp_path)
    (run,) = (tmp_path / 'runs').iterdir()
    rows, undisturbed = (
        read(root / 'runs' / run.name / 'rows.jsonl') for root in (tmp_path, whole)
    )
    assert rows == undisturbed and {'victim', 'surrogate'} <= {row['role'] for row in rows}
    assert assert_same_ledgers(tmp_path, whole) > 0


@pytest.mark.parametrize('name', all_attacks.KILLED)
def test_killed_it_ends_in_the_same_results(name, whole, tmp_path):
    ends_alike_when_killed(name, whole, tmp_path)


@pytest.mark.parametrize('name', ['rda', 'recreate_head', 'cont_steal', *all_attacks.OTHERS])
def test_every_other_attack_does_too(name, tmp_path):
    experiment.run(all_attacks.get_config(name), workdir=tmp_path / 'whole')
    ends_alike_when_killed(name, tmp_path / 'whole', tmp_path / 'killed')
