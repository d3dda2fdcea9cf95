"""The tests of the comparisons that a config listed before its runs."""

import collections
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssl_extract.report import columns, estimates, families, metrics, results, significance, tables
from ssl_extract.report.estimates import Interval
from ssl_extract.report.families import Comparison, Condition
from ssl_extract.report.results import FinishedRun
from ssl_extract.report.significance import LEVEL
from ssl_extract.report.tables import NONE, Table

Values = dict[tuple, float]  # by the seeds of attacker and victim
MISSING = 'missing'  # the kind of a line of the table
# By the better values of a metric: the verdicts on a difference above and below 0.
_VERDICTS = {
    'larger': ('better', 'worse'),
    'smaller': ('worse', 'better'),
    '': ('larger', 'smaller'),
}
_UNDECIDED = 'not decided'
_LATE = ' †'


class Tested(NamedTuple):
    """A comparison and its tests.

    Attributes:
        comparison: as it was listed.
        victim: (name, value) of the fields of data, victim and evaluation that differ between runs.
        shown: the presentation of the metric.
        is_late: whether the comparison was listed after one of its runs had started.
        problem: what is missing, so that nothing is tested; '' where all is there.
        differences: new - old, seed by seed.
        p: of the difference, adjusted for the family; 1 where nothing is tested.
        p_equivalent: of the equivalence, adjusted for the tests of equivalence; None without a
            margin.
    """

    comparison: Comparison
    victim: tuple[tuple[str, str], ...]
    shown: metrics.Shown
    is_late: bool
    problem: str
    differences: tuple[float, ...]
    p: float = 1.0
    p_equivalent: float | None = None

    @property
    def delta(self) -> float:
        """Returns the mean difference."""
        return math.fsum(self.differences) / len(self.differences)

    @property
    def interval(self) -> Interval:
        """Returns the 95 % t-interval of this difference alone."""
        return estimates.t_interval(self.differences)

    @property
    def verdict(self) -> str:
        """Returns what the family's tests say of `new`, or what is missing."""
        if self.problem:
            return f'{MISSING}: {self.problem}'
        alike = self.p_equivalent is not None and self.p_equivalent < LEVEL
        if self.p >= LEVEL:
            return f'as good (within ±{self._margin})' if alike else _UNDECIDED
        word = _VERDICTS[self.shown.better][self.delta < 0]
        return f'{word}, by less than {self._margin}' if alike else word

    @property
    def _margin(self) -> str:
        margin = self.comparison.margin
        return f'{100 * margin:g} points' if self.shown.is_share else f'{margin:g}'


def test(runs: Sequence[FinishedRun]) -> list[Tested]:
    """Tests all comparisons that the families of some finished runs list.

    Each is a paired t-test over the seeds that both conditions have; a measurement that several
    seeds share, as the victim's, stands beside each of them. The p-values of the differences are
    adjusted by Holm's procedure over all comparisons, and those of the equivalence over all that
    have a margin. A comparison that cannot be tested counts in its family with the p-value 1.

    Args:
        runs: as `results.read_runs` returns them.
    """
    by_id = {run.id: run for run in runs}
    names, family = _varied(runs), families.read(runs)
    named = [{'metric': comparison.metric} for comparison in family]  # of which no row may be
    shown = metrics.shown([*(row for run in runs for row in run.rows), *named])
    tested = [
        _tested(comparison, listed, by_id, names, shown[comparison.metric])
        for comparison, listed in family.items()
    ]
    p_values = [1.0 if t.problem else significance.difference_p(t.differences) for t in tested]
    tested = [t._replace(p=p) for t, p in zip(tested, significance.holm(p_values), strict=True)]
    numbers = [i for i, t in enumerate(tested) if t.comparison.margin is not None]
    adjusted = significance.holm([_equivalence_p(tested[i]) for i in numbers])
    for i, p in zip(numbers, adjusted, strict=True):
        tested[i] = tested[i]._replace(p_equivalent=p)
    return tested


def table(tested: Sequence[Tested]) -> Table | None:
    """Tabulates the tests of a family; None of an empty one."""
    if not tested:
        return None
    names = list(dict.fromkeys(name for t in tested for name, _ in t.victim))
    cells = {
        'Comparison': [t.comparison.name + _LATE * t.is_late for t in tested],
        **{name: [str(dict(t.victim).get(name, NONE)) for t in tested] for name in names},
        'Task': [str(t.comparison.task or NONE) for t in tested],
        'Metric': [t.shown.title for t in tested],
        'Difference': [_difference(t) for t in tested],
        '95 % interval': [NONE if t.problem else _span(t) for t in tested],
        'Seeds': [NONE if t.problem else str(len(t.differences)) for t in tested],
        'p (Holm)': [NONE if t.problem else tables.p_value(t.p) for t in tested],
        'As good: p (Holm)': [
            NONE if t.problem else tables.p_value(t.p_equivalent) for t in tested
        ],
        'Verdict': [t.verdict for t in tested],
    }
    constant = [name for name in ('Task', 'Metric') if len(set(cells[name])) == 1]
    about = ', '.join(cells[name][0] for name in reversed(constant) if cells[name][0] != NONE)
    cells = {name: column for name, column in cells.items() if name not in constant}
    texts = ('Comparison', 'Task', 'Metric', 'Verdict', *names)
    body = [list(line) for line in zip(*cells.values(), strict=True)]
    return Table(
        about,
        list(cells),
        body,
        [name not in texts for name in cells],
        [MISSING if t.problem else '' for t in tested],
        ' '.join(filter(None, _caption(tested))),
        keys=list(cells).index('Difference'),
    )


