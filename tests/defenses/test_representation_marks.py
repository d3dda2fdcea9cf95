"""The marks in representations: what they change, by the written formulas, and what they leave."""

import jax
import numpy as np
import pytest

from ssl_extract import defenses
from ssl_extract.defenses import region_mark
from ssl_extract.errors import UserError

RNG = np.random.default_rng(0)
OUTPUTS = np.maximum(RNG.normal(size=(400, 12)), 0).astype(np.float32)


def apply(spec, outputs=OUTPUTS, seed=0):
    outputs, where, state = defenses.apply_once(spec, outputs, seed=seed)
    assert np.all(where)
    return np.asarray(outputs), defenses.noticed(state)


def test_answers_in_marked_regions_move_toward_the_direction_and_others_stay():
    answers, noticed = apply('region_mark(key=5, bits=3, rate=0.4, strength=0.3)')
    planes, marked, direction = map(
        np.asarray, region_mark.draw_secret(jax.random.key(5), 12, 3, 0.4)
    )
    assert marked.sum() == 3 and np.linalg.norm(direction) == pytest.approx(1)
    sides = (OUTPUTS - OUTPUTS.mean(axis=1, keepdims=True)) @ planes > 0
    carries = marked[sides @ [1, 2, 4]]
    lengths = np.linalg.norm(OUTPUTS, axis=1, keepdims=True)
    expected = np.where(carries[:, None], 0.7 * OUTPUTS + 0.3 * lengths * direction, OUTPUTS)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert noticed == {'region_mark.num_marked': carries.sum()}
    assert 0.1 < carries.mean() < 0.8 and answers.min() >= 0


def test_the_smallest_coordinates_become_those_of_the_code():
    answers, _ = apply('espew(key=5, rate=0.25)', OUTPUTS - 0.3)
    changed = answers != OUTPUTS - np.float32(0.3)
    assert changed.sum(axis=1).max() == 3  # of 12
    sizes = np.abs(OUTPUTS - 0.3)
    largest_changed = np.where(changed, sizes, 0).max(axis=1)
    assert np.all(largest_changed <= np.sort(sizes, axis=1)[:, 2])
    level = 0.5 * np.sqrt(np.mean((OUTPUTS - 0.3) ** 2, axis=1, keepdims=True))
    digits = np.where(changed, answers / level, np.nan)
    by_coordinate = np.nanmean(digits, axis=0)
    np.testing.assert_allclose(by_coordinate, by_coordinate.round(), atol=1e-5)
    assert by_coordinate.round().sum() == 6


@pytest.mark.parametrize('mark', ['region_mark(key=5)', 'espew(key=5)'])
def test_all_accounts_get_one_mark_of_any_size_of_answers(mark):
    answers, _ = apply(mark)
    np.testing.assert_array_equal(apply(mark, seed=1)[0], answers)
    np.testing.assert_allclose(apply(mark, 2.0**60 * OUTPUTS)[0], 2.0**60 * answers, rtol=1e-5)
    assert np.any(apply(mark.replace('5', '6'))[0] != answers)
    for odd in (np.zeros((3, 5)), np.ones((3, 1)), np.full((2, 4), -1.0)):
        assert np.isfinite(apply(mark, odd)[0]).all()


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ('region_mark(rate=0.0)', 'rate must be a finite number above 0 and below 1'),
        ('region_mark(bits=0)', 'bits must be a whole number from 1 to 12'),
        ('region_mark(key=-1)', 'key must be a whole number'),
        ('espew(rate=1.0)', 'rate must be a finite number above 0 and below 1'),
        ('orthogonal | region_mark', 'region_mark after orthogonal makes no sense'),
        ('gaussian_noise | espew', 'espew after gaussian_noise makes no sense'),
        ('espew | region_mark', 'region_mark after espew makes no sense'),
    ],
)
def test_wrong_specs_say_what_to_write(spec, said):
    with pytest.raises(UserError, match=said):
        defenses.make(spec)


def test_they_mark_representations_only():
    with pytest.raises(UserError, match='changes representation or projection'):
        defenses.check_endpoint('espew', 'posteriors')
