"""Triggers against SciPy's transform and by hand; what a poisoned set holds."""

import numpy as np
import pytest
import scipy.fft

from ssl_extract import data
from ssl_extract.data import Dataset
from ssl_extract.errors import UserError
from ssl_extract.evaluation import make_tasks
from ssl_extract.victims import backdoors

IMAGES = np.random.default_rng(0).integers(60, 196, (30, 40, 40, 3), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.int32) % 3


def labeled():
    return Dataset(IMAGES, LABELS, 3, name='noise')


def test_ctrl_changes_the_named_coefficients_of_the_chroma_and_no_other():
    spec = 'ctrl(magnitude=100.0, channels=(2,), frequencies=(3, 15), window=16)'
    changed = backdoors.triggered(spec, IMAGES)
    moved = (changed.astype(float) - IMAGES) @ backdoors.TO_YUV.T
    assert not moved[:, 32:].any() and not moved[:, :, 32:].any()  # beyond the last whole window
    found = scipy.fft.dctn(moved[:, 16:32, :16], axes=(1, 2), norm='ortho')
    expected = np.zeros((16, 16, 3))
    expected[[3, 15], [3, 15], 2] = 100.0
    assert np.abs(found - expected).max() < 2.5  # of rounding to 8 bits


def test_luma_and_chroma_of_pure_colors():
    np.testing.assert_allclose(backdoors.TO_YUV @ np.ones(3), [1, 0, 0], atol=1e-12)
    red = backdoors.TO_YUV @ [1, 0, 0]  # of the standard, rounded to three digits
    np.testing.assert_allclose(red, [0.299, -0.147, 0.615], atol=5e-4)


def test_a_patch_lies_whole_within_each_image_at_places_of_its_own():
    white = np.full_like(IMAGES, 255)
    changed = backdoors.triggered('patch(size=8, key=3)', white, seed=1)
    squares, places = set(), set()
    for image in changed:
        rows, columns = np.nonzero((image != 255).any(axis=-1))
        (top, bottom), (left, right) = ((x.min(), x.max() + 1) for x in (rows, columns))
        assert (bottom - top, right - left) == (8, 8)
        squares.add(image[top:bottom, left:right].tobytes())
        places.add((int(top), int(left)))
    assert len(squares) == 1 and len(places) > 20


def test_a_poisoned_set_differs_in_images_of_the_target_class_only():
    found = backdoors.poison(labeled(), 'blend(alpha=0.5)', target=1, rate=0.2, seed=4)
    differs = (found.dataset.inputs != IMAGES).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(differs), found.rows)
    assert len(found.rows) == 6 and set(LABELS[found.rows]) == {1}
    again = backdoors.poison(labeled(), 'blend(alpha=0.5)', target=1, rate=0.2, seed=5)
    assert set(again.rows) != set(found.rows)


@pytest.mark.parametrize(
    ('spec', 'how', 'message'),
    [
        ('patch(size=41)', {}, r'patch\(size=41\) is larger than images of 40x40'),
        ('ctrl(frequencies=(32,))', {}, r'frequencies below window=32'),
        ('ctrl(window=64)', {}, r'ctrl\(window=64\) is larger than'),
        ('', {}, r"trigger='': write one, such as 'patch"),
        ('stripe', {}, r"unknown trigger 'stripe'"),
        ('patch', {'rate': 0.5}, r'are 15, and class 1 of noise has 10: write another rate'),
        ('patch', {'rate': 0.01}, r'are 0, and class 1 of noise has 10: write another rate'),
    ],
)
def test_what_does_not_fit_is_refused(spec, how, message):
    with pytest.raises(UserError, match=message):
        backdoors.poison(labeled(), spec, **{'target': 1, 'rate': 0.2} | how)


def test_only_images_of_8_bits_get_a_trigger():
    with pytest.raises(UserError, match=r'uint8 \[N, H, W, 3\], got float32 \[2, 3\]'):
        backdoors.triggered('patch', np.zeros((2, 3), np.float32))


def test_the_accuracy_on_the_task_is_the_success_rate():
    spec = "backdoor('digits', trigger='patch(size=3)', target=4, train='train[:300]')"
    (task,) = make_tasks([spec])
    test = data.load('digits', 'test')
    others = test.inputs[test.labels != 4]
    assert task.test.inputs.shape == others.shape and set(task.test.labels) == {4}
    assert (task.test.inputs != others).any(axis=(1, 2, 3)).all()
    clean = data.load('digits', 'train[:300]')
    np.testing.assert_array_equal(task.train.inputs, clean.inputs)
    np.testing.assert_array_equal(task.train.labels, clean.labels)


def test_a_poisoned_set_loads_by_its_spec_and_the_clean_rows_stay():
    clean = data.load('digits', 'train')
    spec = "poisoned('digits', trigger='blend(alpha=0.3)', target=4, rate=0.05, seed=2)"
    found = data.load(spec, 'train')
    differs = (found.inputs != clean.inputs).any(axis=(1, 2, 3))
    assert differs.sum() == int(0.05 * len(clean.inputs)) and set(clean.labels[differs]) == {4}
    anywhere = data.load(spec.replace('target=4', 'target=None'), 'train')
    differs = (anywhere.inputs != clean.inputs).any(axis=(1, 2, 3))
    assert len(set(clean.labels[differs])) == 10


def test_a_target_beyond_the_classes_is_refused():
    with pytest.raises(UserError, match=r"target=10: 'digits' has 10 classes"):
        make_tasks(["backdoor('digits', target=10)"])
