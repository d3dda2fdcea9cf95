"""Scores of suspects: evidence of each encoder, verdicts of each test."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.identity import spec_content
from ssl_extract.ownership import base
from ssl_extract.ownership.base import TESTS, Case, Evidence, Represent, remembered
from ssl_extract.ownership.represented import Candidate
from ssl_extract.ownership.verdict import LEAST_INDEPENDENTS, judge, p_among
from ssl_extract.report.significance import LEVEL
from ssl_extract.runtime import files, progress

STOLEN, NOT_SHOWN, NONE = 'stolen', 'not shown', 'none'  # the verdicts
SUSPECT, INDEPENDENT = 'suspect', 'independent'  # the roles
OTHERS = 'independents'  # a null
COMPARED = 4  # of so many independents, a test that compares with some gets one


class Score(NamedTuple):
    """The result of a test of one encoder.

    An independent encoder is judged by all others of the null, as a suspect of its own: such
    verdicts tell how often the test accuses wrongly.

    Attributes:
        encoder: the name of the encoder.
        role: 'suspect' or 'independent'.
        test: the spec of the test.
        statistic: larger where the encoder is more like a copy; None where the test refused.
        n: the number of inputs, or of secrets, behind the statistic.
        p_value: over the null; None without a verdict.
        corrected: of a suspect, `p_value` by Holm's procedure over the suspects of the test.
        verdict: 'stolen' if `corrected` is below 5 %, 'not shown' if it is not, or 'none'.
        null: what `p_value` stands on: 'independents, m=24', 'secrets', 'shadows, m=20' or
            'members'; or why there is none.
    """

    encoder: str
    role: str
    test: str
    statistic: float | None = None
    n: int | None = None
    p_value: float | None = None
    corrected: float | None = None
    verdict: str = NONE
    null: str = ''


class Encoders(NamedTuple):
    """The encoders of a scoring.

    Attributes:
        suspects: of unknown origin.
        independents: known not to be stolen.
    """

    suspects: Sequence[Candidate]
    independents: Sequence[Candidate]

    @property
    def compared(self) -> Sequence[Candidate]:
        """Returns the independents of the tests that compare with some: every fourth one."""
        return self.independents[0::COMPARED]

    def null(self, spec: str) -> Sequence[Candidate]:
        """Returns the independents whose statistics are the null of a test.

        An encoder that a test compares with is no draw of its null.
        """
        if 'independents' not in TESTS.traits(spec).needs:
            return self.independents
        return [e for place, e in enumerate(self.independents) if place % COMPARED]


def score(
    case: Case,
    encoders: Encoders,
    tests: Sequence[str] | None,
    *,
    content: Mapping[str, Any],
    folder: epath.Path,
) -> list[Score]:
    """Scores suspects by tests; what is finished is read from the folder.

    Args:
        case: the owner's side, without independent encoders.
        encoders: see `Encoders`.
        tests: specs; None is every registered test that has what it needs and takes no key.
        content: what the evidence depends on beside the encoder and the tests, by content.
        folder: holds one file for each finished encoder.

    Returns:
        The scores, test by test: of the suspects in their order, then of the test's null.

    Raises:
        UserError: before any work, if a test lacks what it needs or no test has a null.
    """
    case = case._replace(
        victim=remembered(case.victim), independents=tuple(map(lazy, encoders.compared))
    )
    tests = _choose(tests, case, encoders)
    todo = [(e, [s for s in tests if e in encoders.null(s)]) for e in encoders.independents]
    todo += [(e, tests) for e in encoders.suspects]
    prepared, kept = {spec: base.prepared(spec, case) for spec in tests}, {}
    with progress.progress(total=len(todo), desc='score', unit='encoder') as bar:
        for encoder, own in todo:
            described = {**content, 'encoder': encoder.address, 'tests': _describe(own, encoders)}
            path = folder / f'{files.checksum(described)[:16]}.json'
            kept[encoder.address] = _read_or_run(
                path, encoder, {spec: prepared[spec] for spec in own}
            )
            bar.update()
    return [row for spec in tests for row in _verdicts(spec, case, encoders, kept)]


def as_csv(scores: Sequence[Score]) -> str:
    """Writes scores as CSV, numbers in full; an empty cell is a number that there is not."""
    return files.as_csv([Score._fields, *scores])


def lazy(candidate: Candidate) -> Represent:
    """Returns an encoder as a function that reads the encoder's file at the first call."""
    opened = functools.cache(candidate.open)
    return remembered(lambda inputs: opened()(inputs))


