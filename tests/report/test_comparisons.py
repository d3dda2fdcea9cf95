"""Families of comparisons: Holm, paired tests and equivalence against scipy; the report's table."""

import itertools
import json

import numpy as np
import pytest
from etils import epath
from finished_runs import write_run
from numpy.testing import assert_allclose
from scipy import stats

from ssl_extract import evaluation, report
from ssl_extract.errors import UserError
from ssl_extract.report import comparisons, families, significance, studied
from ssl_extract.report.families import Comparison, Condition

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('count', [1, 2, 5, 8])
def test_holm_is_the_closure_of_bonferroni(count):
    """A hypothesis falls where Bonferroni rejects every set of hypotheses that it is in."""
    p_values = [*RNG.uniform(0, 0.3, count - 1), 0.02]
    sets = [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]
    bonferroni = {s: min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets}
    closed = [max(p for s, p in bonferroni.items() if i in s) for i in range(count)]
    assert_allclose(significance.holm(p_values), closed, rtol=1e-12)


def test_holm_of_nothing_and_of_ties():
    assert significance.holm([]) == []
    assert significance.holm([0.02, 0.02]) == [0.04, 0.04]


@pytest.mark.parametrize('count', [2, 5, 20])
def test_paired_tests_are_those_of_scipy(count):
    new, old = RNG.normal(0.62, 0.01, count), RNG.normal(0.61, 0.01, count)
    differences = new - old
    p = stats.ttest_rel(new, old).pvalue
    assert_allclose(significance.difference_p(differences.tolist()), p, rtol=1e-9)
    for margin in (0.001, 0.02, 0.1):
        lower = stats.ttest_1samp(differences, -margin, alternative='greater')
        upper = stats.ttest_1samp(differences, margin, alternative='less')
        p = significance.equivalence_p(differences.tolist(), margin)
        assert_allclose(p, max(lower.pvalue, upper.pvalue), rtol=1e-9)
        low, high = lower.confidence_interval(0.95).low, upper.confidence_interval(0.95).high
        assert (p < 0.05) == (-margin < low and high < margin)  # the 90 % interval


def test_differences_without_spread():
    assert significance.difference_p([0.0, 0.0, 0.0]) == 1
    assert significance.difference_p([0.25, 0.25]) == significance.difference_p([-0.25, -0.25]) == 0
    assert significance.equivalence_p([0.0, 0.0], 0.01) == 0
    assert significance.equivalence_p([0.25, 0.25], 0.25) == 1


ACCURACIES = {  # by condition, seed by seed; the victim has 0.9
    'mse': (0.81, 0.82, 0.80, 0.83, 0.81),
    'infonce': (0.71, 0.73, 0.70, 0.72, 0.71),
    'softnn': (0.812, 0.818, 0.801, 0.831, 0.808),
    'cosine': (0.60, 0.95, 0.75, 0.99, 0.85),
}


def write_shown(workdir, run, value, **fields):
    """Writes a run whose rows say how its metric is shown."""
    shown = fields.pop('shown', evaluation.presentation('linear_probe'))
    path = write_run(workdir, run, value, started='1', **fields) / 'rows.jsonl'
    rows = [json.loads(line) | shown for line in path.read_text().splitlines()]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compared')
    for loss, values in ACCURACIES.items():
        for seed, value in enumerate(values, 1):
            write_shown(folder, f'{loss}{seed}', value, attack__loss=loss, seed=seed)
    return folder


def condition(loss, role='surrogate', seeds=5):
    return Condition(tuple(f'{loss}{seed}' for seed in range(1, seeds + 1)), role, '', '')


def compare(name, new, old, margin=None, metric='linear_probe'):
    sides = [side if isinstance(side, tuple) and side[0] != side else side for side in (new, old)]
    sides = [(side,) if isinstance(side, Condition) else side for side in sides]
    return Comparison(name, 'digits', metric, margin, *sides)


def run_tests(workdir, family, listed='0'):
    files = workdir / families.FOLDER
    for path in files.glob('*') if files.exists() else ():
        path.unlink()
    families.write(epath.Path(workdir), family, listed)
    return comparisons.test(report.read_runs(workdir))


