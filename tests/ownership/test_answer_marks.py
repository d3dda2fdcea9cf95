"""Tests for marks in representations, on a layer of random weights over digits."""

import inspect

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from sklearn.datasets import load_digits

from ssl_extract import defenses, ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import answer_marks, decoys

WIDTH = 24
ORDER = np.random.default_rng(0).permutation(1797)
PIXELS = (load_digits().data[ORDER] / 16).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(2, 64, WIDTH)) / 8
QUERIES, PUBLIC = slice(0, 900), slice(900, 1400)
SUMS = {
    'region_mark(key=3, bits=3)': answer_marks.region_sums(3, 0.25),
    'espew(key=3)': answer_marks.espew_sums(0.25),
}
MARKS = list(SUMS)


def layer(number, pixels):
    return np.maximum((pixels - PIXELS.mean(axis=0)) @ WEIGHTS[number] * 4, 0).astype(np.float32)


def represent(pixels):
    return layer(0, pixels)


def marked(mark, representations):
    return np.asarray(defenses.apply_once(mark, representations)[0])


def steal(answers):
    """A linear surrogate, by least squares with a small penalty."""
    inputs = np.c_[PIXELS[QUERIES], np.ones(900)]
    weights = np.linalg.solve(inputs.T @ inputs + 0.1 * np.eye(65), inputs.T @ answers)
    return lambda pixels: (np.c_[pixels, np.ones(len(pixels))] @ weights).astype(np.float32)


def p_value(mark, suspect, key=3):
    """The p-value of a key with few decoys, of representations of the public inputs."""
    secrets = decoys.with_decoys(key, 499)
    victim = represent(PIXELS[PUBLIC])
    return decoys.p_above(answer_marks.search(suspect, victim, SUMS[mark], secrets))


@pytest.mark.parametrize('mark', MARKS)
def test_the_statistic_is_the_correlation_with_the_moves_that_the_defense_makes(mark):
    victim, suspect = represent(PIXELS[PUBLIC]), layer(1, PIXELS[PUBLIC])
    case = ownership.Case(represent, public=PIXELS[PUBLIC])
    evidence = ownership.test(mark, case, lambda pixels: layer(1, pixels))
    rows, wanted = (x - x.mean(axis=0, dtype=np.float64) for x in (suspect, victim))
    rotation, size = scipy.linalg.orthogonal_procrustes(rows, wanted)
    gap = size / np.sum(rows**2) * rows @ rotation - wanted
    moves = marked(mark, victim) - victim
    expected = np.corrcoef(gap.ravel(), (moves - moves.mean(axis=0)).ravel())[0, 1]
    assert evidence.statistic == pytest.approx(expected, abs=1e-5)
    assert evidence.n == 500 and 0 < evidence.p_value <= 1


@pytest.mark.wide
@pytest.mark.parametrize('mark', MARKS)
def test_linear_surrogates_carry_the_mark_and_a_clean_one_does_not(mark):
    """Over the first eight keys together: one p-value of a clean surrogate may be anything."""
    answers = represent(PIXELS[QUERIES])
    clean, found = steal(answers)(PIXELS[PUBLIC]), []
    for key in range(8):
        surrogate = steal(marked(mark.replace('key=3', f'key={key}'), answers))
        found.append([p_value(mark, each, key) for each in (surrogate(PIXELS[PUBLIC]), clean)])
    of_marked, of_clean = np.transpose(found)
    assert scipy.stats.combine_pvalues(of_marked).pvalue < 1e-3, of_marked
    assert scipy.stats.combine_pvalues(of_clean).pvalue > 0.01, of_clean


@pytest.mark.parametrize('mark', MARKS)
def test_a_mark_of_the_other_sign_is_none(mark):
    victim = represent(PIXELS[PUBLIC])
    moves = marked(mark, victim) - victim
    assert p_value(mark, victim + 0.5 * moves) == 1 / 500
    assert p_value(mark, victim - 0.5 * moves) > 0.95


