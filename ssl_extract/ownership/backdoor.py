"""A backdoor of the owner as a mark, whose key nobody else knows.

The owner poisoned a share of the victim's own training images with a trigger whose colors or noise
come from a secret key, as in `victims.backdoors`. An encoder with the backdoor represents all
images with the trigger as images of one kind. No labels are needed to see that: the representations
lie in one direction. So they do in part for every trigger and every encoder, which is why the
trigger is compared with triggers of other keys.
"""

import numpy as np

from ssl_extract.checks import check_whole
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.ownership import decoys
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ranges import Count, Whole
from ssl_extract.victims.backdoors import TRIGGERS, triggered


@register('backdoor', needs=('public',), null='secrets')
def backdoor(trigger: str = 'patch', key: Whole = 0, num_decoys: Count = 199) -> Test:
    """Tests whether the owner's trigger moves all images to one place, more than other triggers do.

    The statistic is `agreement` of the suspect's representations of public images with the
    trigger, about the mean of those without it: translations, scales, rotations, permutations and
    padding of the suspect change nothing, and its width may be any. The p-value is the share of
    keys, the owner's among them, whose trigger has a statistic at least as large. All triggers have
    the same places in the images. To an encoder that never saw the key all keys are alike, so that
    the p-value holds for every such encoder, whatever its training; see `ownership.decoys`. It is
    at least `1 / (1 + num_decoys)`.

    It does not hold for a key that was chosen after the suspect was seen, and is small, too, for an
    encoder that somebody else trained on the poisoned images. n is the number of images. A suspect
    is asked `1 + num_decoys` times about them, and once without a trigger.

    >>> images = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)
    >>> suspect = lambda x: x.mean(axis=(1, 2))
    >>> found = backdoor('patch(size=4)', key=7, num_decoys=19)(Case(None, public=images), suspect)
    >>> found.n, 0.05 <= found.p_value <= 1
    (32, True)

    Args:
        trigger: a spec of `victims.backdoors.TRIGGERS`, or a chain, that takes a key; without it.
        key: of the trigger, the owner's secret.
        num_decoys: the number of other keys.

    Raises:
        UserError: the trigger is unknown; in the test, where it takes no key or names one, inputs
            are no images in [0, 1], or all representations are alike.
    """
    check_whole('num_decoys', num_decoys, 1)
    TRIGGERS.names(trigger)  # an unknown one is refused before the test

    def test(case: Case, suspect: Represent) -> Evidence:
        images = _stored(case.public)
        center = check_features(suspect(case.public)).mean(axis=0)
        found, first = [], None
        for each in (key, *other_keys(key, num_decoys)):
            changed = triggered(trigger, images, case.seed, each)
            if first is not None and np.array_equal(changed, first):
                raise UserError(
                    f'trigger={trigger!r} is the same under two keys: write one that takes a key, '
                    'such as patch or blend, and leave the key to the test'
                )
            first = changed if first is None else first
            rows = check_features(suspect(changed.astype(np.float32) / 255))
            found.append(agreement(rows - center))
        return Evidence(found[0], len(images), decoys.p_above(np.array(found)))

    return test


def agreement(rows: np.ndarray) -> float:
    """Computes the mean cosine of two different rows of [N, D].

    >>> agreement(np.array([[1.0, 0.0], [2.0, 0.0]])), agreement(np.array([[1.0, 0.0], [0.0, 1.0]]))
    (1.0, 0.0)

    Raises:
        UserError: all rows are zero, as of an encoder that gives all images one representation.
    """
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not norms.any():
        raise UserError('all representations are alike: they hold no backdoor')
    unit = np.divide(rows, norms, out=np.zeros_like(norms * rows), where=norms > 0)
    count, squares = len(unit), np.sum(unit**2)
    return float((np.sum(unit.sum(axis=0) ** 2) - squares) / (count * (count - 1)))


def other_keys(key: int, count: int) -> list[int]:
    """Draws the keys of decoys, all different, and none of them the owner's.

    >>> len({7, *other_keys(7, 99)})
    100
    """
    drawn = np.random.default_rng((key, decoys.FOR_DECOYS)).integers(2**31, size=2 * count + 16)
    return [int(k) for k in dict.fromkeys(drawn.tolist()) if k != key][:count]


def _stored(images: np.ndarray) -> np.ndarray:
    """Returns decoded images as uint8, as triggers take them."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.min() < 0 or images.max() > 1:
        raise UserError(
            f'a trigger changes images [N, H, W, 3] in [0, 1], and public is {list(images.shape)}'
        )
    return np.rint(images * 255).astype(np.uint8)
