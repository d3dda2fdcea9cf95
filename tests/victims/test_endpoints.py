"""What an oracle answers with, against scikit-learn and the networks by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_extract import encoders
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import fit_probe
from ssl_extract.victims import endpoints, from_encoder, from_function
from ssl_extract.victims.classifier import variables_of

SPEC, HEADS = 'resnet18(stem="patch", width=4, stages=(1,))', (('head', 'simclr(hidden=6, dim=3)'),)
IMAGES = np.random.default_rng(0).random((60, 8, 8, 3), np.float32)
LABELS = np.arange(60) % 3
NETWORK, HEAD = encoders.make(SPEC), encoders.make_head(HEADS[0][1])
VARIABLES = {
    'encoder': NETWORK.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))),
    'head': HEAD.init(jax.random.key(1), jnp.zeros((1, 4))),
}
FEATURES = np.asarray(NETWORK.apply(VARIABLES['encoder'], IMAGES))


def test_representations_and_projections_are_the_networks_own():
    got = endpoints.make('representation', SPEC, HEADS)(VARIABLES, IMAGES)
    np.testing.assert_allclose(got, FEATURES, rtol=1e-5, atol=1e-6)
    got = endpoints.make('projection', SPEC, HEADS)(VARIABLES, IMAGES)
    np.testing.assert_allclose(got, HEAD.apply(VARIABLES['head'], FEATURES), rtol=1e-4, atol=1e-5)


def test_a_victim_without_a_head_has_no_projection():
    with pytest.raises(UserError, match='the victim has no projection head'):
        endpoints.make('projection', SPEC, ())(VARIABLES, IMAGES)


def test_posteriors_are_those_of_scikit_learns_classifier():
    probe = fit_probe(FEATURES, LABELS, 3, l2_grid=(0.1,))
    variables = VARIABLES | {'classifier': variables_of(probe)}
    got = np.asarray(endpoints.make('posteriors', SPEC, HEADS)(variables, IMAGES))
    scaled = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    theirs = LogisticRegression(C=1 / (60 * 0.1), max_iter=2000, tol=1e-8).fit(scaled, LABELS)
    np.testing.assert_allclose(got, theirs.predict_proba(scaled), atol=2e-3)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-5)
    labels = np.asarray(endpoints.make('labels', SPEC, HEADS)(variables, IMAGES))
    np.testing.assert_array_equal(labels, np.eye(3)[got.argmax(axis=1)])


def test_a_victims_answers_at_every_endpoint_have_their_width():
    """Of the classifier the shapes do."""
    encoder = Encoder(SPEC, VARIABLES['encoder'], (8, 8, 3), HEADS, {'head': VARIABLES['head']})
    victim, classifier = from_encoder(encoder), endpoints.example_classifier(4, 5)
    classifier = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), classifier)
    answers = {
        name: endpoints.at(victim, name, classifier=classifier) for name in endpoints.ENDPOINTS
    }
    widths = {'representation': 4, 'layers': 8, 'projection': 3, 'posteriors': 5, 'labels': 5}
    assert {name: at.dim for name, at in answers.items()} == widths
    for name, at in answers.items():
        assert at.answers == name and at.answer(IMAGES[:2]).shape == (2, widths[name])
        assert at.address == victim.address and at.encoder is victim.encoder


def test_a_function_answers_at_its_own_endpoint_only():
    victim = from_function(lambda inputs: inputs[:, :2], dim=2, answers='posteriors', address='f')
    assert endpoints.at(victim, 'posteriors') is victim
    with pytest.raises(UserError, match='victim f answers with a posteriors, not with a represen'):
        endpoints.at(victim, 'representation')


def test_what_an_endpoint_needs_and_gives():
    found = {name: (endpoints.needs(name), endpoints.gives(name)) for name in endpoints.ENDPOINTS}
    assert found == {
        'representation': (set(), 'representations'),
        'layers': (set(), 'representations'),
        'projection': ({'head'}, 'projections'),
        'posteriors': ({'classifier'}, 'probabilities'),
        'labels': ({'classifier'}, 'probabilities'),
    }


@pytest.mark.parametrize('spec', [SPEC, f'normalize | {SPEC}', 'vit(depth=1, width=4, heads=1)'])
def test_layers_are_those_of_the_network_the_representation_last(spec):
    network = encoders.make(spec)
    variables = {'encoder': network.init(jax.random.key(0), IMAGES)}
    got = np.asarray(endpoints.make('layers', spec)(variables, IMAGES))
    np.testing.assert_allclose(got[:, 4:], network.apply(variables['encoder'], IMAGES), atol=1e-6)
    np.testing.assert_allclose(got[:, :4], network.layers(variables['encoder'], IMAGES)[0])


def test_a_victim_without_layers_has_no_such_endpoint():
    with pytest.raises(UserError, match='does not tell its layers'):
        endpoints.layers()({'encoder': NETWORK._replace(layers=None)}, VARIABLES, IMAGES)
