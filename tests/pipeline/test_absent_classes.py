"""A whole run on a set that declares classes without examples, as emnist/letters does."""

import numpy as np
import pytest
import small

from ssl_extract import data
from ssl_extract.pipeline import run as pipeline


@pytest.mark.wide
def test_classes_that_never_occur_are_no_obstacle(tmp_path):
    digits = data.load('digits', 'train[:500]')
    images, labels = (part[digits.labels < 4] for part in (digits.inputs, digits.labels))
    np.savez(tmp_path / 'set.npz', inputs=images, labels=2 * labels + 1)  # of 0..7: 1, 3, 5, 7
    spec = f'npz(path="{tmp_path / "set.npz"}"'
    c = small.get_config()
    c.data.name, c.data.size = f'{spec})', 0
    c.victim.split, c.attack.split = 'all[:60]', 'all[60:100]'
    c.attack.name, c.defense = 'posteriors', 'round(decimals=2)'
    c.legitimate.users, c.legitimate.test_images = ('narrow(classes=2)',), 0
    c.evaluation.tasks = (f'{spec}, train="all[:100]", test="all[100:]")',)
    c.evaluation.shots, c.evaluation.probe = 3, 'lbfgs(l2_grid=(0.01,))'
    rows = pipeline.run(c, workdir=tmp_path / 'work')
    values = {(row['role'], row['metric']): row['value'] for row in rows}
    assert ('surrogate', 'classifier') in values and ('surrogate', 'agreement') in values
    for metric in ('linear_probe', 'knn', 'fewshot'):
        assert values['victim', metric] > 0.4
    (test,) = {row['n'] for row in rows if row['metric'] == 'user_accuracy'}
    assert 0 < test < len(labels) - 100  # of two of the four classes
