"""Fingerprints: copies and obfuscated copies, normalization, mutual information."""

import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_regression

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.evaluation import fidelity
from ssl_extract.ownership import Case
from ssl_extract.ownership.fingerprints import ksg

RNG = np.random.default_rng(4)
INPUTS = RNG.normal(size=(200, 6)).astype(np.float32)
MAPS = RNG.normal(size=(6, 6, 8))
ROTATION = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
SPECS = ('cosine', 'mutual_information', 'cka', 'neighbor_overlap', 'affine_residual')


def network(number):
    return lambda x: np.tanh(x @ MAPS[number])


VICTIM = network(0)
CASE = Case(VICTIM, public=INPUTS, independents=(network(1), network(2), network(3)))


def mixed(share):
    return lambda x: (1 - share) * VICTIM(x) + share * network(4)(x)


@pytest.mark.parametrize('spec', SPECS)
def test_a_copy_has_one_and_independents_have_zero_on_average(spec):
    of = {
        name: ownership.test(spec, CASE, encode).statistic
        for name, encode in [('copy', VICTIM), *enumerate(CASE.independents)]
    }
    assert of.pop('copy') == pytest.approx(1)
    assert np.mean(list(of.values())) == pytest.approx(0, abs=1e-9)
    assert np.ptp(list(of.values())) > 1e-3


@pytest.mark.parametrize('spec', SPECS)
def test_the_nearer_to_the_victim_the_larger(spec):
    values = [ownership.test(spec, CASE, mixed(share)).statistic for share in (0, 0.2, 0.5, 1)]
    assert values == sorted(values, reverse=True)
    assert values[1] > 0.15 and abs(values[-1]) < 0.2


HIDDEN = {
    'scaled': lambda x: 1e18 * VICTIM(x),
    'shifted': lambda x: VICTIM(x) + 5,
    'rotated': lambda x: VICTIM(x) @ ROTATION,
    'padded': lambda x: np.pad(VICTIM(x), ((0, 0), (3, 4))),
    'stretched': lambda x: VICTIM(x) * np.geomspace(0.01, 100, 8),
}
FOUND = {
    'cosine': ('scaled', 'shifted'),
    'mutual_information': ('scaled', 'shifted', 'rotated', 'padded'),
    'cka': ('scaled', 'shifted', 'rotated', 'padded'),
    'neighbor_overlap': ('scaled', 'rotated', 'padded'),
    'affine_residual': tuple(HIDDEN),
}


@pytest.mark.parametrize(('spec', 'name'), [(s, name) for s in SPECS for name in HIDDEN])
def test_a_hidden_copy_is_found_where_the_docstring_says_so(spec, name):
    if spec == 'cosine' and name == 'padded':
        with pytest.raises(UserError, match='15 where the victim has 8: use cka'):
            ownership.test(spec, CASE, HIDDEN[name])
        return
    statistic = ownership.test(spec, CASE, HIDDEN[name]).statistic
    assert (statistic > 0.98) == (name in FOUND[spec]), statistic


@pytest.mark.parametrize('spec', SPECS)
def test_a_collapsed_suspect_is_no_copy_and_copies_are_no_independents(spec):
    assert ownership.test(spec, CASE, lambda x: np.ones((len(x), 8))).statistic < 0.2
    with pytest.raises(UserError, match='give independents that are no copies'):
        ownership.test(spec, CASE._replace(independents=(VICTIM, VICTIM)), network(4))
    with pytest.raises(UserError, match='of all inputs are the same'):
        ownership.test(spec, CASE._replace(victim=lambda x: np.ones((len(x), 8))), network(4))


def test_the_numbers_are_those_of_fidelity():
    values = [
        fidelity.cka(encode(INPUTS), VICTIM(INPUTS)).value
        for encode in (mixed(0.5), *CASE.independents)
    ]
    expected = (values[0] - np.mean(values[1:])) / (1 - np.mean(values[1:]))
    evidence = ownership.test('cka', CASE, mixed(0.5))
    assert evidence == pytest.approx((expected, 200, None))
    assert ownership.test('affine_residual', CASE, mixed(0.5)).n == 100
    assert ownership.test('mutual_information(samples=90)', CASE, mixed(0.5)).n == 90


def test_too_few_inputs_for_a_map_are_refused():
    with pytest.raises(UserError, match='needs at least 20 inputs'):
        ownership.test('affine_residual', CASE._replace(public=INPUTS[:18]), VICTIM)


@pytest.mark.parametrize('neighbors', [1, 3, 8])
def test_mutual_information_is_that_of_scikit_learn(neighbors):
    a, b = RNG.normal(size=(2, 200))
    b = a + b
    expected = mutual_info_regression(
        a[:, None], b, discrete_features=False, n_neighbors=neighbors, random_state=0
    )
    assert ksg(a[:, None], b[:, None], neighbors) == pytest.approx(expected[0], abs=1e-3)


def test_mutual_information_of_normal_vectors_is_known():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000, 2))
    known = -np.log(1 - 0.9**2)  # twice -log(1 - r^2) / 2
    assert ksg(a, 0.9 * a + np.sqrt(1 - 0.9**2) * b) == pytest.approx(known, abs=0.15)
    assert ksg(a, b) == pytest.approx(0, abs=0.1)


def test_mutual_information_of_duplicates_and_constants_is_no_larger():
    a, b = RNG.normal(size=(2, 100, 3))
    plain, doubled = ksg(a, b), ksg(np.repeat(a, 5, axis=0), np.repeat(b, 5, axis=0))
    assert ksg(np.ones((100, 2)), b) == pytest.approx(0, abs=1e-12)
    assert plain < 0.3 and doubled <= ksg(*[np.repeat(a, 5, axis=0)] * 2)
    with pytest.raises(UserError, match='need more inputs'):
        ksg(a[:3], b[:3])