def test_a_family_is_decided_as_scipy_and_holm_say(workdir):
    family = [
        compare('mse, infonce', condition('mse'), condition('infonce'), 0.02),
        compare('infonce, mse', condition('infonce'), condition('mse')),
        compare('softnn, mse', condition('softnn'), condition('mse'), 0.02),
        compare('cosine, mse', condition('cosine'), condition('mse'), 0.02),
        compare('mse, victim', condition('mse'), condition('mse', 'victim'), 0.5),
    ]
    done = run_tests(workdir, family)
    verdicts = {t.comparison.name: t.verdict for t in done}
    assert verdicts == {
        'mse, infonce': 'better',
        'infonce, mse': 'worse',
        'softnn, mse': 'as good (within ±2 points)',
        'cosine, mse': 'not decided',
        'mse, victim': 'worse, by less than 50 points',
    }
    raw = [
        stats.ttest_rel(ACCURACIES[new], ACCURACIES.get(old, [0.9] * 5)).pvalue
        for new, old in (name.split(', ') for name in verdicts)
    ]
    first = min(raw)
    assert_allclose(min(t.p for t in done), 5 * first, rtol=1e-6)
    assert_allclose(done[3].p, max(raw[2:4]), rtol=1e-6)  # the last of all, as it is
    assert_allclose(done[0].delta, 0.1, rtol=1e-12)
    assert [t.p_equivalent is None for t in done] == [False, True, False, False, False]
    table = comparisons.table(done)
    assert table.title == 'Linear probe, digits'
    assert table.rows[0][:2] == ['mse, infonce', '+10.0']
    assert 'for all 5 comparisons' in table.caption and 'for 4 of them' in table.caption
    assert comparisons.in_words(done) == (
        'Comparisons listed beforehand: 5; 1 better, 2 worse, 1 as good, 1 not decided.'
    )


def test_the_best_of_several_is_the_best_by_its_mean(workdir):
    best = (condition('infonce'), condition('mse'))
    (t,) = run_tests(workdir, [compare('best', best, condition('infonce'))])
    assert_allclose(t.differences, np.subtract(ACCURACIES['mse'], ACCURACIES['infonce']))
    assert 'best by its mean over seeds' in comparisons.table([t]).caption


def test_what_is_missing_is_named_and_counts_in_the_family(workdir):
    family = [
        compare('whole', condition('mse'), condition('infonce')),
        compare('half', condition('mse', seeds=7), condition('infonce')),
        compare('no metric', condition('mse'), condition('infonce'), metric='cka'),
        compare('one seed', condition('mse', seeds=1), condition('infonce', seeds=1), 0.02),
    ]
    done = run_tests(workdir, family)
    assert [t.verdict for t in done] == [
        'better',
        'missing: 2 of 12 runs are not finished',
        'missing: no cka of the first',
        'missing: 1 seeds in common, of at least 2',
    ]
    p = stats.ttest_rel(ACCURACIES['mse'], ACCURACIES['infonce']).pvalue
    assert_allclose(done[0].p, 4 * p, rtol=1e-6)
    table = comparisons.table(done)
    assert table.kinds == ['', 'missing', 'missing', 'missing']
    assert 'counts in the corrections' in table.caption


def test_a_comparison_that_was_listed_late_is_marked(workdir):
    family = [compare('mse, infonce', condition('mse'), condition('infonce'))]
    (t,) = run_tests(workdir, family, listed='2')
    assert t.is_late
    table = comparisons.table([t])
    assert table.rows[0][0] == 'mse, infonce †' and '† Listed after' in table.caption


def test_an_edited_list_takes_nothing_out_of_the_family(workdir):
    run_tests(workdir, [compare('a', condition('mse'), condition('infonce'))])
    families.write(epath.Path(workdir), [compare('b', condition('mse'), condition('softnn'))], '2')
    elsewhere = [compare('c', Condition(('x',), 'surrogate', '', ''), condition('y'))]
    families.write(epath.Path(workdir), elsewhere, '3')  # of which no run is finished
    done = comparisons.test(report.read_runs(workdir))
    assert [(t.comparison.name, t.is_late) for t in done] == [('a', False), ('b', True)]