def in_words(tested: Sequence[Tested]) -> str:
    """Counts the verdicts of a family in a sentence; '' of an empty one."""
    kinds = collections.Counter(re.match('[a-z ]+', t.verdict)[0].strip() for t in tested)
    counts = ', '.join(f'{count} {kind}' for kind, count in kinds.items())
    return f'Comparisons listed beforehand: {len(tested)}; {counts}.' if tested else ''


def _tested(
    comparison: Comparison,
    listed: str,
    runs: dict[str, FinishedRun],
    names: Sequence[str],
    shown: metrics.Shown,
) -> Tested:
    """Pairs the values of a comparison, or says what is missing."""
    own = [runs[run] for run in comparison.runs if run in runs]
    unlike = results.agreed_fields(own, names) if own else {}
    victim = tuple((name, value) for name, value in unlike.items() if value is not None)
    is_late = any(str(run.started) < listed for run in own)
    if missing := len(comparison.runs) - len(own):
        problem, differences = f'{missing} of {len(comparison.runs)} runs are not finished', ()
    else:
        problem, differences = _paired(comparison, own, shown.better)
    return Tested(comparison, victim, shown, is_late, problem, differences)


def _paired(
    comparison: Comparison, own: Sequence[FinishedRun], better: str
) -> tuple[str, tuple[float, ...]]:
    """Returns what is missing, or '' and the differences seed by seed."""
    sides = {}
    for name, side in (('first', comparison.new), ('second', comparison.old)):
        measured = [_values(condition, comparison, own) for condition in side]
        if not all(measured):
            return f'no {comparison.metric} of the {name}', ()
        if not all(estimates.is_finite(v) for values in measured for v in values.values()):
            return f'the {name} has a value that is not finite', ()
        best = min if better == 'smaller' else max
        sides[name] = best(measured, key=lambda values: math.fsum(values.values()) / len(values))
    new, old = sides.values()
    seeds = sorted(new.keys() & old.keys())
    if len(seeds) < 2:
        return f'{len(seeds)} seeds in common, of at least 2', ()
    return '', tuple(new[seed] - old[seed] for seed in seeds)


def _values(condition: Condition, comparison: Comparison, own: Sequence[FinishedRun]) -> Values:
    """Returns the values of a condition by seed.

    A run behind a defense measures its legitimate users without the defense too, so that the rows
    of users may be in any run of the comparison.
    """
    is_user = condition.role == 'legitimate'
    wanted = {'role': condition.role, 'task': comparison.task, 'metric': comparison.metric}
    wanted |= {'user': condition.user, 'defense': condition.defense} if is_user else {}
    return {
        (run.config['seed'], run.config['victim']['seed']): row['value']
        for run in own
        if is_user or run.id in condition.runs
        for row in run.rows
        if all((row.get(name) or '') == (value or '') for name, value in wanted.items())
    }


def _varied(runs: Sequence[FinishedRun]) -> list[str]:
    """Names the fields of data, victim and evaluation that differ between runs."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in results.flatten(run.config).items():
            if name.split('.')[0] in columns.SETTING:
                values.setdefault(name, set()).add(str(value))
    return [name for name, told in values.items() if len(told) > 1]


def _equivalence_p(t: Tested) -> float:
    return 1.0 if t.problem else significance.equivalence_p(t.differences, t.comparison.margin)


def _difference(t: Tested) -> str:
    return NONE if t.problem else _signed(t)(t.delta)


def _span(t: Tested) -> str:
    return tables.span(t.interval, _signed(t))


def _signed(t: Tested) -> Callable[[float], str]:
    return tables.signed if t.shown.is_share else tables.decimal


def _caption(tested: Sequence[Tested]) -> list[str]:
    several = any(len(side) > 1 for t in tested for side in (t.comparison.new, t.comparison.old))
    count = sum(t.comparison.margin is not None for t in tested)
    return [
        'The comparisons that the config listed before its runs. Difference: the first minus the '
        'second, paired seed by seed, in percentage points where the metric is a share; the '
        'interval is of this difference alone.',
        f'Better and worse: the paired t-test rejects after Holm’s (1979) correction for all '
        f'{len(tested)} comparisons, at the level {LEVEL:g}.',
        'As good: the difference is shown to be smaller than the margin, by two one-sided tests '
        f'(Schuirmann 1987) with Holm’s correction for {count} of them. Not decided is not as good.'
        if count
        else '',
        'A comparison without all its runs is not tested and counts in the corrections.'
        if any(t.problem for t in tested)
        else '',
        'The best of several is the best by its mean over seeds, on the inputs that it is reported '
        'on.'
        if several
        else '',
        f'{_LATE.strip()} Listed after some of its runs had started.'
        if any(t.is_late for t in tested)
        else '',
    ]
