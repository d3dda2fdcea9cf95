"""The rotation watermark, read from a suspect's representations.

Dziedzic et al. 2022, arXiv 2205.07890, sections 5.1 and E.2. The victim was trained to tell by
which half of the circle an image was rotated; see `ssl_extract.victims.rotation_watermark`. The
mark is the trained predictor of the half, a function of representations. A surrogate learns the
mark from the victim's answers: in the paper's Tables 16 and 17 the predictor is right on 54 to 79 %
of the rotated images of surrogates, and on about 50 % of those of another encoder.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import scipy

from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.victims.pretraining.rotation_watermark import MARK, rotated

Mark = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N]; positive from 180 degrees
_PENALTIES = np.logspace(-6, 3, 10)
_rotated = jax.jit(rotated)


def mark_of(encoder: Encoder) -> Mark:
    """Returns the mark of a victim, for `Case.mark`.

    Args:
        encoder: trained by the method `rotation_watermark`, such as `trained.load` reads it.

    Returns:
        The predictor: representations float [N, D] -> logits float32 [N], positive where an image
        is predicted to be rotated by 180 degrees or more.

    Raises:
        UserError: the encoder has no predictor.
    """
    specs = dict(encoder.heads)
    if MARK not in specs:
        raise UserError(
            f'encoder: its heads are {sorted(specs)}, and none is {MARK!r}: pretrain the victim '
            "by the method 'rotation_watermark'"
        )
    network, variables = trained.make_head(specs[MARK]), encoder.head_variables[MARK]
    return lambda representations: np.asarray(network.apply(variables, representations))[:, 0]


@register('rotation_watermark', needs=('public', 'independents', 'mark'), null='inputs')
def rotation_watermark(aligned: bool = False) -> Test:
    """Tests whether the victim's mark reads rotations from the suspect's representations.

    The watermark success rate of an encoder is the share of rotated images whose half the mark
    tells from the encoder's representations. Each image is rotated once by an angle of each half,
    so that chance is 0.5. The statistic is the suspect's rate minus the mean rate of the
    independents, the difference of means in the paper's Table 5. The p-value is that of Welch's
    one-sided t-test on the scores of images: 0, 0.5 or 1, and the mean over the independents. The
    paper rotates training images; here the images are public, which no encoder has seen. One half
    of the images is dealt to the suspect and one to the independents, because encoders are right on
    the same images and Welch's test takes samples that do not depend on each other.

    The p-value assumes that the images are drawn independently. It is over other images for the
    same encoders: with enough images it is small for every encoder whose rate is above the mean
    rate of these independents, by however little. A verdict compares the statistic with those of
    further independents, `verdict.p_among`.

    The mark reads the victim's coordinates. Without `aligned` the test refuses an encoder of
    another width, and does not find a copy whose coordinates were permuted or rotated. With
    `aligned`, suspect and independents are all mapped to the victim's representations, by a ridge
    regression on half of the images, not rotated; the other half is rotated and scored.

    >>> images = np.random.default_rng(0).random((64, 8, 8, 3), np.float32)
    >>> tall = lambda x: (x * np.linspace(1, -1, 8)[:, None, None]).mean((1, 2))
    >>> wide = lambda x: (x * np.linspace(1, -1, 8)[:, None]).mean((1, 2))
    >>> case = Case(tall, public=images, independents=(wide,), mark=lambda r: -r.sum(axis=1))
    >>> rotation_watermark()(case, tall).n
    64

    Args:
        aligned: whether encoders are mapped to the victim's coordinates.

    Raises:
        UserError: by the test, where inputs are no images, an encoder has another width than the
            victim, or the mark gives a number that is not finite.
    """

    def test(case: Case, suspect: Represent) -> Evidence:
        if not callable(case.mark):
            raise UserError(
                f'mark={type(case.mark).__name__}: the test rotation_watermark takes the predictor '
                'of the victim, rotation_watermark.mark_of(encoder)'
            )
        order = np.random.default_rng(case.seed).permutation(len(case.public))
        fitted, judged = np.split(order, [len(order) // 2 if aligned else 0])
        halves = rotate(case.public[judged], case.seed)
        read = _aligned(case, fitted) if aligned else _direct(case)
        dealt = [[half[start::2] for half in halves] for start in (0, 1)]
        own = scores(read(suspect), dealt[0])
        theirs = np.mean([scores(read(f), dealt[1]) for f in case.independents], axis=0)
        return Evidence(float(own.mean() - theirs.mean()), len(judged), welch(own, theirs))

    return test


def rotate(images: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rotates each image by an angle of [0, 180) and by one of [180, 360) degrees.

    Args:
        images: float32 [N, H, W, 3], decoded.
        seed: of the angles.

    Raises:
        UserError: the inputs are no images of floats.
    """
    return [np.asarray(half) for half in _rotated(jax.random.key(seed), images)]


