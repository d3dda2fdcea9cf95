"""Fidelity against closed forms, plain NumPy versions and the invariances of each measure."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from ssl_extract.errors import UserError
from ssl_extract.evaluation import fidelity, intervals

RNG = np.random.default_rng(0)
VICTIM = RNG.normal(size=(240, 12)) * np.linspace(0.2, 3, 12) + 1
NOISY = VICTIM + 0.7 * RNG.normal(size=VICTIM.shape)
WIDER = np.maximum(VICTIM @ RNG.normal(size=(12, 20)), 0)
ROTATION = stats.ortho_group.rvs(12, random_state=1)


def hsic_cka(a, b):
    """Kornblith et al. (2019), eq. 3-4: normalized HSIC of the linear kernels."""
    n = len(a)
    center = np.eye(n) - 1 / n
    kernels = [center @ x @ x.T @ center for x in (a, b)]
    (ab, aa, bb) = (
        np.sum(kernels[i] * kernels[j]) / (n - 1) ** 2 for i, j in ((0, 1), (0, 0), (1, 1))
    )
    return ab / np.sqrt(aa * bb)


def test_cosine_and_l2_are_means_over_images():
    found = fidelity.cosine(NOISY, VICTIM)
    each = [1 - distance.cosine(a, b) for a, b in zip(NOISY, VICTIM, strict=True)]
    assert found.value == pytest.approx(np.mean(each), abs=1e-6) and found.n == 240
    np.testing.assert_allclose(found[1:3], intervals.bootstrap(each), atol=1e-5)
    found = fidelity.l2(NOISY, VICTIM)
    each = np.sqrt(np.sum((NOISY - VICTIM) ** 2, axis=1))
    assert found.value == pytest.approx(np.mean(each), abs=1e-5)
    np.testing.assert_allclose(found[1:3], intervals.bootstrap(each), atol=1e-4)


def test_cosine_of_zeros_is_zero():
    assert fidelity.cosine(np.zeros((5, 12)), VICTIM[:5]).value == 0


def test_different_widths_have_no_cosine_and_no_l2():
    found = fidelity.compare(WIDER, VICTIM)
    assert found['cosine'] is None and found['l2'] is None
    assert all(0 < found[name].value < 1 for name in ('affine_l2', 'cka', 'neighbor_overlap'))
    assert fidelity.compare(VICTIM, VICTIM)['cosine'].value == pytest.approx(1)


@pytest.mark.parametrize('surrogate', [NOISY, WIDER], ids=['noisy', 'wider'])
def test_cka_is_normalized_hsic(surrogate):
    found = fidelity.cka(surrogate, VICTIM)
    assert found.value == pytest.approx(hsic_cka(surrogate, VICTIM), abs=1e-6)
    assert found.ci_low < found.value < found.ci_high <= 1
    assert fidelity.cka(VICTIM, surrogate).value == pytest.approx(found.value)


def test_cka_ignores_rotation_scale_and_shift_only():
    value = fidelity.cka(NOISY, VICTIM).value
    moved = 30 * NOISY @ ROTATION - 4
    assert fidelity.cka(moved, VICTIM).value == pytest.approx(value, abs=1e-6)
    same = fidelity.cka(0.01 * VICTIM @ ROTATION + 2, VICTIM)
    np.testing.assert_allclose(same[:3], 1, atol=1e-6)
    assert fidelity.cka(VICTIM * np.logspace(1, -1, 12), VICTIM).value < 0.9


def test_cka_of_two_directions_in_closed_form():
    """Orthogonal centered columns: CKA of [u, v] and [u] is 1 / sqrt(2)."""
    u, v = np.array([[1.0, 1, -1, -1], [1, -1, 1, -1]])
    found = fidelity.cka(np.stack([u, v], 1), u[:, None])
    assert found.value == pytest.approx(1 / np.sqrt(2))


def test_cka_interval_is_as_wide_as_a_full_bootstrap():
    def squared(a, b):  # equal to the HSIC of the linear kernels, and fast
        return np.sum(((a - a.mean(axis=0)).T @ (b - b.mean(axis=0))) ** 2)

    rng = np.random.default_rng(2)
    samples = []
    for _ in range(1000):
        rows = rng.integers(240, size=240)
        a, b = WIDER[rows], VICTIM[rows]
        samples.append(squared(a, b) / np.sqrt(squared(a, a) * squared(b, b)))
    low, high = np.percentile(samples, [2.5, 97.5])
    found = fidelity.cka(WIDER, VICTIM)
    assert found.ci_high - found.ci_low == pytest.approx(high - low, rel=0.2)


def test_cka_of_a_constant_surrogate_is_zero():
    assert fidelity.cka(np.full((240, 3), 0.1), VICTIM)[:3] == (0, 0, 0)


def test_affine_l2_is_zero_for_every_invertible_affine_map():
    matrix = RNG.normal(size=(12, 12))
    found = fidelity.affine_l2(VICTIM @ matrix * 100 - 7, VICTIM)
    assert found.value < 1e-4 and found.ci_high < 1e-4 and found.n == 120
    both = np.concatenate([VICTIM, VICTIM @ matrix], axis=1)  # rank 12 of 24
    assert fidelity.affine_l2(both, VICTIM).value < 1e-4


def test_affine_l2_is_the_unexplained_share():
    rng = np.random.default_rng(0)
    surrogate = rng.normal(size=(8000, 6))
    signal = surrogate @ rng.normal(size=(6, 4))
    victim = signal + rng.normal(size=(8000, 4))
    found = fidelity.affine_l2(surrogate, victim)
    expected = np.sqrt(4 / (signal.var(axis=0).sum() + 4))
    assert found.value == pytest.approx(expected, rel=0.03)
    assert found.ci_low < expected < found.ci_high
    unrelated = fidelity.affine_l2(rng.normal(size=(8000, 6)), victim).value
    assert unrelated == pytest.approx(1, abs=0.01)
    assert fidelity.affine_l2(np.ones((8000, 6)), victim).value == pytest.approx(1, abs=0.01)


def test_neighbor_overlap_of_brute_force():
    def nearest(x):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosines = x @ x.T
        np.fill_diagonal(cosines, -2)
        return np.argsort(-cosines, axis=1)[:, :7]

    pairs = zip(nearest(NOISY), nearest(VICTIM), strict=True)
    each = [len(set(a) & set(b)) / 7 for a, b in pairs]
    found = fidelity.neighbor_overlap(NOISY, VICTIM, k=7)
    assert found.value == pytest.approx(np.mean(each))
    assert found.ci_low < found.value < found.ci_high


def test_neighbor_overlap_ignores_rotation_and_scale():
    assert fidelity.neighbor_overlap(VICTIM, VICTIM).value == 1
    value = fidelity.neighbor_overlap(NOISY, VICTIM).value
    moved = fidelity.neighbor_overlap(50 * NOISY @ ROTATION, VICTIM).value
    assert moved == pytest.approx(value, abs=2e-3)  # ties may break differently
    unrelated = fidelity.neighbor_overlap(RNG.normal(size=(240, 5)), VICTIM).value
    assert unrelated == pytest.approx(10 / 239, abs=0.02) and unrelated < value


def test_agreement_counts_equal_predictions():
    found = fidelity.agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert found == (0.75, *intervals.wilson(3, 4), 4)


def test_compare_is_a_function_of_its_seed():
    assert fidelity.compare(NOISY, VICTIM, seed=1) == fidelity.compare(NOISY, VICTIM, seed=1)
    first, second = (fidelity.compare(NOISY, VICTIM, seed=s) for s in (1, 2))
    assert all(first[name].ci_low != second[name].ci_low for name in first)


@pytest.mark.parametrize('name', ['cosine', 'l2', 'affine_l2', 'cka', 'neighbor_overlap'])
def test_wrong_representations_are_named(name):
    measure = getattr(fidelity, name)
    with pytest.raises(UserError, match='240 of the surrogate and 239 of the victim'):
        measure(VICTIM, VICTIM[:239])
    with pytest.raises(UserError, match="the victim's representations hold NaN"):
        measure(VICTIM, VICTIM * np.nan)
    with pytest.raises(UserError, match="the surrogate's representations must be"):
        measure(VICTIM[0], VICTIM)


def test_too_few_images_are_named():
    with pytest.raises(UserError, match='width 12 needs at least 28 inputs, got 27'):
        fidelity.affine_l2(VICTIM[:27], VICTIM[:27])
    with pytest.raises(UserError, match='at least 2 inputs'):
        fidelity.cka(VICTIM[:1], VICTIM[:1])
    with pytest.raises(UserError, match='k=10 neighbors cannot be taken from 9'):
        fidelity.neighbor_overlap(VICTIM[:10], VICTIM[:10])
    with pytest.raises(UserError, match='its training has collapsed'):
        fidelity.cka(VICTIM, np.full((240, 12), 0.1))
