"""The report on a scoring: verdicts, false accusations, what survives."""

from collections.abc import Mapping, Sequence

from etils import epath

from ssl_extract.evaluation.intervals import Measurement
from ssl_extract.ownership import known_truth
from ssl_extract.ownership.figures import figure_roc, figure_survival
from ssl_extract.ownership.known_truth import ALLOWED, Group, Rates, Truth, named
from ssl_extract.ownership.scoring import SUSPECT, Score
from ssl_extract.ownership.verdict import hits
from ssl_extract.report.page import save
from ssl_extract.report.parts import Report, Section, picture
from ssl_extract.report.tables import NONE, Table, p_value, percent, span

TITLE = 'Ownership'


def write(
    folder: epath.PathLike,
    scores: Sequence[Score],
    truths: Mapping[str, Truth] | None = None,
    title: str = TITLE,
) -> None:
    """Writes `report.html`, `report.md`, `figures/` and `tables/` on scores.

    Args:
        folder: made if missing.
        scores: of one scoring or of several, of suspects with names of their own.
        truths: of all suspects, by name, where they are known.
        title: of the report.

    Raises:
        UserError: the truth of a suspect is missing.
    """
    if truths is not None:
        known_truth.check(truths, [s.encoder for s in scores if s.role == SUSPECT])
    save(epath.Path(folder), build(scores, truths, title))


def build(
    scores: Sequence[Score], truths: Mapping[str, Truth] | None = None, title: str = TITLE
) -> Report:
    """Makes all words, tables and pictures; the arguments are those of `write`."""
    rates = known_truth.rates(scores, truths)
    accusations = Section('False accusations', [_accusations(rates)])
    if truths is None:
        sections = [Section('Verdicts', [_verdicts(scores)]), accusations]
    else:
        groups = known_truth.groups(scores, truths)
        curves = [row for row in rates if row.curve is not None]
        survival = picture(
            'survival',
            figure_survival(groups),
            'How many suspects of each kind every test finds',
            'The numbers of the table: suspects with a p-value below 5 %. Red: independent '
            'encoders.',
        )
        sections = [Section('What survives', [_survival(groups), survival]), accusations]
        if curves:
            drawn = picture(
                'roc',
                figure_roc(curves),
                'The ROC curve of every test',
                'Statistics of stolen suspects against those of independent encoders; with the '
                'area. A suspect that the test refuses counts as missed.',
            )
            sections.append(Section('Detection', [_detection(curves), drawn]))
    return Report(title, [], _summary(scores, rates), sections, '', None, '', [])


def _summary(scores: Sequence[Score], rates: Sequence[Rates]) -> list[str]:
    suspects = {s.encoder for s in scores if s.role == SUSPECT}
    others = {s.encoder for s in scores if s.role != SUSPECT}
    counted = (
        f'Suspects: {len(suspects)}; independent encoders: {len(others)}; tests: {len(rates)}. '
        'A p-value is that of one more independent encoder, or of another secret of the owner; '
        'the verdicts of a test are corrected for the number of its suspects, and not for the '
        'number of tests.'
    )
    wrong = [row.test for row in rates if row.accused and row.accused.ci_low > 0.05]
    bad = f'These accuse more than 5 % of independent encoders: {", ".join(wrong)}.'
    return [counted, *[bad] * bool(wrong)]


def _verdicts(scores: Sequence[Score]) -> Table:
    rows = [
        [s.encoder, s.test, p_value(s.p_value), p_value(s.corrected), s.verdict, s.null]
        for s in scores
        if s.role == SUSPECT
    ]
    header = ['Suspect', 'Test', 'p', 'p (Holm)', 'Verdict', 'Null']
    caption = (
        'Holm’s correction is over the suspects of a test. Not shown does not mean independent.'
    )
    numeric = [False, False, True, True, False, False]
    return Table('', header, rows, numeric, [''] * len(rows), caption, keys=2)


def _accusations(rates: Sequence[Rates]) -> Table:
    rows = [
        [row.test, *_measured(row.accused), '' if row.accused is None else str(row.accused.n),
         p_value(row.uniform)]
        for row in rates
    ]  # fmt: skip
    header = ['Test', 'Accused, %', '95 % interval', 'Encoders', 'Uniform: p']
    caption = (
        'The share of independent encoders with a p-value below 5 %, each judged by the others; '
        'exact binomial intervals. Uniform: the Kolmogorov-Smirnov test of these p-values.'
    )
    return Table('', header, rows, [False, *[True] * 4], [''] * len(rows), caption)


def _survival(groups: Sequence[Group]) -> Table:
    tests = list(dict.fromkeys(group.test for group in groups))
    cells = {(group.truth, group.test): _cell(group) for group in groups}
    truths = list(dict.fromkeys(group.truth for group in groups))
    rows = [[named(t), *(cells.get((t, test), NONE) for test in tests)] for t in truths]
    caption = (
        'How many of the suspects in a row the test finds, with a p-value below 5 %, and the '
        'median p-value. A row of independent encoders counts false accusations.'
    )
    numeric = [False, *[True] * len(tests)]
    return Table('', ['Suspects', *tests], rows, numeric, [''] * len(rows), caption)


def _cell(group: Group) -> str:
    if group.found is None:
        return 'refused'
    words = f'{hits(group.found)}/{group.found.n}, p {p_value(group.p_value)}'
    return words + (f', {group.refused} refused' if group.refused else '')


def _detection(rates: Sequence[Rates]) -> Table:
    rows = []
    for row in rates:
        auc = row.curve.auc
        area = [f'{auc.value:.2f}', f'{auc.ci_low:.2f}–{auc.ci_high:.2f}']
        at = [cell for measured in row.at for cell in _measured(measured)]
        stolen = row.at[0].n
        counts = [str(stolen), str(auc.n - stolen)]
        rows.append([row.test, *area, *at, *_measured(row.found), *counts])
    header = ['Test', 'Area under ROC', '95 % interval']
    for allowed in ALLOWED:
        header += [f'Found at {percent(allowed, 0)} %, %', '95 % interval']
    header += ['Found by p, %', '95 % interval', 'Stolen', 'Independent']
    caption = (
        'Of all stolen suspects; one that a test refuses is not found. Found at 1 and 5 %: above '
        'the statistic that no more than this '
        'share of the independent encoders exceed; below one divided by their number, it is the '
        'largest of theirs. Exact binomial intervals; of the area, a bootstrap over encoders.'
    )
    return Table('', header, rows, [False, *[True] * 10], [''] * len(rows), caption)


def _measured(measurement: Measurement | None) -> list[str]:
    if measurement is None:
        return [NONE, NONE]
    return [percent(measurement.value), span((measurement.ci_low, measurement.ci_high))]
