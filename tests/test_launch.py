"""The command, whole: real processes, killed with kill -9 in its stages; on any devices."""

import json
import re
import shlex

import jax
import pytest
from processes import assert_same_ledgers, finish, kill_when, read, results, start

CHECKPOINTS = '--config.training.checkpoint_every=4'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp('whole')
    finish(start(workdir, CHECKPOINTS))
    return workdir


def test_the_workdir_holds_what_it_should(whole):
    runs = [json.loads(path.read_text()) for path in whole.glob('runs/*/run.json')]
    assert {run['config']['attack']['loss'] for run in runs} == {'mse', 'infonce'}
    assert len(runs) == 3
    for run in runs:
        assert run['config']['attack']['batch_size'] == 16
        words = [
            'python',
            'launch.py',
            '--config=tests/helpers/tiny.py',
            f'--workdir={whole}',
            CHECKPOINTS,
        ]
        assert shlex.split(run['command']) == words
        assert run['versions']['jax'] and len(run['devices']) == jax.device_count()
    rows = results(whole)
    assert {row['run'] for row in rows if row['role'] == 'surrogate'} == {run['id'] for run in runs}
    roles = [row['role'] for row in rows if row['metric'] == 'linear_probe']
    assert sorted(roles) == [
        'random',
        'scratch',
        'scratch',
        'surrogate',
        'surrogate',
        'surrogate',
        'victim',
    ]
    for row in rows:
        assert row['n'] > 0 and row['ci_low'] <= row['value'] <= row['ci_high'], row
    assert 'data:image/png' in (whole / 'report.html').read_text()
    assert (whole / 'report.md').exists()
    curves = [json.loads(line) for line in (whole / 'metrics.jsonl').read_text().splitlines()]
    assert {row['stage'] for row in curves} == {'victim', 'surrogate', 'scratch'}
    assert not list(whole.rglob('*.tmp'))


def test_the_bills_are_exact(whole):
    bills = {
        (row['plan'], row['defense']): (
            row['queries_billed'],
            row['queries_unique'],
            row['queries_repeated'],
            row['queries_refused'],
        )
        for row in results(whole)
        if row['role'] == 'surrogate'
    }
    assert bills == {
        ('once', ''): (41, 41, 0, 0),
        ('once', 'gaussian_noise(stddev=0.1) | round(decimals=2)'): (41, 41, 0, 0),
        ('online', ''): (70, 70, 0, 10),  # five batches of 16, the last one cut
    }


def test_a_second_run_trains_and_asks_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob('*.npz')}
    expected = results(whole)
    output = finish(start(whole, CHECKPOINTS))
    assert 'step/s' not in output and 'evaluate' not in output
    assert results(whole) == expected
    assert {path: path.stat().st_mtime_ns for path in whole.rglob('*.npz')} == before


STAGES = [  # a file whose appearance says that a stage is under way
    'surrogate/*/asked/part-*',
]
MORE_STAGES = [
    'answers/*/part-*.npz',  # as in tests/oracle
    'victim/*/checkpoints/4',
    'surrogate/*/checkpoints/4',  # as each of test_attacks_killed.py
    'scratch/*/metrics/part-*',
    'floors/*/spec.json',
    'results.jsonl',
]


@pytest.mark.parametrize('stages', [STAGES, pytest.param(MORE_STAGES, marks=pytest.mark.wide)])
def test_killed_in_its_stages_it_ends_in_the_same_results(whole, tmp_path, stages):
    killed = 0
    for pattern in stages:
        killed += kill_when(start(tmp_path, CHECKPOINTS, will_be_killed=True), tmp_path, pattern)
    assert killed == len(stages)
    output = finish(start(tmp_path, CHECKPOINTS))
    assert re.search(r'^  victim/\w+: finished before$', output, re.MULTILINE)
    assert results(tmp_path) == results(whole)
    assert assert_same_ledgers(tmp_path, whole) == assert_same_ledgers(whole, tmp_path) > 0


# One device: by other convolutions. Four: the run behind a defense alone.
@pytest.mark.parametrize(
    ('devices', 'flags'),
    [(1, []), (4, ['--run_index=1']), (8, [])],
)
@pytest.mark.wide  # of each attack alone: test_one_device_ends_where_four_do
def test_the_number_of_devices_does_not_matter(whole, tmp_path, devices, flags):
    finish(start(tmp_path, CHECKPOINTS, *flags, devices=devices))
    runs = [path.name for path in (tmp_path / 'runs').iterdir()]
    assert len(runs) == (1 if flags else 3)
    here, there = (
        [row for run in runs for row in read(root / 'runs' / run / 'rows.jsonl')]
        for root in (tmp_path, whole)
    )
    assert {'victim', 'surrogate', 'scratch', 'legitimate'} <= {row['role'] for row in here}
    assert [row['metric'] for row in here] == [row['metric'] for row in there]
    for a, b in zip(here, there, strict=True):
        exact = {k for k in a if k not in ('value', 'ci_low', 'ci_high', 'flops')}
        assert {k: a[k] for k in exact} == {k: b[k] for k in exact}
        # What every device repeats (the update, small as it is here) is counted for each.
        assert (a['flops'] or 0) == pytest.approx(b['flops'] or 0, rel=0.5)
        # Accuracies move in steps of one test image, fidelity with the last float32 digits.
        assert a['value'] == pytest.approx(b['value'], abs=0.021, rel=2e-3), (a, b)


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('--config.attack.bugdet=3', 'did you mean attack.budget?'),
        ('--config=experiments/nope.py', '--config=experiments/nope.py: there is no such file'),
        (
            '--config=experiments/paper.py:rdaa',
            'paper.py:rdaa: write one of access_head, cont_steal',
        ),
        ('--config.seed=-1', 'seed=-1: write a whole number from 0 to 2147483647'),
    ],
)
def test_an_error_is_one_line_and_comes_before_any_training(tmp_path, flag, message):
    process = start(tmp_path, flag)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert message in output.splitlines()[-1] and output.splitlines()[-1].startswith('error: ')
    assert 'Traceback' not in output and not (tmp_path / 'victim').exists()
