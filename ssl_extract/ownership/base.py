"""The registry of ownership tests, and what both sides of a test bring.

An owner suspects that an encoder was stolen from a victim. A test returns a statistic that is
larger for copies. A new test is a factory that returns a function of a case and a suspect:

    @ownership.register('same_norms', needs=('public',))
    def same_norms() -> ownership.Test:
        def test(case: ownership.Case, suspect: ownership.Represent) -> ownership.Evidence:
            norms = [np.linalg.norm(f(case.public), axis=1) for f in (case.victim, suspect)]
            return ownership.Evidence(np.corrcoef(*norms)[0, 1], len(case.public))

        return test
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ssl_extract.data import Dataset
from ssl_extract.data.overlap import count_shared
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.registry import Registry

LEAST_INPUTS = 16  # of a set, below which no test says anything

Represent = Callable[[np.ndarray], np.ndarray]  # inputs [N, ...], decoded -> float32 [N, D]


class Case(NamedTuple):
    """The owner's side of a test.

    Attributes:
        victim: the owner's encoder.
        private: float32 [N, ...], inputs that the victim was trained on and nobody else has.
        public: float32 [M, ...], inputs of the same source that no encoder was trained on.
        independents: encoders that are known not to be stolen, for tests that compare with them.
        shadows: encoders that the owner trained by the victim's recipe on other inputs.
        conferrable: float32 [P, ...], inputs that move the victim away from its shadows, and copies
            with it.
        mark: what verifies the victim's mark, such as the head that reads it; None without one.
        seed: of the test's draws.
    """

    victim: Represent
    private: np.ndarray | None = None
    public: np.ndarray | None = None
    independents: tuple[Represent, ...] = ()
    shadows: tuple[Represent, ...] = ()
    conferrable: np.ndarray | None = None
    mark: Any = None
    seed: int = 0


class Evidence(NamedTuple):
    """The result of a test of one suspect.

    Attributes:
        statistic: larger where the suspect is more like a copy.
        n: the number of inputs, or of secrets, behind the statistic.
        p_value: the probability of a statistic at least as large under the null hypothesis of the
            test itself; None where the test has none. See `TESTS` for what it is over.
    """

    statistic: float
    n: int
    p_value: float | None = None


Test = Callable[[Case, Represent], Evidence]

# The traits of a test.
# needs: the fields of a case that the test reads, the victim aside.
# null: what a p-value of the test is over: 'inputs' are another draw of inputs for the same two
#     encoders, which says nothing of another independent encoder; 'members' are other random
#     choices of the private inputs among all inputs, which hold for every encoder that was trained
#     on neither set; 'secrets' are other secrets of the owner, which hold for every encoder that
#     never saw the mark; 'shadows' are other encoders of the victim's recipe, which says nothing of
#     other recipes; '' where there is none.
TESTS = Registry(
    'ownership test',
    choices={
        'needs': ('private', 'public', 'independents', 'shadows', 'conferrable', 'mark'),
        'null': ('', 'inputs', 'members', 'secrets', 'shadows'),
    },
    needs=(),
    null='',
)
register = TESTS.register


def test(spec: str, case: Case, suspect: Represent) -> Evidence:
    """Runs one test on one suspect.

    Args:
        spec: of a registered test, such as `'dataset_inference'`.
        case: the owner's side.
        suspect: the encoder of unknown origin.

    Raises:
        UserError: the case lacks what the test needs, a set is too small, private and public inputs
            overlap, or the evidence is not finite.
    """
    return prepared(spec, case)(suspect)


def prepared(spec: str, case: Case) -> Callable[[Represent], Evidence]:
    """Checks a case once, and returns one test of it for many suspects.

    Args:
        spec: of a registered test.
        case: the owner's side.

    Raises:
        UserError: see `test`.
    """
    check_case(spec, case)
    made = TESTS.make(spec)

    def run(suspect: Represent) -> Evidence:
        evidence = made(case, remembered(suspect))
        p_value = evidence.p_value
        if not math.isfinite(evidence.statistic) or not (p_value is None or 0 <= p_value <= 1):
            raise UserError(
                f'ownership test {spec!r} gives a statistic of {evidence.statistic} and a p-value '
                f'of {p_value}: both must be finite; look for constant representations'
            )
        return evidence

    return run


def check_case(spec: str, case: Case) -> None:
    """Checks that a case has what a test needs.

    Raises:
        UserError: see `test`.
    """
    for name in TESTS.traits(spec).needs:
        value = getattr(case, name)
        if value is None or (name != 'mark' and not len(value)):
            raise UserError(f'ownership test {spec!r} needs {name}: give some in the case')
        if name in ('private', 'public', 'conferrable') and len(value) < LEAST_INPUTS:
            raise UserError(
                f'ownership test {spec!r} has {len(value)} {name} inputs: give {LEAST_INPUTS} or '
                'more'
            )
    if case.private is not None and case.public is not None:
        shared = count_shared(Dataset(case.private), Dataset(case.public))
        if shared:
            raise UserError(f'{shared} public inputs are private too: take them out of one set')


def remembered(represent: Represent) -> Represent:
    """Returns a function that computes the representations of each set of inputs once.

    >>> calls = []
    >>> encode = remembered(lambda inputs: (calls.append(1), inputs)[1])
    >>> inputs = np.ones((2, 3), np.float32)
    >>> bool(np.all(encode(inputs) == encode(inputs))), len(calls)
    (True, 1)

    Args:
        represent: the encoder.

    Raises:
        UserError: by the function, where the representations are not [N, D], not finite, or not one
            for each input.
    """
    kept: dict[bytes, np.ndarray] = {}

    def once(inputs: np.ndarray) -> np.ndarray:
        name = hashlib.sha256(f'{inputs.shape}'.encode() + inputs.tobytes()).digest()
        if name not in kept:
            rows = check_features(np.asarray(represent(inputs), np.float32))
            if len(rows) != len(inputs):
                raise UserError(
                    f'an encoder must give one row for each of {len(inputs)} inputs, this one '
                    f'gives {len(rows)}'
                )
            kept[name] = rows
        return kept[name]

    return once
