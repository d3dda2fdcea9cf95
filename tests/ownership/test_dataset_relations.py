"""Dataset relations: cosines of crops, the sign, uniform p-values, what is refused."""

import itertools

import numpy as np
import pytest
import scipy.stats

from ssl_extract.errors import UserError
from ssl_extract.ownership import Case
from ssl_extract.ownership.dataset_inference import compare_members
from ssl_extract.ownership.dataset_relations import GLOBAL, LOCAL, dataset_relations
from ssl_extract.ownership.views import between, represent_views, within

RNG = np.random.default_rng(5)
IMAGES = RNG.random((80, 4, 4, 3), np.float32)
IMAGES[40:, :, :, 2] = 0  # the private ones have blue
IMAGES[:40, :, :, 2] = 1
CASE = Case(lambda x: x, private=IMAGES[:40], public=IMAGES[40:])


def shadow(images):
    return images[..., :2].reshape(len(images), -1) - 0.5


def smooth(images):
    """Represents private images by their mean color, whatever the crop."""
    colors = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    return shadow(np.where(images[..., 2:] > 0.5, colors, images))


def test_cosines_are_those_of_all_pairs():
    views = RNG.normal(size=(3, 4, 5))
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    cosines = np.einsum('vnd,wmd->vwnm', views, views)
    pairs = list(itertools.permutations(range(3), 2))
    own = [np.mean([cosines[v, w, i, i] for v, w in pairs]) for i in range(4)]
    others = [np.delete(cosines[:, :, i], i, axis=-1).mean() for i in range(4)]
    assert within(views) == pytest.approx(own)
    assert between(views) == pytest.approx(others)


def test_all_encoders_see_the_same_views():
    once, again = represent_views([shadow, lambda x: 2 * shadow(x)], IMAGES, [GLOBAL] * 2, seed=1)
    assert once == pytest.approx(again) and once.shape == (2, 80, 32)
    assert not np.array_equal(once[0], once[1])


def test_nearer_crops_of_private_images_are_found():
    test, case = dataset_relations(local_crops=2), CASE._replace(shadows=(shadow,))
    found = test(case, smooth)
    assert found.p_value < 1e-3 and found.n == 80
    swapped = case._replace(private=CASE.public, public=CASE.private)
    assert test(swapped, smooth).p_value > 1 - 1e-3
    assert test(case, lambda x: np.pad(3 * smooth(x)[:, ::-1], ((0, 0), (2, 0)))) == pytest.approx(
        found
    )


def test_shadows_come_before_independents_and_one_is_needed():
    test = dataset_relations(local_crops=2)
    both = CASE._replace(shadows=(shadow,), independents=(smooth,))
    assert test(both, smooth) == test(CASE._replace(independents=(shadow,)), smooth)
    with pytest.raises(UserError, match='needs shadows or independents'):
        test(CASE, smooth)
    with pytest.raises(UserError, match='independents that are copies'):
        test(CASE._replace(shadows=(smooth,)), smooth)


def test_differences_of_a_random_split_have_uniform_p_values():
    rng = np.random.default_rng(0)
    crops = [GLOBAL, GLOBAL, LOCAL]
    own, other = represent_views([shadow, lambda x: np.tanh(4 * shadow(x))], IMAGES, crops, seed=0)
    differences = within(own) - between(own) - within(other) + between(other)
    draws = [np.split(rng.permutation(differences), [40]) for _ in range(500)]
    p_values = [compare_members(*draw).p_value for draw in draws]
    assert scipy.stats.kstest(p_values, 'uniform').pvalue > 0.05
