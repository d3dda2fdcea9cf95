"""Whole runs in shared workdirs: what is computed once, kept apart, kept for good and rebuilt."""

import json
import sys

import numpy as np
import pytest
import small

from ssl_extract import config, evaluation, losses, report, strategies
from ssl_extract.errors import UserError
from ssl_extract.pipeline import run, surrogate
from ssl_extract.report import results
from ssl_extract.runtime import files


def probes(rows, role='surrogate'):
    return [row for row in rows if row['role'] == role and row['metric'] == 'linear_probe']


def read_rows(workdir):
    return [json.loads(line) for line in (workdir / 'results.jsonl').read_text().splitlines()]


def times(workdir, pattern):
    paths = [path for path in workdir.glob(pattern) if path.is_file()]
    assert paths
    return {path: path.stat().st_mtime_ns for path in paths}


def run_small(workdir, **fields):
    c = small.get_config()
    c.update_from_flattened_dict({name.replace('__', '.'): v for name, v in fields.items()})
    return run.run(c, workdir=workdir)


@pytest.fixture(scope='module')
def sweep(tmp_path_factory):
    """A workdir with a sweep over learning rate and epochs, and the rows that `run` returned."""
    workdir = tmp_path_factory.mktemp('sweep')
    c = small.get_config()
    c.runs = config.grid(attack__learning_rate=(1e-3, 1e-2), attack__epochs=(1, 2))
    sides = {'new': c.runs[0], 'old': {**c.runs[1], 'role': 'victim'}}
    c.report.comparisons = ({'name': 'one epoch and the victim', **sides},)
    return workdir, run.run(c, workdir=workdir)


def test_a_sweep_stays_apart_with_a_column_for_each_field(sweep):
    workdir, rows = sweep
    report.write_from(workdir, [workdir])
    swept = [(row['attack.learning_rate'], row['attack.epochs']) for row in probes(rows)]
    assert swept == [(1e-3, 1), (1e-3, 2), (1e-2, 1), (1e-2, 2)]
    assert len({row['run'] for row in probes(rows)}) == 4
    (victim,) = probes(rows, 'victim')  # of all four runs
    assert victim['run'] is victim['attack.epochs'] is victim['attack.learning_rate'] is None
    head = (workdir / 'results.csv').read_text().splitlines()[0].split(',')
    assert {'attack.learning_rate', 'attack.epochs'} <= set(head)


def test_rows_name_their_run_and_their_stage(sweep):
    workdir, rows = sweep
    for row in probes(rows):
        assert (workdir / 'runs' / row['run'] / 'run.json').exists()
        assert (workdir / 'surrogate' / row['stage'] / 'meta.json').exists()
    (victim,) = probes(rows, 'victim')
    assert [path.name for path in (workdir / 'victim').iterdir()] == [victim['stage']]


def test_the_report_has_the_comparisons_and_is_headed_by_what_was_studied(sweep):
    report.write_from(sweep[0], [sweep[0]])
    page = (sweep[0] / 'report.md').read_text()
    assert 'missing: 1 seeds in common' in page  # which are found in the finished runs
    head = page.split('## ')[0]
    assert '; 420 parameters; 64 training inputs; linear probe on digits ' in head
    assert 'Attackers: 32 queries from 136 inputs, seed 1.' in head


def test_another_price_is_another_run_of_the_same_stages(sweep):
    workdir, _ = sweep
    before, stages = read_rows(workdir), times(workdir, '[!rlc]*/*/*')
    finished = times(workdir, 'runs/*/*')
    run_small(workdir, cost__dollars_per_1000_queries=1.0, attack__learning_rate=1e-3)
    assert times(workdir, 'runs/*/*') == finished  # one of the sweep
    rows = run_small(workdir, cost__dollars_per_1000_queries=5.0, attack__learning_rate=1e-3)
    after = read_rows(workdir)
    name = 'cost.dollars_per_1000_queries'
    (dear,) = [row for row in probes(after) if row[name] == 5.0]
    (cheap,) = [row for row in probes(after) if row['stage'] == dear['stage'] and row[name] == 1.0]
    assert (cheap['dollars'], dear['dollars']) == (0.032, 0.16) and cheap['run'] != dear['run']
    assert [row['dollars'] for row in probes(rows)] == [0.16]
    assert times(workdir, '[!rlc]*/*/*') == stages  # nothing was trained, asked or measured
    assert {k: v for k, v in times(workdir, 'runs/*/*').items() if k in finished} == finished
    kept = [{k: v for k, v in row.items() if k != name} for row in after]
    assert all(row in kept for row in before)


