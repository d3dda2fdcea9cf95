"""Dataset inference: traces of the victim's training inputs in a suspect.

Three tests. `distance_inference` and `augmentation_inference` are those of Dziedzic et al. 2022,
"On the difficulty of defending self-supervised learning against model extraction" (arXiv
2205.07890), section 5.4 and Tables 18 and 19. `dataset_inference` is its successor's, Dziedzic et
al. 2022, "Dataset inference for self-supervised models" (arXiv 2209.09024).
"""

import warnings
from typing import Annotated

import numpy as np
import scipy
from threadpoolctl import threadpool_limits

from ssl_extract import numerics
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.evaluation.probe import constant, standardization
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ownership.views import represent_views, within
from ssl_extract.ranges import Positive, Range

COVARIANCES = ('full', 'diag')
MEASURES = ('distance', 'loss')
REGULARIZATION = 1e-3  # added to the variances of a component; the features have variance 1


@register('distance_inference', needs=('private', 'independents'), null='inputs')
def distance_inference() -> Test:
    """Compares the distance to the victim on its training inputs with that of independents.

    Of each private input, the L2 distance of the suspect to the victim, and the mean of that
    distance over all of `case.independents`. The paper has one independent encoder, a random one;
    trained ones are a harder and fairer comparison, and four or more hardly depend on their choice.
    The statistic is 1 - (mean distance of the suspect) / (mean distance of the independents): 1 for
    a copy, about 0 for an encoder as far as they are, below 0 for one that is farther.

    Assumptions: the suspect has the coordinates and the scale of the victim. A rotated, permuted or
    scaled copy looks independent; the paper's InfoNCE surrogates are as far as the random encoder.
    n is the number of private inputs, which may be few: 100 do.

    The p-value is of the paired t-test that the suspect is no nearer than the independents are on
    average, over another draw of inputs. It is not valid for independent encoders: with enough
    inputs, half of them are nearer than the average one. Compare statistics (`verdict.p_among`).

    >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
    >>> case = Case(np.tanh, private=inputs, independents=(np.cos, np.sin))
    >>> distance_inference()(case, np.tanh).statistic
    1.0

    Raises:
        UserError: in the test, an encoder has another width than the victim, the independents are
            copies of the victim, or the suspect is as far as they are on every input.
    """

    def test(case: Case, suspect: Represent) -> Evidence:
        victim = check_features(case.victim(case.private), "the victim's representations")
        own = _distances(suspect(case.private), victim, 'the suspect')
        independents = [
            _distances(encoder(case.private), victim, f'independent encoder {i}')
            for i, encoder in enumerate(case.independents)
        ]
        others = np.mean(independents, axis=0)
        _check_spread(others - own, 'differences of distances')
        p_value = scipy.stats.ttest_rel(others, own, alternative='greater').pvalue
        return Evidence(float(1 - own.mean() / others.mean()), len(own), float(p_value))

    return test


@register('augmentation_inference', needs=('private', 'public'), null='members')
def augmentation_inference(
    augmentation: str = 'simclr',
    views: Annotated[int, Range(2, 1000)] = 10,
    measure: str = 'distance',
    temperature: Positive = 0.5,
) -> Test:
    """Compares the views of private images with those of public images, by the suspect alone.

    An encoder that was trained to give the views of an image one representation does so best on its
    training images. The statistic is Welch's t of the scores of private against public images; it
    is larger where private views are nearer. The score of an image is

    *   `'distance'`: minus the mean squared distance over all pairs of its views;
    *   `'loss'`: minus the InfoNCE loss of each view and the next. The negatives are the views of
        all other images, private and public alike, so that sizes of the sets play no part.

    Representations are scaled to norm 1, which the paper does not do: otherwise the scale of an
    image's representation counts as its distance. They are compared without the victim and within
    one encoder, so that a suspect may have any width and any orthogonal map, scale or permutation.

    Assumptions: private and public images are a random split of one set. n counts both. The p-value
    is over that split, and holds for every encoder trained on neither set, or on both alike, if n
    is large enough for a t-test. An encoder that somebody else trained on private images is found
    too: it says nothing of the victim. The loss couples images; the p-value takes them as
    independent. The paper finds no effect in self-supervised encoders, which overfit little.

    >>> images = np.random.default_rng(0).random((80, 4, 4, 3), np.float32)
    >>> case = Case(np.ravel, private=images[:40], public=images[40:])
    >>> test = augmentation_inference('flip', views=4)
    >>> test(case, lambda x: x.reshape(len(x), -1)).n
    80

    Args:
        augmentation: of the views, see `ssl_extract.augment`; the paper takes that of training.
        views: of an image, each a run of the suspect.
        measure: `'distance'` or `'loss'`.
        temperature: of the loss.

    Raises:
        UserError: an unknown measure; in the test, the inputs are no images in [0, 1], or all
            scores are the same.
    """
    _check_choice('measure', measure, MEASURES)

    def test(case: Case, suspect: Represent) -> Evidence:
        images = np.concatenate([case.private, case.public])
        (shown,) = represent_views([suspect], images, [augmentation] * views, case.seed)
        scores = within(shown) if measure == 'distance' else _likelihoods(shown, temperature)
        return compare_members(scores[: len(case.private)], scores[len(case.private) :])

    return test


