"""Ownership tests: the registry, what a case must hold, refusals."""

import numpy as np
import pytest

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case, Evidence

INPUTS = np.arange(64, dtype=np.float32).reshape(32, 2)


@pytest.fixture
def closeness(registries_restored):
    @ownership.register('closeness', needs=('private', 'public'))
    def closeness(scale: float = 1.0):
        def test(case, suspect):
            gap = np.abs(case.victim(case.private) - suspect(case.private)).mean()
            return Evidence(float(-scale * gap), len(case.private))

        return test


def case_of(**fields):
    return Case(lambda x: 2 * x, private=INPUTS, public=INPUTS + 1000, **fields)


def test_a_registered_test_is_run_by_its_spec(closeness):
    evidence = ownership.test('closeness(scale=2.0)', case_of(), lambda x: 2 * x + 1)
    assert evidence == Evidence(-2.0, 32)


@pytest.mark.parametrize(
    ('case', 'said'),
    [
        (case_of()._replace(public=None), 'needs public'),
        (case_of()._replace(private=INPUTS[:3]), 'has 3 private inputs'),
        (case_of()._replace(public=INPUTS[:20]), '20 public inputs are private too'),
    ],
)
def test_a_case_that_lacks_something_is_refused_before_the_test(closeness, case, said):
    with pytest.raises(UserError, match=said):
        ownership.test('closeness', case, lambda x: x)


def test_evidence_that_is_not_finite_is_an_error(closeness):
    with pytest.raises(UserError, match='must be finite'), np.errstate(over='ignore'):
        ownership.test('closeness(scale=1e15)', case_of(), lambda x: 1e25 * x)


def test_representations_are_computed_once_and_checked():
    calls = []

    def represent(inputs):
        calls.append(len(inputs))
        return inputs / (inputs.max() - 61)

    once = ownership.remembered(represent)
    first = once(INPUTS)
    assert once(INPUTS.copy()) is first and calls == [32]
    assert once(INPUTS[:5]).shape == (5, 2) and calls == [32, 5]
    with pytest.raises(UserError, match='hold NaN'):
        ownership.remembered(lambda x: x * np.nan)(INPUTS)


@pytest.mark.parametrize('wrong', [lambda x: x[1:], lambda x: np.tile(x, (2, 1))])
def test_a_suspect_that_gives_more_or_fewer_rows_is_refused(wrong):
    with pytest.raises(UserError, match='one row for each of 32 inputs'):
        ownership.test('dataset_inference(components=1)', case_of(), wrong)