def test_a_run_that_failed_half_way_is_no_run_until_it_is_finished(sweep, registries_restored):
    workdir, _ = sweep
    broken = [True]

    @evaluation.register_metric('halting', first_task=True, share=True, title='Mine')
    def halting(features):
        if broken and features.victim is not None:
            raise RuntimeError('half way')
        return evaluation.Measurement(1.0, 1.0, 1.0, 1)

    before, finished = read_rows(workdir), times(workdir, 'runs/*/*')
    (workdir / 'results.jsonl').unlink()  # as if killed between a run and its results
    with pytest.raises(RuntimeError, match='half way'):
        run_small(workdir, seed=9)
    assert times(workdir, 'runs/*/*') == finished
    assert read_rows(workdir) == before
    stolen = times(workdir, 'surrogate/*/*')
    broken.clear()
    rows = run_small(workdir, seed=9)
    assert [row['value'] for row in rows if row['metric'] == 'halting'] == [1.0, 1.0]
    report.write_from(workdir, [workdir])
    assert '| Mine, % |' in (workdir / 'report.md').read_text()
    assert times(workdir, 'surrogate/*/*') == stolen
    (new,) = set(times(workdir, 'runs/*/run.json')) - set(finished)
    assert new.parent.name == probes(rows)[0]['run']


@pytest.mark.parametrize('damage', [None, b'', b'{"role": "vic'])
def test_results_that_were_lost_are_rebuilt(sweep, damage):
    workdir, _ = sweep
    before, finished = read_rows(workdir), times(workdir, 'runs/*/*')
    (workdir / 'results.jsonl').unlink()
    if damage is not None:
        (workdir / 'results.jsonl').write_bytes(damage)
    run_small(workdir)
    assert read_rows(workdir) == before and times(workdir, 'runs/*/*') == finished


LOSS = """
import jax.numpy as jnp
from ssl_extract import losses

@losses.register('my_loss')
def my_loss():
    return lambda student, teacher, labels=None, where=None: {formula}
"""


def as_a_new_process():
    """Forgets the own module, and what was made of it."""
    sys.modules.pop('my_losses', None)
    losses.LOSSES.entries.pop('my_loss', None)
    for cache in (surrogate.make_loss, surrogate.make_attack):
        cache.cache_clear()


def test_an_edited_loss_gives_new_rows_beside_the_old(
    sweep, tmp_path, monkeypatch, registries_restored
):
    workdir, _ = sweep
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    ids, values = [], []
    for formula in ('jnp.mean((student - teacher) ** 2)', 'jnp.mean(student)'):
        (tmp_path / 'my_losses.py').write_text(LOSS.format(formula=formula))
        as_a_new_process()
        rows = run_small(workdir, modules=('my_losses',), attack__loss='my_loss')
        ids += [row['run'] for row in probes(rows)]
        values += [row['value'] for row in rows if row['metric'] == 'l2']
    as_a_new_process()
    assert len(set(ids)) == len(set(values)) == 2
    own = [row for row in probes(read_rows(workdir)) if row['loss'] == 'my_loss']
    assert [row['run'] for row in own] == ids
    assert len({row['stage'] for row in own}) == 2
    assert len(list((workdir / 'victim').iterdir())) == 1  # the victim does not depend on it


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory):
    """A workdir with one run of the sweep, computed anew, and one of its own."""
    workdir = tmp_path_factory.mktemp('elsewhere')
    c = small.get_config()
    c.runs = ({'attack.learning_rate': 1e-3, 'attack.epochs': 2}, {'attack.loss': 'cosine'})
    run.run(c, workdir=workdir)
    return workdir


