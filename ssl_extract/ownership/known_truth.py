"""Suspects whose truth is known, and how often a test is right on them.

    encoder,truth,how,queries
    mse-4000-1,stolen,mse,4000
    rotated-1,stolen,"mse, rotate",4000
    retrained-1,independent,the same data,

Such a table is a measurement of tests, and no verdict: it needs encoders that the owner stole.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.evaluation import roc
from ssl_extract.evaluation.intervals import Measurement
from ssl_extract.evaluation.roc import Roc
from ssl_extract.ownership.scoring import INDEPENDENT, STOLEN, SUSPECT, Score
from ssl_extract.ownership.verdict import detected, rate
from ssl_extract.report.significance import LEVEL
from ssl_extract.runtime import files

_COLUMNS = ('encoder', 'truth', 'how', 'queries')
ALLOWED = (0.01, 0.05)  # false-positive rates at which detection is counted


class Truth(NamedTuple):
    """What is known of a suspect.

    Attributes:
        stolen: whether it was stolen from the victim.
        how: the attack, what the copy hides by, or the kind of independent encoder.
        queries: that the attack paid for; None where there were none.
    """

    stolen: bool
    how: str
    queries: int | None = None


def named(truth: Truth) -> str:
    """Names suspects that were made alike.

    >>> named(Truth(True, 'mse', 4_000)), named(Truth(False, 'the same data'))
    ('mse, 4,000 queries', 'independent: the same data')
    """
    queries = '' if truth.queries is None else f', {truth.queries:,} queries'
    return f'{"" if truth.stolen else "independent: "}{truth.how}{queries}'


class Rates(NamedTuple):
    """How often one test is right.

    Attributes:
        test: the spec of the test.
        accused: the share of judged independent encoders with a p-value below 5 %, each judged by
            the others; None where the test gives them none.
        uniform: the p-value of the Kolmogorov-Smirnov test that the p-values of independents are
            uniform. They share their null, so that it is approximate.
        found: the share of stolen suspects with a p-value below 5 %; one that the test refuses is
            not found. None of none, as below.
        at: the share of stolen suspects above the threshold of each rate in ALLOWED.
        curve: see `Roc`; statistics of stolen suspects against those of independents. One that the
            test refuses is below all others.
    """

    test: str
    accused: Measurement | None
    uniform: float | None
    found: Measurement | None = None
    at: tuple[Measurement, ...] = ()
    curve: Roc | None = None


class Group(NamedTuple):
    """The suspects that were made alike, by one test.

    Attributes:
        truth: of all of them.
        test: the spec of the test.
        found: the share with a p-value below 5 %; None where the test refuses all.
        p_value: the median.
        refused: suspects to which the test gives no p-value.
    """

    truth: Truth
    test: str
    found: Measurement | None
    p_value: float | None
    refused: int


def read(path: epath.PathLike) -> dict[str, Truth]:
    """Reads a table of truths: CSV with the columns encoder, truth, how, queries.

    Args:
        path: of the table; see the top of this file.

    Raises:
        UserError: there is no such file, a column is missing or a cell is wrong.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f'{path} is not there: write a CSV of encoder,truth,how,queries')
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    truths: dict[str, Truth] = {}
    for number, row in enumerate(rows, start=2):
        where = f'{path}, line {number}'
        if not {*_COLUMNS} <= set(row) or None in row or None in row.values():
            raise UserError(f'{where}: write the columns encoder,truth,how,queries')
        if row['truth'] not in (STOLEN, INDEPENDENT):
            raise UserError(f"{where}: truth is {row['truth']!r}: write 'stolen' or 'independent'")
        if row['queries'] and not row['queries'].isdecimal():
            raise UserError(
                f'{where}: queries is {row["queries"]!r}: write a whole number, or none'
            )
        if row['encoder'] in truths:
            raise UserError(f'{where}: {row["encoder"]} was there before: write one line for each')
        queries = int(row['queries']) if row['queries'] else None
        truths[row['encoder']] = Truth(row['truth'] == STOLEN, row['how'], queries)
    return truths


def as_csv(truths: Mapping[str, Truth]) -> str:
    """Writes truths as `read` reads them.

    >>> as_csv({'a': Truth(True, 'mse', 500), 'b': Truth(False, 'other seed')})
    'encoder,truth,how,queries\\na,stolen,mse,500\\nb,independent,other seed,\\n'
    """
    rows = [
        (name, STOLEN if truth.stolen else INDEPENDENT, truth.how, truth.queries)
        for name, truth in truths.items()
    ]
    return files.as_csv([_COLUMNS, *rows])


def check(truths: Mapping[str, Truth], suspects: Iterable[str]) -> None:
    """Checks that the truth of every suspect is known.

    Raises:
        UserError: a suspect is not in the table.
    """
    for name in suspects:
        if name not in truths:
            raise UserError(f'suspect {name} is not in the table of truths: add a line for it')


def rates(scores: Sequence[Score], truths: Mapping[str, Truth] | None = None) -> list[Rates]:
    """Measures each test on independents, and on stolen suspects where their truth is known.

    >>> rows = [Score(f'i{n}', INDEPENDENT, 'gap', n, 9, p) for n, p in enumerate([0.02, 0.5])]
    >>> rates(rows)[0].accused.value
    0.5

    Args:
        scores: of suspects and independents.
        truths: by the names of suspects; None where they are not known.
    """
    measured = []
    for test in dict.fromkeys(score.test for score in scores):
        own = [score for score in scores if score.test == test]
        others = [s for s in own if s.role == INDEPENDENT and s.statistic is not None]
        stolen = [s for s in own if s.role == SUSPECT and truths and truths[s.encoder].stolen]
        judged = [score for score in others if score.p_value is not None]
        p_values = [score.p_value for score in judged]
        uniform = float(scipy.stats.kstest(p_values, 'uniform').pvalue) if p_values else None
        row = Rates(test, _below(judged), uniform, _below(stolen))
        shown = [s.statistic for s in (*stolen, *others) if s.statistic is not None]
        if others and len(shown) > len(others):
            least = min(shown) - 1  # of a stolen suspect that the test refuses: it is missed
            both = [
                [least if s.statistic is None else s.statistic for s in group]
                for group in (stolen, others)
            ]
            at = tuple(detected(*both, allowed=allowed) for allowed in ALLOWED)
            row = row._replace(at=at, curve=roc.roc(*map(np.array, both)))
        measured.append(row)
    return measured


def groups(scores: Sequence[Score], truths: Mapping[str, Truth]) -> list[Group]:
    """Summarizes the suspects that were made alike, test by test: stolen ones, then independents.

    Args:
        scores: of suspects; those of independents are passed over.
        truths: by the names of suspects.
    """
    suspects = [score for score in scores if score.role == SUSPECT]
    summarized = []
    for truth in sorted(dict.fromkeys(truths.values()), key=lambda truth: not truth.stolen):
        for test in dict.fromkeys(score.test for score in suspects):
            alike = [s for s in suspects if s.test == test and truths[s.encoder] == truth]
            p_values = [score.p_value for score in alike if score.p_value is not None]
            if alike:
                median = float(np.median(p_values)) if p_values else None
                refused = len(alike) - len(p_values)
                summarized.append(Group(truth, test, _below(alike), median, refused))
    return summarized


def _below(scores: Sequence[Score]) -> Measurement | None:
    """Returns the share with a p-value below the level, with its exact interval.

    An encoder to which the test gives no p-value is one that it does not find; None where it gives
    none at all.
    """
    p_values = [score.p_value for score in scores if score.p_value is not None]
    return rate(sum(p < LEVEL for p in p_values), len(scores)) if p_values else None
