"""The rotation watermark: its rate, Welch's test under the null, copies, other coordinates."""

import numpy as np
import pytest
import scipy.stats

from ssl_extract import ownership
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case
from ssl_extract.ownership import rotation_watermark as watermark

SIDE = 4
ALIGNED = 'rotation_watermark(aligned=True)'
RNG = np.random.default_rng(0)
RISE = np.repeat(np.linspace(1, -1, SIDE), SIDE * 3)  # bright above, dark below
NOISE = RNG.normal(size=(SIDE * SIDE * 3, 6))
TURN = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
# An image is bright on its right side, so that a rotation by up to 180 degrees makes it bright
# above, and a further one below.
TILTED = np.linspace(0, 0.3, SIDE)[None, :, None] + 0.7 * RNG.random((400, SIDE, SIDE, 3))
TILTED = TILTED.astype(np.float32)


def encoder_of(columns):
    return lambda images: images.reshape(len(images), -1) @ columns


VICTIM = encoder_of(np.stack([RISE, *NOISE[:, :3].T], axis=1))
BLIND = [encoder_of(NOISE[:, i : i + 4]) for i in range(3)]
DARK_ABOVE = lambda representations: -representations[:, 0]  # noqa: E731
CASE = Case(VICTIM, public=TILTED, independents=tuple(BLIND), mark=DARK_ABOVE)


def evidence(suspect, spec='rotation_watermark', case=CASE):
    return ownership.test(spec, case, suspect)


def test_a_copy_is_told_from_independents_and_one_sided():
    copy, other = evidence(VICTIM), evidence(BLIND[0])
    assert copy.statistic > 0.3 and copy.p_value < 1e-12 and copy.n == 400
    assert abs(other.statistic) < 0.1 and 0.001 < other.p_value < 0.999
    opposite = evidence(VICTIM, case=CASE._replace(mark=lambda r: r[:, 0]))
    assert opposite.statistic < -0.3 and opposite.p_value > 1 - 1e-12


def test_under_the_null_p_values_are_uniform():
    """Noise turned by any angle is noise; the suspect is an independent, so errors are shared."""
    p_values = []
    for seed in range(500):
        rng = np.random.default_rng((1, seed))
        images = rng.random((96, SIDE, SIDE, 3), np.float32)
        case = CASE._replace(public=images, seed=seed, independents=tuple(BLIND[:2]))
        p_values.append(evidence(BLIND[0], case=case).p_value)
    assert scipy.stats.kstest(p_values, 'uniform').pvalue > 0.01


def test_welch_agrees_with_scipys_test_of_samples():
    first, second = RNG.choice([0, 0.5, 1], 40, p=[0.1, 0.3, 0.6]), RNG.normal(0.5, 0.1, 30)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False, alternative='greater')
    assert watermark.welch(first, second) == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize(
    'copy',
    [
        lambda x: VICTIM(x)[:, [2, 0, 3, 1]],
        lambda x: VICTIM(x) @ TURN,
        lambda x: 1e-6 * np.pad(VICTIM(x), ((0, 0), (0, 60))) + 3,
    ],
    ids=['permuted', 'rotated', 'padded, scaled and moved'],
)
def test_a_copy_in_other_coordinates_is_found_aligned(copy):
    found, own = (evidence(suspect, ALIGNED) for suspect in (copy, VICTIM))
    assert found == own and found.statistic > 0.2 and found.p_value < 1e-8 and found.n == 200


def test_alignment_on_images_that_are_not_rotated_makes_no_copy_of_an_independent():
    other = evidence(BLIND[0], ALIGNED)
    assert abs(other.statistic) < 0.12 and other.p_value > 0.001


def test_wider_than_inputs_are_many():
    wide = encoder_of(RNG.normal(size=(SIDE * SIDE * 3, 300)))  # of 200 images that align
    assert evidence(wide, ALIGNED).statistic > 0.2  # all pixels are in it, the victim's too


@pytest.mark.parametrize('spec', ['rotation_watermark', ALIGNED])
def test_the_victim_is_asked_all_public_images_at_once_as_by_other_tests(spec):
    asked = []
    victim = lambda images: (asked.append(images), VICTIM(images))[1]  # noqa: E731
    evidence(VICTIM, spec, CASE._replace(victim=victim))
    assert asked and all(np.array_equal(images, TILTED) for images in asked)


def test_a_constant_suspect_is_no_copy():
    for constant in (0.0, 1.0):
        for spec in ('rotation_watermark', ALIGNED):
            found = evidence(lambda x, c=constant: np.full((len(x), 4), c), spec)
            assert found.statistic < 0.05 and found.p_value > 0.01


def test_the_order_of_dimensions_and_copies_of_an_independent_change_little():
    twice = CASE._replace(independents=CASE.independents * 2)
    assert evidence(VICTIM, case=twice) == evidence(VICTIM)


@pytest.mark.parametrize(
    ('suspect', 'changed', 'said'),
    [
        (lambda x: VICTIM(x)[:, :2], {}, r"width 4, .* gives 2: write 'rotation_watermark\(align"),
        (lambda x: np.inf * VICTIM(x), {}, 'hold NaN or infinity'),
        (VICTIM, {'mark': lambda r: r[:, 0] * np.nan}, 'numbers that are not finite'),
        (VICTIM, {'mark': None}, 'needs mark'),
        (VICTIM, {'mark': ('secret',)}, 'takes the predictor of the victim'),
        (VICTIM, {'independents': ()}, 'needs independents'),
        (VICTIM, {'public': TILTED[:, 0]}, r'takes an image \[H, W, C\]'),
        (VICTIM, {'public': (255 * TILTED).astype(np.uint8)}, 'decode images first'),
        (
            lambda x: np.ones((len(x), 4)),
            {'independents': (lambda x: np.ones((len(x), 4)),)},
            'look for constant',
        ),
    ],
)
def test_what_tells_nothing_is_refused(suspect, changed, said):
    with pytest.raises(UserError, match=said):
        evidence(suspect, case=CASE._replace(**changed))


def test_an_encoder_without_the_mark_has_none():
    with pytest.raises(UserError, match=r"heads are \['head'\], and none is 'rotation'"):
        watermark.mark_of(Encoder('', {}, (8, 8, 3), (('head', 'linear'),)))