def welch(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the p-value of Welch's one-sided t-test: the first sample has the larger mean.

    Args:
        first, second: float [N] and [M], independent of each other.

    Raises:
        UserError: neither sample varies.
    """
    if not np.ptp(first) and not np.ptp(second):
        raise UserError(
            f'all images of the suspect score {first[0]}, and all of the independents {second[0]}: '
            'look for constant representations'
        )
    samples = [x for s in (first, second) for x in (s.mean(), s.std(ddof=1), len(s))]
    tested = scipy.stats.ttest_ind_from_stats(*samples, equal_var=False, alternative='greater')
    return float(tested.pvalue)


def scores(logits: Mark, halves: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the share of right predictions for each image: [N], 0, 0.5 or 1.

    The mean is the watermark success rate.

    >>> scores(lambda x: x[:, 0], [np.array([[-1.0], [2.0]]), np.array([[3.0], [4.0]])]).tolist()
    [1.0, 0.5]

    Args:
        logits: images [N, ...] -> [N], positive where a rotation by 180 degrees or more is
            predicted.
        halves: the images [N, ...] rotated by less than 180 degrees, and those rotated by more.

    Raises:
        UserError: a logit is not finite.
    """
    low, high = (np.asarray(logits(half)) for half in halves)
    if not np.isfinite([low, high]).all():
        raise UserError('the mark gives numbers that are not finite: representations are too large')
    return ((low < 0) + (high >= 0).astype(float)) / 2


def _direct(case: Case) -> Callable[[Represent], Mark]:
    """Makes the reader of a mark from representations as they are."""
    width = case.victim(case.public).shape[1]

    def read(encoder: Represent) -> Mark:
        def logits(images: np.ndarray) -> np.ndarray:
            representations = check_features(encoder(images))
            if representations.shape[1] != width:
                raise UserError(
                    f'the mark reads representations of width {width}, and an encoder gives '
                    f"{representations.shape[1]}: write 'rotation_watermark(aligned=True)'"
                )
            return case.mark(representations)

        return logits

    return read


def _aligned(case: Case, rows: np.ndarray) -> Callable[[Represent], Mark]:
    """Makes the reader of a mark from representations mapped to the victim's on some images."""
    from sklearn.linear_model import RidgeCV  # takes a second to import

    # All images, as other tests ask: a victim behind a network is asked none twice.
    wanted = check_features(case.victim(case.public))[rows].astype(np.float64)
    images = case.public[rows]

    def read(encoder: Represent) -> Mark:
        given = check_features(encoder(images)).astype(np.float64)
        mean = given.mean(axis=0)
        scale = (given - mean).std() or 1.0
        ridge = RidgeCV(alphas=_PENALTIES).fit((given - mean) / scale, wanted)

        def logits(images: np.ndarray) -> np.ndarray:
            representations = check_features(encoder(images)).astype(np.float64)
            mapped = ridge.predict((representations - mean) / scale)
            return case.mark(mapped.reshape(len(images), -1).astype(np.float32))

        return logits

    return read
