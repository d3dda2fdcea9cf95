"""The shadow score: probes, agreements, z-scores, and its rank among shadows."""

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case
from ssl_extract.ownership import shadow_score as room
from ssl_extract.ownership.alignment import PENALTIES, fit_affine

PUBLIC = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)


def encoder(seed, width=12, shift=0.0):
    """An encoder of one recipe: a map that all share, and one of the seed."""
    shared = np.random.default_rng(99).normal(size=(6, width))
    own = np.random.default_rng(seed).normal(size=(6, width))
    return lambda x: np.tanh(x @ (shared + 0.7 * own)) + shift


VICTIM = encoder(1)
SHADOWS = tuple(encoder(seed) for seed in range(10, 19))
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(20, 20)))[0]


def stolen(x):
    """A copy with noise, wider, turned, scaled and shifted."""
    noise = np.random.default_rng(4).normal(size=(len(x), 20)) * 0.05
    return 3 * (np.pad(VICTIM(x), ((0, 0), (0, 8))) + noise) @ TURN


CASE = Case(
    VICTIM, public=PUBLIC, shadows=SHADOWS, conferrable=PUBLIC[:40] + np.float32(0.01), seed=5
)


@pytest.mark.parametrize('probes', room.PROBES)
@pytest.mark.parametrize('agreement', room.AGREEMENTS)
def test_a_copy_of_another_width_is_found_and_an_independent_is_not(agreement, probes):
    spec = f'shadow_score(agreement={agreement!r}, probes={probes!r})'
    copy = ownership.test(spec, CASE, stolen)
    others = [ownership.test(spec, CASE, encoder(seed)) for seed in (30, 31, 32)]
    assert copy.n == (10 if probes == 'conferrable' else 30)
    assert copy.p_value == 0.1 and copy.statistic > 2  # the first of ten
    assert max(other.statistic for other in others) < 1.5 < copy.statistic
    assert min(other.p_value for other in others) > 0.1


def agreements(rng, lift=0.0, shadows=12, probes=40):
    """Agreements of shadows and a suspect: of probes that differ, and encoders that do."""
    encoders = rng.gamma(2.0, size=(shadows + 1, 1))
    values = rng.normal(size=probes) + encoders + rng.normal(size=(shadows + 1, probes))
    values[-1] += lift
    return values


def ranks(lift=0.0, draws=500):
    rng = np.random.default_rng(8)
    found = []
    for _ in range(draws):
        own, others = room.scores(agreements(rng, lift), 0.25)
        found.append(int(np.sum(np.array(others) >= own)))
    return np.array(found)


def test_under_the_null_the_rank_is_uniform():
    found = ranks()
    assert scipy.stats.chisquare(np.bincount(found, minlength=13)).pvalue > 0.05
    # Spread within the steps of 1/13, the p-values are continuous.
    smooth = (found + np.random.default_rng(0).uniform(size=len(found))) / 13
    assert scipy.stats.kstest(smooth, 'uniform').pvalue > 0.05


def test_the_rank_is_one_sided():
    assert set(ranks(40.0, 30)) == {0}  # a copy is first
    assert set(ranks(-40.0, 30)) == {12}  # less agreement than any shadow is no evidence


def test_scores_are_z_scores_where_shadows_agree_least():
    values = agreements(np.random.default_rng(1))
    own, others = values[-1], values[:-1]
    where = np.argsort(others.mean(axis=0))[:10]
    variances = scipy.stats.tvar(others[:, where], axis=0)
    z = (own[where] - others[:, where].mean(axis=0)) / np.sqrt((variances + variances.mean()) / 2)
    assert room.mean_z(own, others, 0.25) == pytest.approx(z.mean())
    assert room.scores(values, 0.25)[0] == pytest.approx(z.mean())
    swapped = np.roll(values, 1, axis=0)  # the order of the shadows does not matter
    assert room.scores(swapped, 0.25)[1][0] == pytest.approx(own_score(values))


def own_score(values):
    return room.mean_z(values[-1], values[:-1], 0.25)


