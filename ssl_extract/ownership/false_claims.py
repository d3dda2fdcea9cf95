"""False claims: a test chosen after an independent encoder is seen.

A cheat holds an encoder, finds an independent one, and looks for a test and for inputs by which the
independent encoder appears stolen (FIT-Print, arXiv 2501.15509). `claims` measures how often such a
choice succeeds; `corrected` is what a judge who counts the choices makes of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.ownership import base
from ssl_extract.ownership.base import Case, Evidence, Represent, remembered
from ssl_extract.ownership.scoring import p_value_of


class Claim(NamedTuple):
    """The claim that accuses an independent encoder most.

    Attributes:
        test: the spec of the chosen test.
        case: the place of the chosen case.
        p_value: of the chosen test alone, as the cheat shows it.
        corrected: `p_value` times the number of choices, at most 1 (Bonferroni): valid whatever
            was chosen, however the tests depend on one another.
        choices: the number of pairs of a test and a case.
    """

    test: str
    case: int
    p_value: float
    corrected: float
    choices: int


def subsets(case: Case, count: int, size: int, seed: int = 0) -> list[Case]:
    """Returns the case on random subsets of its inputs, for a claimant to choose from.

    >>> case = Case(np.abs, public=np.arange(100.0)[:, None])
    >>> [len(part.public) for part in subsets(case, count=2, size=20)]
    [20, 20]

    Args:
        case: the claimant's side.
        count: number of cases.
        size: inputs of each set in a case.
        seed: of the draws.

    Raises:
        UserError: a set has fewer inputs than `size`.
    """
    rng = np.random.default_rng(seed)

    def drawn(name: str) -> np.ndarray | None:
        inputs = getattr(case, name)
        if inputs is None:
            return None
        if len(inputs) < size:
            raise UserError(f'size={size} is more than the {len(inputs)} {name} inputs; write less')
        return inputs[rng.choice(len(inputs), size, replace=False)]

    return [case._replace(private=drawn('private'), public=drawn('public')) for _ in range(count)]


def false_claim(
    cases: Sequence[Case], tests: Sequence[str], suspect: Represent, others: Sequence[Represent]
) -> Claim:
    """Returns the claim by the test and the case that accuse an independent encoder most.

    Args:
        cases: the claimant's side, with the inputs to choose from.
        tests: specs to choose from.
        suspect: the independent encoder that is accused.
        others: independent encoders, of the null.

    Raises:
        UserError: a case lacks what a test needs, or there are fewer than 8 others and a test is
            not over secrets.
    """
    return _claim(0, *_table(cases, tests, [suspect, *others]))


def claims(
    cases: Sequence[Case], tests: Sequence[str], independents: Sequence[Represent]
) -> list[Claim]:
    """Returns the claim against each independent encoder, among all the others.

    The false-positive rate under choice is `verdict.rate(hits, n)` of the p-values below a level.
    The claims share their null, so that they are not independent of one another, and the rate's
    interval is approximate.

    Args:
        cases: see `false_claim`.
        tests: see `false_claim`.
        independents: 9 encoders or more; each is accused in turn.

    Raises:
        UserError: see `false_claim`.
    """
    table = _table(cases, tests, independents)
    return [_claim(place, *table) for place in range(len(independents))]


Choice = tuple[str, int]


def _table(
    cases: Sequence[Case], tests: Sequence[str], encoders: Sequence[Represent]
) -> tuple[list[Choice], list[list[Evidence]]]:
    """Returns the choices, and the evidence of all encoders under each."""
    choices = [(spec, place) for spec in tests for place in range(len(cases))]
    if not choices:
        raise UserError('a false claim needs one test and one case or more')
    cases = [case._replace(victim=remembered(case.victim)) for case in cases]
    tests = [base.prepared(spec, cases[place]) for spec, place in choices]
    columns = [[test(once) for test in tests] for once in map(remembered, encoders)]
    return choices, [list(row) for row in zip(*columns, strict=True)]


def _claim(accused: int, choices: list[Choice], table: list[list[Evidence]]) -> Claim:
    p_values = []
    for (spec, _), row in zip(choices, table, strict=True):
        null = [e.statistic for place, e in enumerate(row) if place != accused]
        p_values.append(p_value_of(spec, row[accused], null))
    best = int(np.argmin(p_values))
    p_value = p_values[best]
    return Claim(*choices[best], p_value, min(1.0, p_value * len(choices)), len(choices))