def test_a_list_whose_seeds_are_in_another_order_is_no_second_family(workdir):
    run_tests(workdir, [compare('a', condition('mse'), condition('infonce'))])
    turned = [c._replace(runs=c.runs[::-1]) for c in (condition('mse'), condition('infonce'))]
    families.write(epath.Path(workdir), [compare('a', *turned)], '2')
    (t,) = comparisons.test(report.read_runs(workdir))
    p = stats.ttest_rel(ACCURACIES['mse'], ACCURACIES['infonce']).pvalue
    assert_allclose(t.p, p, rtol=1e-6)
    assert not t.is_late


def test_smaller_values_may_be_better(tmp_path):
    error = {'metric': 'my_error', 'better': 'smaller'}
    for run, values in {'a': (0.2, 0.3, 0.25), 'b': (0.4, 0.51, 0.44)}.items():
        for seed, value in enumerate(values, 1):
            write_shown(tmp_path, f'{run}{seed}', value, seed=seed, shown=error)
    of = {name: condition(name, seeds=3) for name in 'ab'}
    family = [
        compare('a, b', of['a'], of['b'], metric='my_error'),
        compare('best, a', (of['b'], of['a']), of['a'], 0.1, metric='my_error'),
    ]
    first, second = run_tests(tmp_path, family)
    assert first.verdict == 'better' and first.delta < 0
    assert second.verdict == 'as good (within ±0.1)' and second.delta == 0
    assert comparisons.table([first]).rows[0][1] == '−0.200'


def test_victims_of_a_merged_report_are_told_apart(workdir, tmp_path):
    for run, loss in (('p', 'mse'), ('q', 'infonce')):
        for seed, value in enumerate(ACCURACIES[loss], 1):
            fields = {'attack__loss': loss, 'seed': seed, 'victim__seed': 1}
            write_shown(tmp_path, f'{run}{seed}', value, **fields)
    families.write(epath.Path(tmp_path), [compare('a', condition('p'), condition('q'))], '0')
    run_tests(workdir, [compare('a', condition('mse'), condition('infonce'))])
    done = comparisons.test(report.read_runs(workdir, tmp_path))
    table = comparisons.table(done)
    assert table.header[:2] == ['Comparison', 'victim.seed']
    assert [row[:2] for row in table.rows] == [['a', '0'], ['a', '1']]
    assert_allclose(done[0].p, 2 * significance.difference_p(done[0].differences))


def test_a_damaged_family_is_refused(workdir):
    run_tests(workdir, [compare('a', condition('mse'), condition('infonce'))])
    (path,) = (workdir / families.FOLDER).glob('*')
    path.write_text(path.read_text().replace('"a"', '"b"'))
    with pytest.raises(UserError, match='move it out of the workdir'):
        comparisons.test(report.read_runs(workdir))


def test_a_report_is_headed_by_victim_sizes_accuracy_and_seeds(workdir):
    runs = report.read_runs(workdir)
    about = {'network': 'small', 'parameters': 1234, 'images': 5678, 'pool': 30000}
    runs = [run._replace(studied=about) for run in runs[:7]]
    assert studied.studied(runs) == [
        'Studied: the victim, seed 0, small; 1,234 parameters; 5,678 training inputs; linear probe '
        'on digits 90.0 % (100 test inputs). Attackers: 100 queries from 30,000 inputs, seeds '
        '1, 2, 3, 4 and 5.'
    ]
    loaded = runs[0].config | {'victim': {'source': 'stored("a")', 'seed': 0}}
    about = about | {'images': None}
    one, other = studied.studied([runs[0], runs[1]._replace(config=loaded, studied=about)])
    assert one != other and 'the victim stored("a"), small; 1,234 parameters; linear' in other
    assert other.endswith(' seed 1.')