@pytest.mark.parametrize('mark', MARKS)
def test_an_independent_encoder_is_as_likely_to_be_blamed_as_stated(mark):
    """Over 500 keys, with 19 decoys each, whatever the suspect is: here one of the same inputs."""
    secrets = jax.random.split(jax.random.key(7), 500 * 20)
    suspect, victim = (layer(number, PIXELS[PUBLIC]) for number in (1, 0))
    found = answer_marks.search(suspect, victim, SUMS[mark], secrets).reshape(500, 20)
    p_values = np.array([decoys.p_above(statistics) for statistics in found])
    spread = p_values - np.random.default_rng(3).uniform(0, 0.05, 500)  # they are whole twentieths
    assert scipy.stats.kstest(spread, 'uniform').pvalue > 0.01


@pytest.mark.parametrize('mark', MARKS)
def test_it_does_not_depend_on_the_suspects_coordinates(mark):
    victim = represent(PIXELS[PUBLIC])
    suspect = marked(mark, victim) + 0.1 * layer(1, PIXELS[PUBLIC])
    rng = np.random.default_rng(2)
    rotation = scipy.stats.ortho_group.rvs(WIDTH, random_state=3)
    padded = np.c_[suspect, np.full((500, 6), 2.0)]
    changed = [
        suspect[:, rng.permutation(WIDTH)],
        1e3 * suspect @ rotation - 5,
        padded[:, rng.permutation(WIDTH + 6)],
    ]
    secrets = decoys.with_decoys(3, 499)
    first, *others = (
        answer_marks.search(each, victim, SUMS[mark], secrets) for each in (suspect, *changed)
    )
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-4)


@pytest.mark.parametrize('mark', MARKS)
def test_suspects_of_other_widths_and_sizes_have_evidence(mark):
    victim, secrets = represent(PIXELS[PUBLIC]), decoys.with_decoys(3, 499)
    for suspect in (victim[:, :5], victim * np.float32(1e30), np.tile(victim, (1, 30))):
        found = answer_marks.search(suspect, victim, SUMS[mark], secrets)
        assert np.isfinite(found).all() and np.ptp(found) > 0


def test_a_key_that_marks_no_public_input_blames_nobody():
    victim = represent(PIXELS[:1]) * np.linspace(1, 2, 500, dtype=np.float32)[:, None]  # one region
    found = answer_marks.search(victim + 1, victim, SUMS[MARKS[0]], decoys.with_decoys(3, 499))
    assert 300 < np.sum(found == 0) < 450  # a quarter of the keys mark the region
    assert decoys.p_above(np.array([0.0, *found])) > 0.5


@pytest.mark.parametrize('mark', MARKS)
def test_constant_representations_and_other_inputs_are_refused(mark):
    case = ownership.Case(represent, public=PIXELS[PUBLIC])
    with pytest.raises(UserError, match='all representations of the suspect are alike'):
        ownership.test(mark, case, lambda pixels: np.full((len(pixels), 8), 1e20, np.float32))
    with pytest.raises(UserError, match='all representations of the victim are alike'):
        ownership.test(mark, case._replace(victim=lambda x: np.ones((len(x), 3))), represent)
    with pytest.raises(UserError, match='represents 7 inputs and the victim 500'):
        victim, secrets = represent(PIXELS[PUBLIC]), decoys.with_decoys(3, 9)
        answer_marks.search(victim[:7], victim, SUMS[mark], secrets)


def test_every_mark_has_an_ownership_test_of_the_same_parameters():
    marks = [name for name in defenses.DEFENSES if defenses.DEFENSES.traits(name).marks]
    assert {'dynamarks', 'espew', 'region_mark'} <= {*marks}
    for name in marks:
        both = (defenses.DEFENSES[name], ownership.TESTS[name])
        ours, theirs = (inspect.signature(factory).parameters for factory in both)
        assert ours == theirs
        assert ownership.TESTS.traits(name).null == 'secrets'


def test_dynamarks_is_verified_by_its_spec():
    rng = np.random.default_rng(5)
    images = rng.uniform(size=(40, 6, 6, 3)).astype(np.float32)
    suspect, victim = (rng.dirichlet(np.ones(4), size=40) for _ in range(2))
    case = ownership.Case(lambda x: victim, public=images)
    evidence = ownership.test('dynamarks(key=6, strength=0.5)', case, lambda x: suspect)
    statistic, p = defenses.dynamarks.verify(suspect, victim, images, key=6)
    assert evidence == ownership.Evidence(statistic, 40, p)