def check_roles(victim: Candidate, shadows: Sequence[Candidate], encoders: Encoders) -> None:
    """Checks that no encoder has two roles; the victim itself may be a suspect.

    Raises:
        UserError: there is no suspect, or an encoder is in two folders.
    """
    if not encoders.suspects:
        raise UserError('there are no suspects: give one or more')
    roles = {victim.address: 'the victim'}
    for role, group in (('shadow', shadows), ('independent', encoders.independents)):
        for encoder in group:
            name = f'{role} encoder {encoder.name}'
            if encoder.address in roles:
                raise UserError(
                    f'{name} is the same as {roles[encoder.address]}: take one of them out'
                )
            roles[encoder.address] = name
    del roles[victim.address]
    for suspect in encoders.suspects:
        if suspect.address in roles:
            raise UserError(
                f'suspect {suspect.name} is the same as {roles[suspect.address]}: take one of them '
                'out'
            )


def p_value_of(spec: str, evidence: Evidence, null: Sequence[float]) -> float:
    """Returns the p-value on which a verdict stands.

    It is the test's own one where that is over secrets, and over shadows or members where there are
    too few independent encoders; else it is that among independent encoders.

    Args:
        spec: of the test.
        evidence: of the suspect.
        null: statistics of independent encoders.

    Raises:
        UserError: the test gives no p-value of its own; see `verdict.p_among`.
    """
    return _p_value(spec, evidence, [] if _own_null(spec, len(null)) else null)


def _p_value(spec: str, evidence: Evidence, null: Sequence[float]) -> float:
    """Returns the p-value among statistics of independents, or without any the test's own one."""
    if null:
        return p_among(evidence.statistic, null)
    if evidence.p_value is None:
        raise UserError(f'ownership test {spec!r} gives no p-value of its own')
    return evidence.p_value


def _own_null(spec: str, independents: int) -> str:
    """Returns what the test's own p-value is over, where a verdict stands on it; else ''."""
    null = TESTS.traits(spec).null
    few = null in ('shadows', 'members') and independents < LEAST_INDEPENDENTS
    return null if few or null == 'secrets' else ''


def _choose(tests: Sequence[str] | None, case: Case, encoders: Encoders) -> list[str]:
    """Returns the tests to run.

    Raises:
        UserError: see `score`.
    """
    if tests is None:
        chosen = [n for n in TESTS if _runs_unasked(n) and not _lacking(n, case)]
    else:
        chosen = list(dict.fromkeys(tests))
    for spec in chosen:
        if lacking := _lacking(spec, case):
            raise UserError(f'ownership test {spec!r} needs {lacking}: give {lacking}=...')
        base.check_case(spec, case)
        TESTS.make(spec)
    refusals = [_no_null(spec, case, encoders) for spec in chosen]
    if all(refusals):
        given = [field for field in ('private', 'public', 'shadows', 'mark') if _has(case, field)]
        nothing = f'no registered test needs only {", ".join(given) or "a victim"}: give more'
        raise UserError(next(iter(refusals), nothing))
    return chosen


def _runs_unasked(name: str) -> bool:
    """Tells whether a test needs no argument, and no key: which key is the owner's to say."""
    parameters = inspect.signature(TESTS[name]).parameters
    return 'key' not in parameters and all(p.default is not p.empty for p in parameters.values())


def _lacking(spec: str, case: Case) -> str:
    return next((need for need in TESTS.traits(spec).needs if not _has(case, need)), '')


def _has(case: Case, field: str) -> bool:
    value = getattr(case, field)
    return value is not None and (not isinstance(value, tuple) or bool(value))


