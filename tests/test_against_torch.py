"""The benchmark against PyTorch, without PyTorch: its own side, turns, ratios and messages."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import against_torch, comparison, in_jax, step_operations  # noqa: E402

TINY = comparison.Setup('patch', 4, (1,), batch_size=8, side=8)


def test_without_pytorch_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None; from benchmarks import against_torch;"
        'against_torch.app.run(against_torch.main)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=pathlib.Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1 and done.stdout == ''
    (line,) = done.stderr.splitlines()
    assert 'pip install torch --index-url https://download.pytorch.org/whl/cpu' in line


def test_sides_take_turns_and_a_ratio_is_of_a_round():
    called = []
    rates = {'ours': iter([10.0, 90.0, 30.0]), 'theirs': iter([20.0, 30.0, 10.0])}

    def side(name):
        called.append(name)
        return next(rates[name])

    measured = comparison.alternate(lambda: side('ours'), lambda: side('theirs'), 3)
    assert called == ['ours', 'theirs'] * 3
    assert comparison.Ratio(*measured).summary() == {
        'ours': 30.0,
        'theirs': 20.0,
        'ratio': 3.0,
        'smallest': 0.5,
        'largest': 3.0,
    }


def test_each_side_has_a_process_of_its_own():
    with comparison.processes(('os', 'os')) as (ours, theirs):
        pids = {ours('getpid'), ours('getpid'), theirs('getpid'), os.getpid()}
    assert len(pids) == 3


def test_the_reference_recipe_is_extrapolated_from_its_rates():
    rates = {'live': 100.0, 'probe': 1_000.0}
    parts = against_torch.their_parts(lambda _, setup, work, seconds: rates[work], TINY, 1.0)
    assert parts == {'train, victim live': 9_000.0, 'probe through encoder': 5_010.0}


def test_other_parameters_are_another_network():
    arrays, images, *expected = in_jax.reference(TINY)
    names = ['stem.weight', 'stem_norm.running_var', 'stage0_block0.BatchNorm_1.bias']
    assert [arrays[name].shape for name in names] == [(4, 3, 3, 3), (4,), (4,)]
    ours = lambda *_: (arrays, images, *expected)  # noqa: E731
    same = against_torch.check_same(ours, lambda *_: expected, TINY)
    assert same == 0.0
    with pytest.raises(ValueError, match='outputs differ by'):
        against_torch.check_same(ours, lambda *_: [expected[0], expected[1] * 1.001], TINY)


@pytest.mark.wide
def test_every_work_of_this_package_runs():
    for name in in_jax.WORKS:
        assert in_jax.rate(TINY, name, 0.0) > 0
        assert in_jax.first_seconds(TINY, (name,)) > 0
    assert in_jax.training_seconds(TINY, 800, 1, 0.1) > 0
    assert np.isfinite(in_jax.probe_seconds(2, 40, 10))


def test_the_time_of_a_step_is_shared_out_to_kinds_of_operations():
    lines = step_operations.table(
        [[{'other': 1.0, 'step': 3.0}], [{'optimizer': 2.0, 'step': 4.0}]]
    )
    assert [line.split() for line in lines[1:]] == [
        ['optimizer', '2.0'],
        ['other', '1.0'],
        ['sum', '1.0', '2.0'],
        ['step', '3.0', '4.0'],
    ]


@pytest.mark.wide
def test_every_kind_of_operation_of_a_step_is_found():
    spent = in_jax.operations(TINY, 2)
    kinds = {*step_operations.KINDS, 'step'} - {'convolution, both gradients'}
    assert set(spent) == kinds and all(value > 0 for value in spent.values())
