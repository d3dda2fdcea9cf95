"""Finished runs: reading, merging, identity of results, averages over seeds only."""

import csv
import json
import re
import shutil
import threading

import pytest
from finished_runs import write_run

from ssl_extract import report
from ssl_extract.errors import UserError
from ssl_extract.report import columns, estimates, labels, results, tables
from ssl_extract.runtime import files, locks


def read(*workdirs):
    return report.tidy(report.read_runs(*workdirs))


def of(rows, role):
    return [row for row in rows if row['role'] == role]


def probed(rows, role='surrogate'):
    found = estimates.aggregate(rows, 'digits', 'linear_probe')
    return [e for e in found if e.role == role]


def test_one_run_has_the_columns_of_the_schema_and_nothing_else(tmp_path):
    write_run(tmp_path, 'r1')
    rows = read(tmp_path)
    assert [row['role'] for row in rows] == ['victim', 'surrogate', 'scratch', 'random']
    assert all(sorted(row) == sorted(columns.NAMES) for row in rows)
    assert {row['run'] for row in rows} == {'r1'}
    assert rows[1]['is_adaptive'] is False and rows[1]['queries_billed'] == 100


def test_a_sweep_stays_apart_with_a_column_for_every_field_that_differs(tmp_path):
    values = {(0.001, 5): 0.7, (0.001, 9): 0.72, (0.01, 5): 0.8, (0.01, 9): 0.86}
    for number, ((rate, epochs), value) in enumerate(values.items()):
        fields = {'attack__learning_rate': rate, 'attack__epochs': epochs}
        write_run(tmp_path, f'r{number}', value, started=str(number), **fields)
    rows = read(tmp_path)
    surrogates = of(rows, 'surrogate')
    assert {
        (row['attack.learning_rate'], row['attack.epochs']): row['value'] for row in surrogates
    } == values
    assert [row['run'] for row in surrogates] == ['r0', 'r1', 'r2', 'r3']
    for role in ('victim', 'scratch', 'random'):
        (row,) = of(rows, role)
        assert row['run'] is row['attack.learning_rate'] is row['attack.epochs'] is None
    found = probed(rows)
    assert sorted(e.value for e in found) == sorted(values.values())
    assert labels.labels(found)[0] == 'mse, attack.epochs=5, attack.learning_rate=0.001'
    table = tables.stolen(rows, 'digits')
    assert table.header[:4] == ['Encoder', 'Attack', 'attack.epochs', 'attack.learning_rate']
    assert table.rows[1][2:6] == ['5', '0.001', '100', '70.0']
    assert table.rows[0][2:4] == ['–', '–']
    assert table.numeric[2:4] == [True, True]
    measured = estimates.aggregate(rows, 'digits', 'linear_probe')
    references = [estimates.reference(measured, role, found[-1]) for role in ('victim', 'random')]
    assert None not in references


@pytest.mark.parametrize('recover', ['', 'denoise'])
def test_the_baselines_tell_surrogates_apart_that_depend_on_them_alone(tmp_path, recover):
    """Else a defense would not be set against the same attack without it."""
    common = {'attack__recover': recover}
    write_run(tmp_path, 'r1', 0.7, baselines__scratch_epochs=5, **common)
    write_run(tmp_path, 'r2', 0.6, baselines__scratch_epochs=0, defense='round', **common)
    rows = read(tmp_path)
    field = 'baselines.scratch_epochs'
    assert {row[field] for row in of(rows, 'scratch')} == {5, 0}
    assert {row[field] for row in of(rows, 'surrogate')} == ({5, 0} if recover else {None})
    assert {row[field] for row in of(rows, 'victim')} == {None}