def _no_null(spec: str, case: Case, encoders: Encoders) -> str:
    """Returns why a test has no null; '' where it has one."""
    m = len(encoders.null(spec))
    own, least = _own_null(spec, m), round(len(encoders.suspects) / LEVEL)
    if own == 'shadows' and len(case.shadows) < least:
        return (
            f'{len(case.shadows)} shadows give no corrected p-value below {LEVEL:.0%}, for '
            f'{len(encoders.suspects)} suspects: give {least} shadows or more, or '
            f'{LEAST_INDEPENDENTS} independent encoders'
        )
    if own or m >= LEAST_INDEPENDENTS:
        return ''
    compares = 'independents' in TESTS.traits(spec).needs
    least = next(
        n for n in itertools.count() if n - compares * -(-n // COMPARED) >= LEAST_INDEPENDENTS
    )
    return (
        f'{len(encoders.independents)} independent encoders tell no false-positive rate of '
        f'{spec}: give {least} or more'
        + (f', one in {COMPARED} of which the test compares with' if compares else '')
    )


def _describe(tests: Sequence[str], encoders: Encoders) -> dict[str, Any]:
    """Describes tests by content, with the encoders that they compare with."""
    compare = any('independents' in TESTS.traits(spec).needs for spec in tests)
    others = [other.address for other in encoders.compared] if compare else []
    return {'specs': [spec_content(TESTS, spec) for spec in tests], 'compared': others}


Prepared = Mapping[str, Callable[[Represent], Evidence]]  # tests of a case by their specs


def _read_or_run(path: epath.Path, encoder: Candidate, tests: Prepared) -> dict[str, Any]:
    """Reads the evidence on an encoder, and runs the tests of which there is none.

    A refusal is not kept: its cause may pass, as that of a service that did not answer.
    """
    kept = {}
    if path.exists():
        with files.advised('remove it, and give the same command again'):
            kept = files.read_json(path)['tests']
    new = _evidence(encoder, {spec: test for spec, test in tests.items() if spec not in kept})
    found = {spec: evidence for spec, evidence in new.items() if 'refused' not in evidence}
    if found:
        files.write_json(path, {'name': encoder.name, 'tests': kept | found})
    return kept | new


def _evidence(encoder: Candidate, tests: Prepared) -> dict[str, Any]:
    """Runs tests on an encoder; of a refusal the text is the evidence."""
    suspect, kept = lazy(encoder), {}
    for spec, test in tests.items():
        try:
            statistic, n, p_value = test(suspect)
        except UserError as error:
            kept[spec] = {'refused': str(error)}
            continue
        p_value = None if p_value is None else float(p_value)
        kept[spec] = {'statistic': float(statistic), 'n': int(n), 'p_value': p_value}
    return kept


def _verdicts(
    spec: str, case: Case, encoders: Encoders, kept: dict[str, dict[str, Any]]
) -> list[Score]:
    """Judges all suspects by one test, as a family, and each independent by the others."""
    null, text = _null(spec, case, encoders, kept)
    rows = [
        _row(Score(suspect.name, SUSPECT, spec, null=text), kept[suspect.address][spec], null)
        for suspect in encoders.suspects
    ]
    return [*_judged(rows), *_independents(spec, encoders, kept, null, text)]


def _independents(
    spec: str,
    encoders: Encoders,
    kept: dict[str, dict[str, Any]],
    null: list[float] | None,
    text: str,
) -> list[Score]:
    """Judges each encoder of the null by the others; a family of one."""
    rows = []
    for place, other in enumerate(encoders.null(spec)):
        rest = null and [*null[:place], *null[place + 1 :]]
        about = f'{OTHERS}, m={len(rest)}' if rest else text
        row = Score(other.name, INDEPENDENT, spec, null=about)
        rows += _judged([_row(row, kept[other.address][spec], rest)])
    return rows


def _judged(family: list[Score]) -> list[Score]:
    """Corrects the p-values of a family, and gives the verdicts where there is a p-value."""
    judged = [place for place, row in enumerate(family) if row.p_value is not None]
    statistics, p_values = (
        [getattr(family[i], x) for i in judged] for x in ('statistic', 'p_value')
    )
    rows = list(family)
    for place, verdict in zip(judged, judge(statistics, p_values), strict=True):
        word = STOLEN if verdict.stolen else NOT_SHOWN
        rows[place] = rows[place]._replace(corrected=verdict.corrected, verdict=word)
    return rows


def _row(row: Score, evidence: dict[str, Any], null: list[float] | None) -> Score:
    """Fills in the evidence on an encoder, and the p-value or why there is none."""
    if 'refused' in evidence:
        return row._replace(null=evidence['refused'])
    row = row._replace(statistic=evidence['statistic'], n=evidence['n'])
    if null is None:
        return row
    try:
        return row._replace(p_value=_p_value(row.test, Evidence(**evidence), null))
    except UserError as error:
        return row._replace(null=str(error))


def _null(
    spec: str, case: Case, encoders: Encoders, kept: dict[str, dict[str, Any]]
) -> tuple[list[float] | None, str]:
    """Returns the statistics of the null and its name, or None and the reason."""
    others = encoders.null(spec)
    if reason := _no_null(spec, case, encoders):
        return None, reason
    if own := _own_null(spec, len(others)):
        return [], f'{own}, m={len(case.shadows)}' if own == 'shadows' else own
    statistics = []
    for other in others:
        evidence = kept[other.address][spec]
        if 'refused' in evidence:
            return None, f'independent encoder {other.name}: {evidence["refused"]}'
        statistics.append(evidence['statistic'])
    return statistics, f'{OTHERS}, m={len(statistics)}'
