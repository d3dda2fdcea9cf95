"""The study of filters against poison, whole and tiny."""

import numpy as np
import pytest
from filters_cpu import study as filters

from ssl_extract.victims import outliers

TINY = filters.Sizes(
    data='digits',
    side=16,
    private='train[:300]',
    clean='train[300:500]',
    labeled='train[500:900]',
    trigger='patch(size=5)',
    rate=0.05,
    method='simclr(hidden=16, dim=16)',
    encoder='resnet18(stem="patch", width=8, stages=(1,))',
    epochs=1,
    batch_size=64,
    window=5,
    clusters=8,
    flips=40,
    windows=4,
    steps=2,
    share=0.1,
)


@pytest.mark.wide
def test_it_measures_every_filter_and_repair_and_goes_on(tmp_path):
    rows = filters.run(filters.Study(str(tmp_path), '', 1, TINY))
    assert [row['how'] for row in rows] == list(filters.cases(filters.Study('', '', 1, TINY)))
    study = filters.Study(str(tmp_path), '', 1, TINY)
    assert len(study.poisoned.rows) == 15
    for row in rows:
        assert 0 <= float(row['accuracy']) <= 1 and 0 <= float(row['success']) <= 1
        if row['how'].startswith('filter'):
            removed, _ = study.filtered(row['how'].removeprefix('filter: '))
            assert len(removed) == int(row['removed']) == 30
            found = outliers.found(removed, study.poisoned.rows)
            assert found.recall.value == float(row['recall'])
    study.pretrain = None  # everything is kept
    assert filters.run(study) == rows
    other = filters.Study(str(tmp_path), '', 1, TINY._replace(share=0.05))
    assert other.where != study.where and not (other.where / 'rows').exists()


def test_the_table_has_means_and_intervals_over_seeds():
    values = np.array([0.2, 0.3, 0.4])
    rows = [dict.fromkeys(filters.COLUMNS, '') | {'how': 'a', 'success': str(v)} for v in values]
    *_, line = filters.table(rows).splitlines()
    assert line == '| a |  |  |  | 30.0 (5.2–54.8) |'  # 10 * 4.303 / sqrt(3)