@register('dataset_inference', needs=('private', 'public'), null='members')
def dataset_inference(
    components: Annotated[int, Range(1, 10_000)] = 10, covariance: str = 'full'
) -> Test:
    """Compares the density of private with that of public representations, by the suspect alone.

    A Gaussian mixture is fitted to the suspect's representations of a random half of the private
    inputs. The statistic is Welch's t of the log-likelihoods of the other half against those of
    public inputs: private inputs are more likely in an encoder that was trained on them, or that
    was stolen from one. Representations are scaled to norm 1 and standardized by the fitted half;
    features that are constant there are left out. The paper standardizes for ImageNet only.

    The suspect is compared with itself, so that it may have any width. `'full'` covariances also
    take any orthogonal or other linear map of the normed representation, `'diag'` permutations.

    Assumptions: private and public inputs are a random split of one set, as no published split of
    SVHN is (the paper merges and splits it anew). n counts the other half and the public inputs.
    The p-value is one-sided and over that split: it holds for every encoder trained on neither set,
    or on both alike, if n is large enough for a t-test of skewed values: some hundreds. The
    authors' code halves a two-sided p-value whatever the sign. An encoder that somebody else
    trained on private inputs is found too: it says nothing of the victim.

    >>> inputs = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    >>> case = Case(np.tanh, private=inputs[:200], public=inputs[200:])
    >>> dataset_inference(components=2)(case, np.tanh).n
    300

    Args:
        components: of the mixture; the paper takes 10 for CIFAR-10 and SVHN, 50 for ImageNet.
        covariance: `'full'` (CIFAR-10 and SVHN) or `'diag'` (ImageNet, or few inputs).

    Raises:
        UserError: an unknown covariance; in the test, half of the private inputs are fewer than
            the components can be fitted to, or all representations are the same.
    """
    _check_choice('covariance', covariance, COVARIANCES)

    def test(case: Case, suspect: Represent) -> Evidence:
        encoded = (check_features(suspect(inputs)) for inputs in (case.private, case.public))
        private, public = map(numerics.units, encoded)
        order = np.random.default_rng(case.seed).permutation(len(private))
        fitted, rest = np.split(private[order], [len(private) // 2])
        scores = _log_likelihoods(
            fitted, np.concatenate([rest, public]), components, covariance, case.seed
        )
        return compare_members(scores[: len(rest)], scores[len(rest) :])

    return test


def compare_members(private: np.ndarray, public: np.ndarray) -> Evidence:
    """Tests that scores of private inputs are larger, by Welch's one-sided t-test (1947).

    >>> [round(x, 3) for x in compare_members(np.arange(4.0), np.arange(4.0) - 1)]
    [1.095, 8, 0.158]

    Args:
        private: float [N], a score of each private input.
        public: float [M], likewise.

    Raises:
        UserError: all scores are the same.
    """
    _check_spread(np.concatenate([private, public]), 'scores')
    t, p_value = scipy.stats.ttest_ind(private, public, equal_var=False, alternative='greater')
    return Evidence(float(t), len(private) + len(public), float(p_value))


def _distances(encoded: np.ndarray, victim: np.ndarray, name: str) -> np.ndarray:
    encoded = check_features(encoded, f'the representations of {name}')
    if encoded.shape != victim.shape:
        raise UserError(
            f'distance_inference compares coordinates, and {name} has {encoded.shape[1]} where '
            f'the victim has {victim.shape[1]}: use affine_residual'
        )
    return np.linalg.norm(encoded.astype(np.float64) - victim, axis=1)


def _likelihoods(views: np.ndarray, temperature: float) -> np.ndarray:
    """Returns minus the InfoNCE loss of each image [N], averaged over views and the next ones."""
    losses = np.zeros(views.shape[1])
    for view, following in zip(views[:-1], views[1:], strict=True):
        logits = view @ following.T / temperature
        losses += scipy.special.logsumexp(logits, axis=1) - np.diag(logits)
    return -losses / (len(views) - 1)


@threadpool_limits.wrap(1)  # small products: threads only wait
def _log_likelihoods(
    fitted: np.ndarray, rest: np.ndarray, components: int, covariance: str, seed: int
) -> np.ndarray:
    """Fits a mixture to rows [N, D] and returns the log-likelihoods of other rows [M]."""
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.mixture import GaussianMixture

    varied = ~constant(fitted)
    fitted, rest = fitted[:, varied], rest[:, varied]
    least = components * (1 + (fitted.shape[1] if covariance == 'full' else 1))
    if not varied.any() or len(fitted) < least:
        raise UserError(
            f'dataset_inference cannot fit {components} components of {fitted.shape[1]} varied '
            f'features to {len(fitted)} private inputs: give {2 * least} private inputs, fewer '
            "components or covariance='diag'"
        )
    mean, scale = standardization(fitted)
    mixture = GaussianMixture(
        components, covariance_type=covariance, reg_covar=REGULARIZATION, random_state=seed
    )
    with warnings.catch_warnings():  # any mixture will do, since others are compared by it
        warnings.simplefilter('ignore', ConvergenceWarning)
        mixture.fit((fitted - mean) / scale)
    return mixture.score_samples((rest - mean) / scale)


def _check_spread(scores: np.ndarray, name: str) -> None:
    if not np.ptp(scores) > 1e-9 * np.abs(scores).max():
        raise UserError(
            f'the {name} of all {len(scores)} inputs are {scores[0]:.4g}: look for constant '
            'representations, or independents that are copies'
        )


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f'{field}={value!r}: write {" or ".join(map(repr, choices))}')
