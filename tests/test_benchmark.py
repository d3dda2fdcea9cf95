"""The commands of single benchmarks run and print their figures."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SMALL = ['--encoder=resnet18(stem="patch", width=4, stages=(1,))', '--size=8', '--batch_size=8']


def run(*arguments):
    return printed_by('benchmarks.steps', *SMALL, '--seconds=0.01', *arguments)


def printed_by(module, *arguments):
    done = subprocess.run(
        [sys.executable, '-m', module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_unknown_encoder_is_one_line():
    command = [sys.executable, '-m', 'benchmarks.dispatch', '--encoder=resnet17']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown encoder 'resnet17'")
    assert done.stderr.count('\n') == 1


@pytest.mark.wide
def test_the_benchmark_alternates_a_training_with_bare_steps():
    title, turns, alone, quartiles = run('--what=loop')
    assert '8x8, batch 8' in title and turns.startswith('2 turns of 25 steps: ')
    whole, bare = (float(re.search(r'([\d.]+) ms', line)[1]) for line in (turns, alone))
    low, middle, high = map(float, re.findall(r'\d\.\d{3}', quartiles))
    assert low <= middle <= high and whole > 0 and bare > 0


@pytest.mark.wide
def test_the_benchmark_compares_defenses_with_the_forward_pass():
    title, forward, *defended = run('--what=defenses', '--queries=50')
    assert '8x8, batch 8, 50 queries of 4 numbers' in title
    forward = float(re.fullmatch(r'forward pass +([\d.]+) ms/query', forward)[1])
    names, sizes = [], []
    for line in defended:
        name, ms, share, size = re.fullmatch(
            r'(\S+) +([\d.]+) ms/query +([\d.]+)% of it +([\d,]+) bytes of state', line
        ).groups()
        assert abs(float(ms) - float(share) / 100 * forward) < 0.002 + 0.2 * float(ms)
        names.append(name)
        sizes.append(int(size.replace(',', '')))
    assert names == ['bucket_coverage', 'similarity_guard(capacity=50)']
    assert sizes[0] == 20 * 2**12 + 8  # its tables and two scalars
    assert sizes[1] >= 50 * 4 * 4  # 50 answers of 4 numbers


@pytest.mark.wide
def test_the_benchmark_of_memory_shows_what_blocks_and_remat_save():
    encoder = '--encoder=vit(depth=4, width=16, heads=2)'
    title, losses, *rows = printed_by(
        'benchmarks.memory', '--rows=4096', encoder, '--batch_size=64'
    )
    assert title == f'{title.split()[0]} x cpu, MiB on each device' and '4,096 x 128' in losses
    for row in rows[:4] + rows[-1:]:  # of rda, fewer comparisons are kept
        before, after = (float(x.replace(',', '')) for x in row.split()[-2:])
        assert 0 < after < before
    assert len(rows) == 5 + 2


@pytest.mark.wide
def test_the_benchmark_of_replicas_gives_a_ratio():
    small = ['--encoder=resnet18(stem="patch", width=4, stages=(1,))', '--size=8']
    title, together, apart, ratio = printed_by(
        'benchmarks.replicas', *small, '--replicas=4', '--steps=3', '--batch_size=8', '--rounds=2'
    )
    assert '4 trainings of 3 steps' in title
    assert together.startswith('together') and apart.startswith('one by one')
    assert 0 < float(re.fullmatch(r'together takes ([\d.]+) times as long \(.*\)', ratio)[1]) < 20


@pytest.mark.wide
def test_the_benchmark_of_growth_measures_and_draws_every_curve(tmp_path):
    figure, found = tmp_path / 'growth.png', tmp_path / 'growth.json'
    printed = printed_by(
        *(
            'benchmarks.growth',
            '--scale=0.02',
            '--rounds=1',
            f'--figure={figure}',
            f'--json={found}',
        ),
        *('--only=batch, mse', '--only=devices', '--only=classes'),
    )
    assert figure.stat().st_size > 10_000
    curves = json.loads(found.read_text())
    assert list(curves) == ['batch, mse', 'devices', 'classes']
    assert all(took > 0 for times in curves.values() for took in times.values())
    assert [line.split('(')[0].strip() for line in printed[1::2]] == list(curves)
    assert all(re.search(r'; exponent -?\d+\.\d\d$', line) for line in printed[2::2])


@pytest.mark.wide
def test_the_benchmark_of_dispatch_gives_ratios():
    small = ['--encoder=vit(patch=4, width=8, depth=1, heads=2)', '--size=8', '--batch_size=8']
    title, line = printed_by('benchmarks.dispatch', *small, '--steps=4', '--rounds=2')
    assert '8x8' in title
    ratio = re.search(
        r'; 4 steps in one program take ([\d.]+) \(([\d.]+) to ([\d.]+)\) of it$', line
    )
    assert 0 < float(ratio[2]) <= float(ratio[1]) <= float(ratio[3])


@pytest.mark.wide
def test_a_large_attack_holds_little_of_its_answers_in_memory():
    """820 MB of answers; the first lines are the title and that of a plain file."""
    printed = printed_by('benchmarks.answers', '--queries=100000', '--steps=20')
    collect, again, steps = (int(line.split()[-2].replace(',', '')) for line in printed[-3:])
    assert collect < 500 and again < 100 and steps < 150