def test_shared_neighbors_are_those_of_scikit_learn():
    a, b = VICTIM(PUBLIC), SHADOWS[0](PUBLIC)
    near = []
    for rows in (a, b):
        search = NearestNeighbors(n_neighbors=4, metric='cosine').fit(rows)
        near.append(search.kneighbors(return_distance=False))
    expected = [len(set(i) & set(j)) / 4 for i, j in zip(*near, strict=True)]
    np.testing.assert_allclose(room.shared_neighbors((a, None), [(b, None)], 4)[0], expected)


def test_alignment_is_that_of_scikit_learn_with_dead_and_large_features():
    rows = encoder(7)(PUBLIC) * 1e6 + 1e8
    rows[:, 3] = 5.0
    target = VICTIM(PUBLIC)
    expected = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(rows[:60], target[:60])
    mapped = fit_affine(rows[:60], target[:60])(rows[60:])
    np.testing.assert_allclose(mapped, expected.predict(rows[60:]), atol=1e-6)


def test_residuals_ignore_what_an_affine_map_undoes():
    rows = (VICTIM(PUBLIC), None)
    other = stolen(PUBLIC)[:, ::-1] * np.geomspace(1e-3, 1e3, 20) - 2  # permuted, scaled, shifted
    first, second = room.negative_residuals(rows, [(stolen(PUBLIC), None), (other, None)])
    np.testing.assert_allclose(first, second, atol=1e-9)
    turned = np.pad(VICTIM(PUBLIC), ((0, 0), (0, 8))) @ TURN
    near, nothing = room.negative_residuals(rows, [(turned, None), (PUBLIC * 0, None)])
    assert near.min() > -0.01 and nothing.mean() < -1


def test_noise_has_the_moments_and_the_range_of_the_inputs():
    inputs = np.random.default_rng(0).uniform(size=(4000, 2)).astype(np.float32) * [1, 0] + [0, 3]
    draws = room.noise(inputs.astype(np.float32), seed=1)
    assert draws.dtype == np.float32 and draws.shape == inputs.shape
    assert draws.mean(0) == pytest.approx([0.5, 3], abs=0.03) and draws[:, 1].std() == 0
    assert draws.min() >= 0 and abs(np.corrcoef(draws[:, 0], inputs[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize(
    ('spec', 'fields', 'said'),
    [
        ('shadow_score(agreement="cka")', {}, "agreement='cka': write one of neighbors, residuals"),
        ('shadow_score(probes="adversarial")', {}, 'write one of natural, noise, conferrable'),
        ('shadow_score', {'shadows': SHADOWS[:7]}, '7 shadows tell no spread: give 8'),
        ('shadow_score', {'shadows': (*SHADOWS, SHADOWS[2])}, 'shadow 9 is shadow 2'),
        ('shadow_score', {'shadows': (*SHADOWS, VICTIM)}, 'shadow 9 is the victim'),
        ('shadow_score', {'victim': lambda x: np.ones((len(x), 4))}, 'all public inputs alike'),
        ('shadow_score(probes="conferrable")', {'conferrable': None}, 'needs conferrable'),
        ('shadow_score(k=120)', {}, 'k=120 neighbors cannot be taken'),
        ('shadow_score', {'shadows': [lambda x, s=s: x * s for s in range(1, 10)]}, 'agree alike'),
    ],
)
def test_a_case_that_tells_nothing_is_refused(spec, fields, said):
    with pytest.raises(UserError, match=said):
        ownership.test(spec, CASE._replace(**fields), stolen)


@pytest.mark.parametrize('agreement', room.AGREEMENTS)
def test_a_constant_or_huge_suspect_is_no_copy(agreement):
    spec = f'shadow_score(agreement={agreement!r})'
    assert ownership.test(spec, CASE, lambda x: np.ones((len(x), 3))).statistic < 0
    huge = ownership.test(spec, CASE, lambda x: stolen(x) * 1e30)
    assert huge.statistic == pytest.approx(ownership.test(spec, CASE, stolen).statistic, abs=0.05)
    with pytest.raises(UserError, match='one row for each of 120'):
        ownership.test(spec, CASE, lambda x: stolen(x)[:9])
