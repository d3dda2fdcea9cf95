"""Measures of features far from the origin, and of a scale whose squares float32 does not hold.

The references are scikit-learn's and SciPy's, in float64 on the same float32 features.
"""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ssl_extract import numerics
from ssl_extract.errors import UserError
from ssl_extract.evaluation import assess, fidelity, fit_probe, knn, predict
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd

PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS = PIXELS / 16
TRAIN, TEST = slice(0, 1200), slice(1200, None)
SCALES, OFFSETS = [1e-20, 1e19], [1e3, 1e4]


def moved(offset, scale=1.0):
    return ((PIXELS + offset) * scale).astype(np.float32)


@pytest.mark.parametrize('offset', [0.0, *OFFSETS])
@pytest.mark.parametrize('scale', [1.0, *SCALES])
def test_knn_is_scikit_learns_in_float64(offset, scale):
    features = moved(offset, scale)
    exact = features.astype(np.float64) / scale  # scikit-learn takes rows of 1e-20 for zeros
    model = KNeighborsClassifier(20, metric='cosine').fit(exact[TRAIN], LABELS[TRAIN])
    expected = model.predict(exact[TEST])
    given = features[TRAIN], LABELS[TRAIN], features[TEST], 10
    votes = knn.knn_predict(*given, k=20, temperature=np.inf)
    assert np.mean(votes == expected) > 0.998
    assert np.mean(knn.knn_predict(*given, k=20) == LABELS[TEST]) > 0.95


@pytest.mark.parametrize(('offset', 'scale'), [(1e3, 1.0), (1e4, 1.0), (0.0, 1e-20), (0.0, 1e19)])
def test_neighbors_and_their_cosines_are_scikit_learns_in_float64(offset, scale):
    features = moved(offset, scale)[:400]
    exact = features.astype(np.float64) / scale
    model = NearestNeighbors(n_neighbors=10, metric='cosine').fit(exact)
    distances, expected = model.kneighbors()
    cosines, found = knn.neighbors(features, features, 10, exclude_self=True)
    np.testing.assert_allclose(1 - cosines, distances, rtol=1e-3, atol=1e-6 * distances.max())
    assert np.mean(found == expected) > 0.99
    overlap = fidelity.neighbor_overlap(features, exact)
    assert overlap.value > 0.999


@pytest.mark.parametrize(('offset', 'scale'), [(1e3, 1.0), (1e4, 1.0), (0.0, 1e-20), (0.0, 1e19)])
def test_probes_are_those_of_the_features_at_the_origin(offset, scale):
    few, labels = slice(0, 300), LABELS[:300]
    accuracies = []
    for features in (moved(0.0), moved(offset, scale)):
        probe = fit_probe(features[few], labels, 10, l2_grid=(0.1,))
        accuracies.append(np.mean(predict(probe, features[TEST]) == LABELS[TEST]))
        given = features[few], labels, features[TEST], LABELS[TEST], 10
        accuracies.append(knn.fewshot(*given, shots=5, draws=2).value)
    np.testing.assert_allclose(accuracies[2:], accuracies[:2], atol=0.004)
    inputs = StandardScaler().fit(PIXELS[few])
    model = LogisticRegression(C=1 / 30, max_iter=1000).fit(inputs.transform(PIXELS[few]), labels)
    expected = model.score(inputs.transform(PIXELS[TEST]), LABELS[TEST])
    assert accuracies[2] == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize('scale', SCALES)
def test_fidelity_does_not_depend_on_the_scale(scale):
    first, second = PIXELS[:400].astype(np.float32), PIXELS[400:800].astype(np.float32)
    expected = fidelity.compare(first, second)
    found = fidelity.compare(np.float32(scale) * first, np.float32(scale) * second)
    assert found['l2'].value / scale == pytest.approx(expected['l2'].value, rel=1e-5)
    for name in ('cosine', 'affine_l2', 'cka', 'neighbor_overlap'):
        np.testing.assert_allclose(found[name][:3], expected[name][:3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('offset', 'scale'), [(1e3, 1.0), (0.0, 1e-20), (0.0, 1e19)])
def test_the_view_in_two_dimensions_is_that_at_the_origin(offset, scale):
    expected, found = assess.project(PIXELS[:200]), assess.project(moved(offset, scale)[:200])
    np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize('scale', SCALES)
def test_the_probe_on_features_as_they_are_refuses_a_scale_at_which_it_cannot_learn(scale):
    with pytest.raises(UserError, match=r"size .* this probe takes features as they are.*'lbfgs'"):
        fit_probe_sgd(moved(0.0, scale)[TRAIN], LABELS[TRAIN], 10, epochs=1)


def test_centered_points_keep_the_order_of_distances():
    points, others = numerics.centered(moved(1e4), moved(1e4)[:10] + np.float32(0.5))
    assert points.dtype == others.dtype == np.float32
    ratio = (PIXELS[3] - PIXELS[5]).max() / (points[3] - points[5]).max()
    np.testing.assert_allclose(points * ratio, PIXELS - PIXELS.mean(0), atol=1e-5)
    np.testing.assert_allclose(others * ratio, PIXELS[:10] - PIXELS.mean(0) + 0.5, atol=1e-3)
    np.testing.assert_array_equal(numerics.centered(np.ones((3, 2), np.float32))[0], 0)
