"""Dataset inference: uniform p-values under the null, the sign, the numbers of SciPy."""

import numpy as np
import pytest
import scipy.stats

from ssl_extract import numerics, ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case
from ssl_extract.ownership.dataset_inference import (
    augmentation_inference,
    compare_members,
    dataset_inference,
    distance_inference,
)

RNG = np.random.default_rng(3)
INPUTS = RNG.normal(size=(400, 4)).astype(np.float32)
SPLIT = Case(lambda x: x, private=INPUTS[:200], public=INPUTS[200:])
IMAGES = RNG.random((80, 4, 4, 3), np.float32)


def uniform(p_values):
    return scipy.stats.kstest(p_values, 'uniform').pvalue > 0.05


def near(amount):
    """An encoder at a distance from the identity."""
    noise = amount * np.random.default_rng(round(100 * amount)).normal(size=(200, 4))
    return lambda x: x + noise


def flat(images):
    return np.reshape(images, (len(images), -1))


def test_distances_at_random_have_uniform_p_values():
    rng, test = np.random.default_rng(0), distance_inference()
    p_values = []
    for _ in range(500):
        victim, suspect, other = rng.normal(size=(3, 24, 4))
        case = Case(lambda x, v=victim: v, private=victim, independents=(lambda x, o=other: o,))
        p_values.append(test(case, lambda x, s=suspect: s).p_value)
    assert uniform(p_values)


def test_a_nearer_suspect_has_the_larger_statistic_and_the_smaller_p_value():
    case = SPLIT._replace(independents=(near(1.0), near(1.1)))
    nearer, alike, farther = (distance_inference()(case, near(x)) for x in (0.5, 1.05, 2.0))
    assert nearer.p_value < 1e-9 and farther.p_value > 1 - 1e-9
    assert nearer.statistic == pytest.approx(0.5, abs=0.1) and abs(alike.statistic) < 0.1
    assert farther.statistic < -0.5 and nearer.n == 200
    assert distance_inference()(case, lambda x: x).statistic == 1.0


def test_distances_are_to_the_mean_of_all_independents():
    ones = [lambda x, by=by: x + by for by in (1.0, 3.0)]
    case = SPLIT._replace(independents=tuple(ones))
    assert distance_inference()(case, near(1.0)).statistic == pytest.approx(
        1 - np.linalg.norm(near(1.0)(0.0), axis=1).mean() / 4, abs=1e-6
    )


@pytest.mark.parametrize(
    ('suspect', 'independent', 'said'),
    [
        (lambda x: x[:, :3], near(1.0), 'the suspect has 3 where the victim has 4: use affine'),
        (near(1.0), lambda x: x[:, :3], 'independent encoder 0 has 3'),
        (lambda x: x, lambda x: x, 'independents that are copies'),
    ],
)
def test_distances_that_say_nothing_are_refused(suspect, independent, said):
    with pytest.raises(UserError, match=said):
        distance_inference()(SPLIT._replace(independents=(independent,)), suspect)


@pytest.mark.wide
def test_densities_of_a_random_split_have_uniform_p_values():
    rng, test = np.random.default_rng(1), dataset_inference(components=1)
    draws = rng.normal(size=(500, 120, 2)) + 1
    cases = [Case(np.tanh, private=x[:80], public=x[80:]) for x in draws]
    assert uniform([test(case, np.tanh).p_value for case in cases])


def test_one_component_has_the_likelihood_of_scipy():
    evidence = dataset_inference(components=1)(SPLIT, np.tanh)
    private, public = (numerics.units(np.tanh(x)) for x in (SPLIT.private, SPLIT.public))
    order = np.random.default_rng(0).permutation(200)
    fitted, rest = private[order[:100]], private[order[100:]]
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    scaled = (fitted - mean) / scale
    normal = scipy.stats.multivariate_normal(
        scaled.mean(axis=0), np.cov(scaled.T, ddof=0) + 1e-3 * np.eye(4)
    )
    scores = [normal.logpdf((x - mean) / scale) for x in (rest, public)]
    expected = scipy.stats.ttest_ind(*scores, equal_var=False, alternative='greater')
    assert evidence == pytest.approx((expected.statistic, 300, expected.pvalue), rel=1e-4)


def collapsed(inputs):
    """Brings the private inputs near the middle of all inputs."""
    private = np.isin(inputs[:, 0], SPLIT.private[:, 0])[:, None]
    return np.float32([3, 0, 0, 0]) + np.where(private, 0.3, 1) * inputs


@pytest.mark.parametrize('covariance', ['full', 'diag'])
def test_an_encoder_that_remembers_its_inputs_is_found(covariance):
    test = dataset_inference(2, covariance)
    assert test(SPLIT, collapsed).p_value < 1e-6
    swapped = SPLIT._replace(private=SPLIT.public, public=SPLIT.private)
    assert test(swapped, collapsed).p_value > 1 - 1e-6
    assert 0.001 < test(SPLIT, np.tanh).p_value < 0.999


def test_densities_take_a_rotated_padded_or_huge_suspect():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    plain, *others = (
        dataset_inference(1)(SPLIT, encode).statistic
        for encode in (
            collapsed,
            lambda x: collapsed(x) @ rotation,
            lambda x: np.pad(collapsed(x), ((0, 0), (3, 2))),
            lambda x: np.float32(1e36) * collapsed(x).astype(np.float32),
        )
    )
    assert plain > 5 and others == pytest.approx([plain] * 3, rel=0.1)


@pytest.mark.parametrize(
    ('spec', 'suspect', 'said'),
    [
        ('dataset_inference', lambda x: np.tile(x, 5), 'cannot fit 10 components of 20 varied'),
        ('dataset_inference(components=2)', lambda x: 0 * x + 3, 'components of 0 varied'),
        ("dataset_inference(covariance='tied')", lambda x: x, "write 'full' or 'diag'"),
        ("augmentation_inference(measure='l1')", lambda x: x, "write 'distance' or 'loss'"),
        ('augmentation_inference', lambda x: x, 'takes floats in .0, 1.'),
    ],
)
def test_what_cannot_be_fitted_is_refused(spec, suspect, said):
    with pytest.raises(UserError, match=said):
        ownership.test(spec, SPLIT, suspect)


def test_scores_of_a_random_split_have_uniform_p_values():
    rng = np.random.default_rng(2)
    scores = -rng.chisquare(3, size=120)
    p_values = []
    for _ in range(500):
        private, public = np.split(rng.permutation(scores), [40])
        p_values.append(compare_members(private, public).p_value)
    assert uniform(p_values)


@pytest.mark.parametrize('measure', ['distance', 'loss'])
def test_nearer_views_of_private_images_are_found(measure):
    case = Case(flat, private=IMAGES[:40] / 2, public=IMAGES[40:] / 2 + 0.5)

    def symmetrical(images):  # of dark images, which are the private ones
        mirrored = (images + images[:, :, ::-1]) / 2
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        return flat(np.where(mean < 0.5, mirrored, images) - mean)

    def test(case, encode):
        return augmentation_inference('flip', views=4, measure=measure)(case, encode)

    found = test(case, symmetrical)
    assert found.p_value < 1e-3 and found.n == 80
    swapped = case._replace(private=case.public, public=case.private)
    assert test(swapped, symmetrical).p_value > 1 - 1e-3
    with pytest.raises(UserError, match='constant representations'):
        test(case, lambda x: np.ones((len(x), 3)))