@pytest.mark.parametrize(
    ('fields', 'column'),
    [
        ({'attack__budget': 50}, 'budget'),
        ({'attack__loss': 'infonce'}, 'loss'),
        ({'attack__plan': 'views(m=2)'}, 'plan'),
        ({'attack__name': 'rda'}, 'attack'),
        ({'attack__strategy': 'kcenter'}, 'strategy'),
        ({'attack__data': 'noise'}, 'data'),
        ({'attack__encoder': 'large'}, 'encoder'),
        ({'victim__encoder': 'large'}, 'encoder'),
        ({'attack__recover': 'denoise'}, 'adaptive'),
        ({'defense': 'round(decimals=2)'}, 'defense'),
        ({'legitimate__users': ['broad', 'narrow(classes=3)']}, None),
        ({'seed': 2}, None),
    ],
)
def test_a_field_that_a_column_expresses_needs_none_of_its_own(tmp_path, fields, column):
    write_run(tmp_path, 'r1')
    write_run(tmp_path, 'r2', 0.7, **fields)
    runs = report.read_runs(tmp_path)
    assert results.differing(runs) == []
    assert len({e.get(column) for e in probed(report.tidy(runs))} if column else {1, 2}) == 2


def test_a_column_that_does_not_tell_a_field_leaves_it_a_column(tmp_path):
    write_run(tmp_path, 'r1', attack__encoder='large')
    write_run(tmp_path, 'r2', 0.7, attack__encoder='large', victim__encoder='other')
    write_run(tmp_path, 'r3', 0.6, attack__encoder='large', data__name='other', attack__data='x')
    names = results.differing(report.read_runs(tmp_path))
    assert names == ['data.name', 'victim.encoder']  # attack.data shows in the column data


def test_two_victims_are_never_one_and_each_surrogate_has_its_own(tmp_path):
    for number, epochs in enumerate((10, 20)):
        values = 0.7 + number / 10, 0.8 + number / 10
        write_run(tmp_path, f'r{number}', *values, victim__epochs=epochs)
    rows = read(tmp_path)
    found = estimates.aggregate(rows, 'digits', 'linear_probe')
    victims = {dict(e.fields)['victim.epochs']: e.value for e in found if e.role == 'victim'}
    assert victims == {10: 0.8, 20: 0.9}
    (random,) = [e for e in found if e.role == 'random']
    assert random.fields == ()
    references = [
        estimates.reference(found, 'victim', e).value for e in found if e.role == 'surrogate'
    ]
    assert references == [0.8, 0.9]
    assert estimates.reference(found, 'random', found[-1]) == random


def test_runs_that_differ_in_the_price_stay_two_rows_with_their_dollars(tmp_path):
    for number, price in enumerate((1.0, 3.0)):
        write_run(tmp_path, f'r{number}', cost__dollars_per_1000_queries=price)
    rows = read(tmp_path)
    assert {
        row['cost.dollars_per_1000_queries']: row['dollars'] for row in of(rows, 'surrogate')
    } == {1.0: 0.1, 3.0: pytest.approx(0.3)}
    assert len(of(rows, 'victim')) == 1
    report.write_from(tmp_path / 'out', [tmp_path])
    md = (tmp_path / 'out' / 'report.md').read_text()
    cost = md.split('## What it cost')[1].split('\n## ')[0]
    assert 'each run’s own for 1,000 queries, 1.00 dollars for an hour' in cost
    line = re.compile(r'^\| surrogate .*', re.MULTILINE)
    assert ['0.100' in row for row in line.findall(cost)] == [True, False]
    assert ['0.300' in row for row in line.findall(cost)] == [False, True]


def test_runs_that_differ_in_the_price_of_an_hour_have_each_its_own(tmp_path):
    for number, price in enumerate((1.0, 36.0)):
        write_run(tmp_path, f'r{number}', 0.8, attack__budget=100, cost__dollars_per_hour=price)
    rows = [*read(tmp_path)]
    price = report.costs.prices(report.publish.describe(report.read_runs(tmp_path)), rows)
    assert price == (1.0, None)
    shown = {c.estimate.role: c.training_dollars for c in report.costs.costs(rows, price)}
    assert shown == {'victim': None, 'scratch': None, 'surrogate': None}  # shared by both runs
    write_run(tmp_path, 'r2', 0.7, cost__dollars_per_hour=36.0, attack__epochs=9)
    rows = [*read(tmp_path)]
    paid = [c for c in report.costs.costs(rows, price) if c.estimate.get('attack.epochs') == 9]
    assert paid[0].training_dollars == pytest.approx(20 / 3600 * 36)


