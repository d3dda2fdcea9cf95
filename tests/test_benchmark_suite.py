"""The suite of benchmarks: its figures, ratios, files and messages."""

import doctest
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import ab, pieces, suite, tables, timing  # noqa: E402
from ssl_extract.encoders import conv  # noqa: E402
from ssl_extract.errors import UserError  # noqa: E402

TINY = 'resnet18(stem="patch", width=4, stages=(1,))'
DEFENSE = 'gaussian_noise(stddev=0.1) | round(decimals=2)'


@pytest.fixture(scope='module')
def record():
    """The suite's own record of a tiny encoder."""
    points, pieces.POINTS = pieces.POINTS, 200
    try:
        cases = suite.plan([*pieces.PIECES], [TINY], [8], 8, DEFENSE)
        yield suite.run(cases, 0.0, 'python -m benchmarks')
    finally:
        pieces.POINTS = points


def changed(record, factor, **fields):
    """The record of a run in which everything is `factor` times as fast."""
    rows = [
        row | {name: factor * row[name] for name in ('low', 'median', 'high')}
        for row in record['rows']
    ]
    return record | {'rows': rows} | fields


def test_all_rows_are_measured_and_shown(record):
    rows = {row['row']: row for row in record['rows']}
    assert list(rows) == [*pieces.PIECES] and len(rows) == 7
    for name, row in rows.items():
        assert len(row['inputs_per_second']) == timing.RUNS
        assert 0 < row['low'] <= row['median'] <= row['high']
        assert row['median'] == np.median(row['inputs_per_second'])
        assert row['compile_s'] >= 0 and row['gflop'] > 0
        trains = name in ('attack step', 'pretraining step')
        assert (row['host_ms'] is not None) == trains
        assert (row['program_mib'] is None) == (name in ('probe', 'knn'))
    assert all(spent > 0 for row in rows.values() for spent in row['host_ms'] or ())
    assert (rows['probe']['batch_size'], rows['augmentation']['encoder']) == (200, '')
    assert rows['pretraining step']['gflop'] > 2 * rows['attack step']['gflop'] > 0
    inference = rows['victim inference']  # three passes make a step, of which one is forward
    assert inference['gflop'] < rows['attack step']['gflop'] / 2
    assert inference['compile_s'] > 0
    lines = tables.table(record)
    assert lines[1] == f'{TINY}, 8x8'
    assert [line[:17].rstrip() for line in lines if line[25:26] == ' '][1:] == [
        *(name for name in pieces.PIECES if name != 'augmentation'),
        'augmentation',
    ]


def test_a_product_has_the_operations_and_the_memory_of_its_shapes():
    x, y = jnp.ones((32, 16)), jnp.ones((16, 8))
    product = jax.jit(jnp.dot)
    piece = pieces.Piece(32, lambda: product(x, y), (product, (x, y)))
    row = suite.measure(piece, 0.0, peak=1e9)
    devices = jax.device_count()
    assert row['gflop'] * 1e9 == 2 * 32 * 16 * 8 * devices
    calls = row['median'] / 32
    assert row['share'] == pytest.approx(2 * 32 * 16 * 8 * calls / 1e9)
    least = 4 * (32 * 16 + 16 * 8 + 32 * 8) / 2**20
    assert least <= row['program_mib'] < 2 * least


def test_a_convolution_has_the_operations_of_its_shapes():
    x, kernel = jnp.ones((8, 8, 8, 16)), jnp.ones((3, 3, 16, 4))
    convolve = jax.jit(lambda x, kernel: conv.conv(x, kernel, 1))
    piece = pieces.Piece(8, lambda: convolve(x, kernel), (convolve, (x, kernel)))
    row = suite.measure(piece, 0.0, peak=1e9)
    whole = 2 * 8 * 8 * 8 * 3 * 3 * 16 * 4 * jax.device_count()
    assert 0.8 * whole < row['gflop'] * 1e9 <= 1.05 * whole  # XLA leaves out the taps outside


def test_a_record_against_itself_is_exactly_as_fast(record):
    rows = tables.compare(record, json.loads(json.dumps(record)))
    assert len(rows) == 7 and {row['ratio'] for row in rows} == {1.0}
    assert all(row['low'] <= 1 <= row['high'] for row in rows)
    assert all(row['program_mib'] in (1.0, None) and row['gflop'] == 1.0 for row in rows)
    assert tables.differences(record, record) == []
    assert sum(' 1.000 (' in line for line in tables.ratio_table(rows)) == 7


