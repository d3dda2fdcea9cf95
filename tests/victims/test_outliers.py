"""Filters by representations against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import LocalOutlierFactor

from ssl_extract.errors import UserError
from ssl_extract.victims import outliers

ROWS = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
GROUPS = np.arange(120) % 3
POISONED = np.arange(0, 12, 3)  # of one group


def test_local_outliers_are_those_of_scikit_learn_whatever_the_order():
    expected = -LocalOutlierFactor(n_neighbors=9).fit(ROWS).negative_outlier_factor_
    np.testing.assert_allclose(outliers.local_outliers(ROWS, neighbors=9), expected)
    turned = outliers.local_outliers(ROWS[::-1], neighbors=9)[::-1]
    np.testing.assert_allclose(turned, expected, rtol=1e-5)


def test_signatures_are_squared_first_components_of_each_group():
    found = outliers.spectral_signatures(ROWS, GROUPS)
    for group in range(3):
        own = ROWS[group == GROUPS].astype(np.float64)
        first = PCA(1).fit_transform(own)[:, 0]
        np.testing.assert_allclose(found[group == GROUPS], first**2, rtol=1e-6, atol=1e-9)


def test_poison_that_lies_apart_is_removed_and_entangled_poison_is_not():
    apart = ROWS.copy()
    apart[POISONED] += 8 * np.eye(6)[0].astype(np.float32)
    for rows, least, most in ((apart, 0.9, 1), (ROWS, 0, 0.6)):
        rows = outliers.removed(outliers.spectral_signatures(rows, GROUPS), 4)
        recall = outliers.found(rows, POISONED).recall
        assert least <= recall.value <= most and recall.n == 4


def test_what_was_found_by_hand():
    rows = outliers.removed(np.array([5.0, 1.0, 4.0, 5.0, 0.0]), 3)
    assert rows.tolist() == [0, 2, 3]
    found = outliers.found(rows, np.array([3, 4]))
    assert found.precision.value == pytest.approx(1 / 3) and found.precision.n == 3
    assert found.recall.value == 0.5 and found.recall.ci_low < 0.5 < found.recall.ci_high


@pytest.mark.parametrize(
    ('call', 'said'),
    [
        (lambda: outliers.local_outliers(ROWS, neighbors=120), 'neighbors=120: there are 120'),
        (lambda: outliers.spectral_signatures(ROWS, GROUPS[:9]), '120 representations and 9'),
        (lambda: outliers.clusters(ROWS, 121), 'count=121: there are 120'),
        (lambda: outliers.removed(GROUPS, 121), 'count=121: there are 120'),
        (lambda: outliers.found(GROUPS[:0], POISONED), '0 removed and 4 poisoned'),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(UserError, match=said):
        call()