def test_an_estimate_averages_over_both_seeds_and_over_nothing_else(tmp_path):
    values = {(1, 0): 0.7, (2, 0): 0.8, (1, 5): 0.72, (2, 5): 0.82}
    for number, ((seed, victim), value) in enumerate(values.items()):
        fields = {'seed': seed, 'victim__seed': victim}
        write_run(tmp_path, f'r{number}', value, 0.9 + victim / 100, **fields)
    rows = read(tmp_path)
    (surrogate,) = probed(rows)
    assert surrogate.by_seed == values and surrogate.seeds == 4
    assert surrogate.value == pytest.approx(0.76)
    (victim,) = probed(rows, 'victim')
    assert victim.by_seed == pytest.approx({(0, 0): 0.9, (5, 5): 0.95})
    (random,) = probed(rows, 'random')
    assert random.by_seed == {(1,): 0.31, (2,): 0.32}
    assert 'victim.seed' not in tables.stolen(rows, 'digits').header


def test_seeds_of_a_baseline_stay_together_in_an_uneven_sweep(tmp_path):
    write_run(tmp_path, 'r1', 0.70)
    write_run(tmp_path, 'r2', 0.75, attack__learning_rate=0.1)
    write_run(tmp_path, 'r3', 0.71, seed=2)  # the second rate has not been run yet
    rows = read(tmp_path)
    scratch = of(rows, 'scratch')
    assert [row['attack.learning_rate'] for row in scratch] == [None, 0.001]
    (one,) = probed(rows, 'scratch')
    assert one.by_seed == {(1,): 0.61, (2,): 0.62} and one.fields == ()
    assert sorted(len(e.by_seed) for e in probed(rows)) == [1, 2]
    scratch[1]['seed'] = 1  # another value of the same seed: then the field tells them apart
    assert len(probed(rows, 'scratch')) == 2


def test_a_value_that_two_evaluations_share_by_chance_counts_in_both(tmp_path):
    for number, (seed, neighbors, value) in enumerate(
        [(1, 5, 0.8), (1, 6, 0.8), (2, 5, 0.7), (2, 6, 0.75)]
    ):
        write_run(tmp_path, f'r{number}', value, seed=seed, evaluation__neighbors=neighbors)
    rows = read(tmp_path)
    assert {e.fields: sorted(e.by_seed.values()) for e in probed(rows)} == {
        (('evaluation.neighbors', 5),): [0.7, 0.8],
        (('evaluation.neighbors', 6),): [0.75, 0.8],
    }
    assert [e.fields for e in probed(rows, 'victim')] == [()]


def test_two_values_of_one_condition_are_refused_by_name(tmp_path):
    write_run(tmp_path, 'r1', 0.7)
    write_run(tmp_path, 'r2', 0.8)
    with pytest.raises(UserError) as error:
        report.write_from(tmp_path, [tmp_path])
    assert re.search(r'0\.7 \(run r1, stage surrogate-\w+\) and 0\.8 \(run r2', str(error.value))
    assert len(of(read(tmp_path), 'surrogate')) == 2


def test_a_run_in_two_workdirs_counts_once_if_it_is_the_same(tmp_path):
    a, b = tmp_path / 'a', tmp_path / 'b'
    write_run(a, 'r1')
    shutil.copytree(a, b)
    write_run(b, 'r2', 0.7, attack__loss='infonce')
    assert [run.id for run in report.read_runs(a, b)] == ['r1', 'r2']
    assert len(of(read(a, b), 'surrogate')) == 2
    path = b / 'runs' / 'r1' / 'rows.jsonl'
    path.write_text(path.read_text().replace('0.8,', '0.81,').replace('0.8}', '0.81}'))
    with pytest.raises(UserError) as error:
        report.read_runs(a, b)
    assert str(a / 'runs' / 'r1') in str(error.value) and str(path.parent) in str(error.value)