def test_a_ratio_is_of_new_to_old_and_rows_of_one_side_are_named(record):
    versions = record['versions'] | {'jax': '0.1'}
    old = changed(record, 0.5, versions=versions, cores=1)
    old['rows'] = old['rows'][1:]
    rows = tables.compare(record, old)
    assert len(rows) == 6 and {row['ratio'] for row in rows} == {2.0}
    machine, alone = tables.differences(record, old)
    assert f'cores: {record["cores"]} and 1' in machine and f'jax: {jax.__version__}' in machine
    assert alone == f'only in new: attack step, {TINY}, 8'


def test_the_ratio_of_rounds_is_that_of_the_medians(record):
    new = [changed(record, factor) for factor in (2.0, 8.0, 4.0)]
    old = [changed(record, factor) for factor in (1.0, 2.0, 4.0)]
    rows = tables.compare_rounds(new, old)  # the ratios of the rounds are 2, 4 and 1
    assert len(rows) == 7
    for row in rows:
        assert row['ratio'] == pytest.approx(2.0)
        assert (row['low'], row['high']) == pytest.approx((1.5, 3.0))
        assert row['gflop'] == 1.0


def test_runs_of_other_settings_are_not_compared(record):
    with pytest.raises(UserError, match='old.json was measured with size 8, and this run has 32'):
        tables.check_settings(record['settings'] | {'size': 32}, record['settings'], 'old.json')


@pytest.mark.parametrize(
    'words, said',
    [
        (['--row=attack'], 'flag --row=attack: .*attack step'),
        (['--batch_size=1'], 'flag --batch_size=1: '),
        (['--seconds'], 'seconds'),
        (['--against=none.json'], '--against=none.json: No such file'),
        (['--against=list.json'], 'list.json is no file of --json'),
        (['--json=none/new.json'], '--json=none/new.json: write a file in a folder that exists'),
        (['--encoder=resnet17'], 'resnet17'),
        (['--defense=rond', '--row=knn'], "defense 'rond'"),
        (['more'], "unexpected 'more'"),
    ],
)
def test_a_wrong_word_is_one_line_before_anything_is_measured(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('list.json').write_text('[1]')
    command.FLAGS.unparse_flags()
    for name in command.FLAGS:
        command.FLAGS[name].unparse()
    with pytest.raises(UserError, match=said) as raised:
        command.main(['benchmarks', *words])
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'words, said',
    [
        (['.'], '1 folders are named: write OLD and NEW'),
        (['.', 'none'], 'none has no benchmarks/__main__.py'),
        (['.', '.', '--', '--json=x'], '--json=x is not for the turns'),
    ],
)
def test_a_wrong_comparison_of_checkouts_is_one_line(words, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=said):
        ab.main(['benchmarks.ab', *words])


def test_the_examples_of_the_suite_run():
    for module in (suite, tables):
        assert doctest.testmod(module)[0] == 0 < doctest.testmod(module)[1]


def printed_by(module, *arguments):
    done = subprocess.run(
        [sys.executable, '-m', module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.wide
def test_the_command_writes_a_file_and_compares_with_it(tmp_path):
    first = tmp_path / 'first.json'
    small = (f'--encoder={TINY}', '--size=8', '--batch_size=8', '--seconds=0.01')
    code, _, said = printed_by('benchmarks', *small, f'--json={first}')
    assert code == 0, said
    record = json.loads(first.read_text())
    assert record['command'].startswith('python -m benchmarks ') and record['date']
    assert pathlib.Path(record['package']) == ROOT / 'ssl_extract'
    assert all(row['compile_s'] > 0 for row in record['rows'])
    code, lines, said = printed_by('benchmarks', *small, f'--against={first}', '--row=knn')
    assert code == 0, said
    assert any(line.startswith('only in old: attack step, ') for line in lines)
    assert sum(line.startswith('knn ') for line in lines) == 2
    code, lines, said = printed_by('benchmarks', f'--against={first}')
    assert (code, lines) == (2, [])
    assert said.splitlines()[-1].startswith(f'error: {first} was measured with size 8')


@pytest.mark.wide
def test_two_checkouts_are_measured_in_turn():
    small = ('--', f'--encoder={TINY}', '--size=8', '--batch_size=8', '--seconds=0.01', '--row=knn')
    code, lines, said = printed_by('benchmarks.ab', '--rounds=2', str(ROOT), '.', *small)
    assert code == 0, said
    assert lines[0].startswith('2 rounds, ')
    assert lines[1].startswith(f'old: {ROOT}, ') and lines[2].startswith(f'new: {ROOT}, ')
    (row,) = [line for line in lines if line.startswith('knn ')]
    assert 0.01 < float(row.split()[2]) < 100
    code, _, said = printed_by('benchmarks.ab', '--rounds=1', '.', '.', '--', '--row=none')
    assert code == 2 and 'the suite of' in said.splitlines()[-1] and '--row' in said
