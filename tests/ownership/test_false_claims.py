"""False claims: a choice after the fact raises the rate, and counting the choices holds it."""

import numpy as np
import pytest

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case, Evidence, false_claims, verdict

INPUTS = np.ones((40, 1), np.float32)


@pytest.fixture(autouse=True)
def columns(registries_restored):
    @ownership.register('column', needs=('public',))
    def column(place: int):
        return lambda case, suspect: Evidence(float(suspect(case.public)[0, place]), 40)

    @ownership.register('mark', needs=('public',), null='secrets')
    def mark():
        return lambda case, suspect: Evidence(0.0, 40, 1e-5)


def constants(count, width, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return [lambda inputs, row=row: np.tile(row, (len(inputs), 1)) for row in rows]


def test_the_rate_under_choice_is_that_of_the_smallest_of_k_p_values():
    case, others = Case(lambda inputs: inputs, public=INPUTS), constants(200, 5)
    one = false_claims.claims([case], ['column(0)'], others)
    five = false_claims.claims([case], [f'column({place})' for place in range(5)], others)
    rates = [
        verdict.rate(sum(p < 0.05 for p in values), 200)
        for values in (
            [claim.p_value for claim in one],
            [claim.p_value for claim in five],
            [claim.corrected for claim in five],
        )
    ]
    for rate, expected in zip(rates, (0.05, 1 - 0.95**5, 1 - 0.99**5), strict=True):
        assert rate.ci_low < expected < rate.ci_high
    assert {claim.choices for claim in five} == {5} and one[0].corrected == one[0].p_value


def test_the_chosen_test_and_inputs_are_those_that_accuse_most():
    accused, *others = constants(30, 3)
    cases = false_claims.subsets(Case(lambda x: x, public=INPUTS), count=2, size=20)
    specs = [f'column({place})' for place in range(3)]
    claim = false_claims.false_claim(cases, specs, accused, others)
    null = np.array([other(INPUTS)[0] for other in others])
    p_values = [verdict.p_among(accused(INPUTS)[0, k], null[:, k]) for k in range(3)]
    assert claim.p_value == pytest.approx(min(p_values))
    assert claim.test == specs[int(np.argmin(p_values))] and claim.choices == 6
    best = false_claims.false_claim(cases, [*specs, 'mark'], accused, others)
    assert (best.test, best.p_value) == ('mark', 1e-5)


def test_claims_without_a_null_or_a_choice_are_refused():
    case, few = Case(lambda x: x, public=INPUTS), constants(8, 3)
    with pytest.raises(UserError, match='give 8 or more'):
        false_claims.claims([case], ['column(0)'], few)
    with pytest.raises(UserError, match='one test and one case'):
        false_claims.claims([case], [], few)
    with pytest.raises(UserError, match='size=41 is more than the 40 public inputs'):
        false_claims.subsets(case, count=2, size=41)