def test_two_workdirs_are_merged(sweep, elsewhere, tmp_path):
    workdir, _ = sweep
    rows = report.write_from(tmp_path / 'both', [workdir, elsewhere])
    assert read_rows(tmp_path / 'both') == rows
    runs = {row['run'] for row in probes(rows)}
    here, there = ({p.parent.name for p in w.glob('runs/*/run.json')} for w in (workdir, elsewhere))
    assert len(here & there) == 1 and len(there - here) == 1
    assert runs == here | there
    assert len(probes(rows, 'victim')) == 1  # trained twice, with the same result
    assert [row['loss'] for row in probes(rows)].count('cosine') == 1
    assert (tmp_path / 'both/report.html').exists()


def test_two_workdirs_that_contradict_each_other_are_refused(elsewhere, tmp_path):
    first = next(elsewhere.glob('runs/*'))
    for name in first.iterdir():
        (tmp_path / 'runs' / first.name).mkdir(parents=True, exist_ok=True)
        text = name.read_text().replace('"value": 0.', '"value": 0.9')
        (tmp_path / 'runs' / first.name / name.name).write_text(text)
    about = files.read_json(first / 'run.json') | {'files': {}}  # else it is noticed as damage
    files.write_json(tmp_path / 'runs' / first.name / 'run.json', about)
    with pytest.raises(UserError, match='has other results in'):
        results.read_runs(elsewhere, tmp_path)


def test_what_is_on_disk_is_whole(sweep):
    workdir, _ = sweep
    assert not list(workdir.rglob('*.tmp'))
    for folder in workdir.glob('surrogate/*'):
        assert {'meta.json', 'spec.json', 'variables', 'metrics'} <= {
            p.name for p in folder.iterdir()
        }
        assert not (folder / 'checkpoints').exists()


def test_other_data_under_the_same_name_gives_new_rows_beside_the_old(
    elsewhere, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    workdir, ids = elsewhere, []
    for value in (1, 2):
        inputs = np.random.default_rng(value).integers(0, 255, (40, 8, 8, 3), np.uint8)
        np.savez('pool.npz', inputs=inputs)
        fields = {'attack__data': 'npz(path="pool.npz")', 'attack__split': 'all'}
        ids += [row['run'] for row in probes(run_small(workdir, **fields))]
    own = [row for row in probes(read_rows(workdir)) if row['data'].startswith('npz')]
    assert [row['run'] for row in own] == ids and len(set(ids)) == 2
    column = 'content.npz(path="pool.npz")/all at 8'
    assert len({row[column] for row in own}) == 2


def test_budgets_of_a_strategy_that_chooses_in_one_round_do_not_meet(
    elsewhere, registries_restored
):
    @strategies.register('drawn')
    def drawn():
        def choose(seen, count, state):
            order = np.random.default_rng(count).permutation(len(seen.inputs))
            return order[:count].astype(np.int32), state

        return strategies.Strategy(1, choose)

    for budget in (40, 32):  # the smaller one asks others
        (row,) = probes(run_small(elsewhere, attack__strategy='drawn', attack__budget=budget))
        assert row['queries_billed'] == budget


LAST = ('runs/{run}/run.json', 'surrogate/{stage}/meta.json', 'evaluation/*/measured.json')


def test_what_a_kill_left_before_the_last_file_is_made_again_and_alike(elsewhere):
    rows = run_small(elsewhere, seed=4)
    (stolen,) = probes(rows)
    for pattern in LAST:
        for path in elsewhere.glob(pattern.format(**stolen)):
            path.unlink()
    half = elsewhere / 'surrogate' / stolen['stage'] / 'variables.orbax-checkpoint-tmp'
    half.mkdir()
    left = [half.parent / '.meta.json.01234567.tmp', elsewhere / '.results.jsonl.01234567.tmp']
    for path in (*left, half / 'manifest.ocdbt'):
        path.write_text('half')
    again = run_small(elsewhere, seed=4)
    assert untimed(again) == untimed(rows)
    assert len(list(elsewhere.glob(LAST[0].format(**stolen)))) == 1
    assert not any(path.exists() for path in (*left, half))


def untimed(rows):
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in rows]