def test_a_folder_that_is_not_finished_is_passed_over(tmp_path):
    write_run(tmp_path, 'r1')
    (write_run(tmp_path, 'r2', attack__epochs=7) / 'run.json').unlink()
    assert [run.id for run in report.read_runs(tmp_path)] == ['r1']
    assert 'attack.epochs' not in read(tmp_path)[0]


@pytest.mark.parametrize(
    ('name', 'damage', 'reason'),
    [
        ('rows.jsonl', lambda text: text[:-20], 'cannot read'),
        ('rows.jsonl', lambda text: '[]\n', 'no list of objects'),
        ('rows.jsonl', lambda text: '{"role": "victim"}\n', 'lacks metric, value'),
        ('rows.jsonl', None, 'No such file'),
        ('bills.json', lambda text: '{}', 'no list of objects'),
        ('curves.json', lambda text: '[{"name": "a"}]', 'lacks role, stage, folder'),
        ('views.json', lambda text: '', 'cannot read'),
        ('run.json', lambda text: text[:30], 'cannot read'),
        ('run.json', lambda text: '{"id": "r1"}', 'lacks name, title'),
        ('run.json', lambda text: text.replace('"r1"', '"r9"'), 'id or config is wrong'),
    ],
)
def test_a_damaged_file_is_named_in_one_line_with_the_remedy(tmp_path, name, damage, reason):
    path = write_run(tmp_path, 'r1') / name
    if damage:
        path.write_text(damage(path.read_text()))
    else:
        path.unlink()
    with pytest.raises(UserError) as error:
        report.read_runs(tmp_path)
    message = str(error.value)
    assert '\n' not in message and str(path) in message and reason in message
    assert f'move {path.parent} out of the workdir and run its experiment again' in message


