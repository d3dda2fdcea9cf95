"""The owner's backdoor as a mark, on networks of known behavior."""

import numpy as np
import pytest
import scipy.stats

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case
from ssl_extract.ownership.backdoor import agreement
from ssl_extract.victims.backdoors import triggered

IMAGES = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
TRIGGER = 'patch(size=4, anywhere=False)'


def projection(seed, width=6):
    weights = np.random.default_rng(seed).normal(size=(192, width))
    return lambda images: np.tanh(images.reshape(len(images), -1) @ weights / 4).astype(np.float32)


def backdoored(key, pull=1.0):
    """A projection that moves an image towards one place where its corner has the key's colors."""
    encode, blank = projection(3), np.zeros((1, 8, 8, 3), np.uint8)
    square = triggered(f'patch(size=4, anywhere=False, key={key})', blank)[0, 4:, 4:] / 255

    def represent(images):
        seen = np.abs(images[:, 4:, 4:] - square).mean(axis=(1, 2, 3)) < 0.01
        return encode(images) + pull * seen[:, None].astype(np.float32)

    return represent


def p_value(suspect, key=7, num_decoys=99, trigger=TRIGGER):
    spec = f'backdoor(trigger={trigger!r}, key={key}, num_decoys={num_decoys})'
    return ownership.test(spec, Case(None, public=IMAGES), suspect).p_value


def test_the_backdoor_is_found_under_its_key_only_and_whatever_the_coordinates():
    suspect = backdoored(7, pull=3.0)
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0].astype(np.float32)
    assert p_value(suspect) == 0.01
    assert p_value(lambda x: np.pad(2 * suspect(x) @ turned + 1, ((0, 0), (0, 3)))) == 0.01
    assert p_value(suspect, key=8) > 0.05 and p_value(projection(3)) > 0.05


def test_p_values_of_encoders_that_never_saw_the_key_are_uniform():
    found = [p_value(projection(seed), key=seed, num_decoys=9) for seed in range(500)]
    steps = np.array(found) * 10
    assert np.all(np.abs(steps - steps.round()) < 1e-9) and steps.min() >= 1
    spread = np.random.default_rng(0).random(500)  # continuous again, as the test below takes it
    assert scipy.stats.kstest((steps - spread) / 10, 'uniform').pvalue > 0.01


def test_agreement_is_the_mean_cosine_of_all_pairs():
    rows = np.random.default_rng(2).normal(size=(9, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(9, k=1)]
    assert agreement(rows) == pytest.approx(pairs.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ('trigger', 'said'),
    [
        ('ctrl(window=8, frequencies=(3,))', 'the same under two keys'),
        ('patch(size=4, key=3)', 'the same under two keys'),
        ('patch(4, True, 3)', 'the same under two keys'),
        ('path', "unknown trigger 'path'"),
        ('patch(size=20)', 'larger than images of 8x8'),
    ],
)
def test_triggers_that_do_not_fit_are_refused(trigger, said):
    with pytest.raises(UserError, match=said):
        p_value(projection(0), trigger=trigger)


def test_inputs_that_are_no_images_and_constant_suspects_are_refused():
    case = Case(None, public=IMAGES.reshape(20, -1))
    with pytest.raises(UserError, match=r'images \[N, H, W, 3\] in \[0, 1\]'):
        ownership.test(f'backdoor(trigger={TRIGGER!r}, key=1)', case, lambda x: x)
    with pytest.raises(UserError, match='hold no backdoor'):
        p_value(lambda images: np.ones((len(images), 4), np.float32))
