"""PatchSearch on a set whose poison is known, with an encoder that sees the patch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ssl_extract import encoders
from ssl_extract.encoders import chain
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.victims import backdoors, patch_search

SPEC = 'resnet18(stem="patch", width=8, stages=(1,))'
SHAPE = (16, 16, 3)
SMOOTH = np.random.default_rng(0).integers(60, 196, (120, 2, 2, 3)).astype(np.uint8)
IMAGES = SMOOTH.repeat(8, axis=1).repeat(8, axis=2)  # four fields of one color
POISONED = np.arange(0, 120, 10)


def poisoned():
    images = IMAGES.copy()
    images[POISONED] = backdoors.triggered('patch(size=5, key=1)', images[POISONED])
    return images


def untrained():
    network = encoders.make(SPEC)
    return Encoder(SPEC, network.init(jax.random.key(1), jnp.zeros((1, *SHAPE))), SHAPE)


def test_the_spatial_output_has_the_representation_as_its_mean():
    encoder, images = untrained(), jnp.asarray(IMAGES[:3], jnp.float32) / 255
    maps = encoder.network.spatial(encoder.variables, images)
    assert maps.shape == (3, 8, 8, 8)
    np.testing.assert_allclose(maps.mean((1, 2)), encoder.apply(images), rtol=1e-5, atol=1e-6)


def test_the_saliency_by_finite_differences():
    encoder, images = untrained(), jnp.asarray(IMAGES[:2], jnp.float32) / 255
    center = np.random.default_rng(2).normal(size=(1, 8)).astype(np.float32)
    center /= np.linalg.norm(center)
    maps = np.asarray(encoder.network.spatial(encoder.variables, images), np.float64)
    heat = patch_search.saliency(encoder, images, jnp.repeat(center, 2, axis=0))
    cosine = lambda r: r @ center[0] / np.linalg.norm(r)  # noqa: E731
    for one, shown in zip(maps, heat, strict=True):
        point, weights = one.mean((0, 1)), []
        for step in 1e-5 * np.eye(8):
            weights.append((cosine(point + step) - cosine(point - step)) / 2e-5)
        np.testing.assert_allclose(shown, np.maximum(one @ weights, 0), rtol=1e-3, atol=1e-5)


def patch_of():
    corner = backdoors.triggered('patch(size=5, key=1, anywhere=False)', IMAGES[:1])
    return corner[:, -5:, -5:]


@pytest.mark.wide
def test_the_patch_is_found_by_an_encoder_that_learned_it():
    how = {'steps': 80, 'batch_size': 32, 'learning_rate': 1e-2}
    state = patch_search.train_member(IMAGES, patch_of(), SPEC, **how, seed=(0, 0))
    encoder = Encoder(SPEC, chain.part(state, 'encoder'), SHAPE)
    found = patch_search.search(
        encoder, poisoned(), window=6, clusters=4, flips=60, per_round=3, seed=0
    )
    assert (np.diff(found.scores) <= 0).all() and found.windows.shape[1:] == (6, 6, 3)
    assert len(set(found.rows)) == len(found.rows) < 120
    assert np.isin(found.rows[:3], POISONED).all()


def test_a_classifier_reads_the_set():
    images, guilty = poisoned(), np.isin(np.arange(120), POISONED)
    how = {'steps': 80, 'batch_size': 32, 'members': 2, 'encoder': SPEC}
    chance = patch_search.classify(images, patch_of(), **how)
    assert chance.shape == (120,) and 0 <= chance.min() <= chance.max() <= 1
    assert roc_auc_score(guilty, chance) > 0.95


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ({'per_round': 0}, 'per_round must be a whole number of at least 1'),
        ({'window': 17}, 'window=17: write 1 to 16'),
        ({'clusters': 121}, 'clusters=121, flips=9: the set has 120 images'),
    ],
)
def test_what_does_not_fit_is_refused(how, message):
    with pytest.raises(UserError, match=message):
        patch_search.search(untrained(), IMAGES, **{'window': 4, 'clusters': 3, 'flips': 9} | how)


def test_a_network_without_a_spatial_output_is_refused():
    spec = 'vit(depth=1, width=16, heads=2, patch=4)'
    variables = encoders.make(spec).init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    with pytest.raises(UserError, match='needs the spatial output of a ResNet, and vit'):
        patch_search.search(Encoder(spec, variables, SHAPE), IMAGES, window=4)