def test_reports_in_one_folder_take_turns_and_remove_what_a_kill_left(tmp_path):
    write_run(tmp_path, 'r1')
    left = [tmp_path / f'{folder}.a.0123.tmp' for folder in ('', 'figures/', 'tables/')]
    for path in left:
        files.write_text(path, 'half')
    with locks.lock(tmp_path / 'locks/results.lock', 'results.jsonl'):
        writing = threading.Thread(target=report.write_from, args=(tmp_path, [tmp_path]))
        writing.start()
        writing.join(0.5)
        assert writing.is_alive() and all(path.exists() for path in left)
        write_run(tmp_path, 'r2', 0.7, attack__learning_rate=0.1)
    writing.join()
    assert not any(path.exists() for path in left)
    assert {row['run'] for row in read(tmp_path)} >= {'r1', 'r2'}
    lines = (tmp_path / 'results.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == read(tmp_path)


def test_write_from_writes_everything_and_the_same_bytes_again(tmp_path):
    a, b, out = (tmp_path / name for name in ('a', 'b', 'out'))
    write_run(a, 'r1', started='2')
    write_run(b, 'r2', 0.7, started='1', attack__learning_rate=0.1)
    for path in (a / 'runs/r1/run.json', b / 'runs/r2/run.json'):
        note = '5 of the 9 inputs of digits/test are among those of digits/train'
        path.write_text(json.dumps(json.loads(path.read_text()) | {'notes': [note]}))
    rows = report.write_from(out, [a, b])
    names = ('results.jsonl', 'results.csv', 'metrics.jsonl', 'report.md', 'report.html')
    first = [(out / name).read_bytes() for name in names]
    report.write_from(out, [a, b])
    assert first == [(out / name).read_bytes() for name in names]

    lines = (out / 'results.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows == read(a, b)
    with open(out / 'results.csv', newline='') as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(rows[0])
    assert [row['attack.learning_rate'] for row in table if row['role'] == 'surrogate'] == [
        *('0.1', '0.001'),
    ]
    assert table[0]['loss'] == '' and float(table[1]['value']) == 0.7

    curves = [json.loads(line) for line in (out / 'metrics.jsonl').read_text().splitlines()]
    assert [curve['stage'] for curve in curves] == ['victim'] * 2 + ['surrogate'] * 4
    assert {c['address'] for c in curves} == {r['stage'] for r in rows if r['seconds'] in (20, 100)}
    assert curves[0] == {'stage': 'victim', 'address': curves[1]['address'], 'step': 1, 'loss': 2}

    md = (out / 'report.md').read_text()
    assert md.startswith('# By hand\n')
    for words in (
        '| attack.learning_rate |',
        'launch r2\nlaunch r1',
        f'a in {a}',  # asked in both workdirs: paid twice
        '| All accounts |',
        '"attack.learning_rate": 0.1',
    ):
        assert words in md
    assert md.count('Note: 5 of the 9 inputs of digits/test are among those of digits/train.') == 1
    assert 'representations.png' in md and 'curves.png' in md


def test_curves_and_views_of_different_stages_have_different_names(tmp_path):
    for number, epochs in enumerate((10, 20)):
        for seed in (0, 1):
            fields = {'victim__epochs': epochs, 'victim__seed': seed}
            write_run(tmp_path, f'r{number}{seed}', 0.7 + seed / 10, **fields)
    runs = report.read_runs(tmp_path)
    names = list(report.publish.read_curves(runs))
    assert names[0] == 'victim: victim.epochs=10, seed 0'
    assert names[1] == 'direct: mse, seed 1, victim.epochs=10, seed 0'
    assert len(set(names)) == 8
    views = report.publish.read_views(runs)
    assert len(views) == len({view['title'] for view in views}) == 4


@pytest.mark.parametrize('lost', ['metrics', 'arrays.npz'])
def test_what_a_run_names_and_is_not_there_is_an_error(tmp_path, lost):
    folder = write_run(tmp_path, 'r1')
    (path,) = tmp_path.glob(f'surrogate/*/{lost}')
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(UserError, match=f'move {folder}.* out of'):
        report.write_from(tmp_path, [tmp_path])


def test_nothing_finished_is_said_in_one_line(tmp_path):
    for workdirs in ([tmp_path], []):
        with pytest.raises(UserError, match='no run is finished in'):
            report.write_from(tmp_path / 'out', workdirs)
    assert not (tmp_path / 'out').exists()
    with pytest.raises(UserError, match='there is no folder'):
        report.read_runs(tmp_path / 'nowhere')


def test_a_defense_is_compared_within_one_victim(tmp_path):
    for number, epochs in enumerate((10, 20)):
        for defense in ('', 'round(decimals=2)'):
            values = 0.7 + number / 10 - 0.05 * bool(defense), 0.8 + number / 10
            fields = {'victim__epochs': epochs, 'defense': defense}
            write_run(tmp_path, f'r{epochs}{bool(defense)}', *values, **fields)
    table = report.defenses.overview(read(tmp_path), 'digits')
    assert table.header[:2] == ['victim.epochs', 'Defense']
    column = table.header.index('Worst case, %')
    worst = {(row[0], row[1]): row[column] for row in table.rows}
    assert worst['10', 'round(decimals=2)'].startswith('65.0; −5.0')
    assert worst['20', 'round(decimals=2)'].startswith('75.0; −5.0')


def test_a_label_names_the_fields_without_which_two_would_be_called_the_same():
    def row(loss, epochs, crop):
        about = {'role': 'surrogate', 'attack': 'direct', 'loss': loss, 'budget': 50, 'seed': 1}
        measured = {'task': 'digits', 'metric': 'knn', 'value': 0.5}
        return about | measured | {'attack.epochs': epochs, 'attack.crop': crop}

    apart = estimates.aggregate([row('mse', 5, 1), row('l2', 10, 1)], 'digits', 'knn')
    assert sorted(labels.labels(apart)) == ['l2', 'mse']
    alike = [row('mse', 5, 1), row('mse', 10, 1), row('l2', 10, 2)]
    named = labels.labels(estimates.aggregate(alike, 'digits', 'knn'))
    assert sorted(named) == [
        'l2, attack.epochs=10',
        'mse, attack.epochs=10',
        'mse, attack.epochs=5',
    ]
