"""Fingerprints: likeness to the victim on public inputs.

Each test is a score of two encoders, of public inputs, between that of independents and that of the
victim with itself:

    (score(suspect) - mean score(independents)) / (score(victim) - mean score(independents))

A copy has 1, an encoder like the mean of all of `case.independents` has 0. This is the normalized
score of Dziedzic et al. 2022 (arXiv 2209.09024), who have one random encoder for independents; the
mean over several trained ones depends less on their choice. Encoders of the same inputs are alike,
and no draw of inputs says how much: there is no p-value, and `verdict.p_among` compares with other
independents than those of the case.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import scipy

from ssl_extract.errors import UserError
from ssl_extract.evaluation import fidelity
from ssl_extract.evaluation.features import check_features
from ssl_extract.evaluation.probe import constant
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ranges import Count, Range

# Of the representations of an encoder and of the victim, and of a seed: the score, and its n.
Score = Callable[[np.ndarray, np.ndarray, int], tuple[float, int]]
NEEDS = ('public', 'independents')
ROUNDING = 1e-4  # relative, of squared distances: a rotated copy is as near as a plain one
LEAST_GAP = 1e-6  # between the victim's score with itself and that of independents


@register('cosine', needs=NEEDS)
def cosine() -> Test:
    """Scores the mean cosine of centered representations, normalized by independents.

    The successor's score C takes absolute cosines, which are above 0 for unrelated encoders; a
    copy of the other sign is found by `cka`. The coordinates count: a rotated or permuted copy has
    0. n is the number of public inputs, a hundred or more.

    >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
    >>> case = Case(np.tanh, public=inputs, independents=(np.cos, np.exp))
    >>> round(cosine()(case, lambda x: 3 * np.tanh(x) + 1).statistic, 6)
    1.0

    Raises:
        UserError: in the test, an encoder has another width than the victim, or independents score
            as the victim does.
    """

    def score(encoded: np.ndarray, victim: np.ndarray, seed: int) -> tuple[float, int]:
        if encoded.shape[1] != victim.shape[1]:
            raise UserError(
                f'cosine compares coordinates, and an encoder has {encoded.shape[1]} where the '
                f'victim has {victim.shape[1]}: use cka, neighbor_overlap or affine_residual'
            )
        centered = (x - x.mean(axis=0, dtype=np.float64) for x in (encoded, victim))
        measured = fidelity.cosine(*centered, seed=seed)
        return measured.value, measured.n

    return _normalized('cosine', score)


@register('mutual_information', needs=NEEDS)
def mutual_information(
    neighbors: Annotated[int, Range(1, 100)] = 3, samples: Count = 1_000
) -> Test:
    """Scores the mutual information of the representations, normalized by independents.

    See `ksg` for the estimate. It compares distances within an encoder: a suspect may have any
    width, orthogonal map, scale, permutation or padding. The successor's score S estimates the same
    by entropies of nearest neighbors. The estimate is far too low where the width is large; the
    normalization by scores with the same bias is what makes it useful.

    >>> inputs = np.random.default_rng(0).normal(size=(200, 2))
    >>> independent = lambda x: np.random.default_rng(1).normal(size=x.shape)
    >>> case = Case(np.tanh, public=inputs, independents=(independent,))
    >>> mutual_information()(case, lambda x: 2 * np.tanh(x[:, ::-1])).statistic
    1.0

    Args:
        neighbors: of the estimate; more have less variance and more bias.
        samples: the largest number of public inputs, drawn by the seed of the case; n is this
            number, or all where there are fewer. Time and memory grow with its square.

    Raises:
        UserError: in the test, there are too few inputs, or independents score as the victim does.
    """

    def score(encoded: np.ndarray, victim: np.ndarray, seed: int) -> tuple[float, int]:
        drawn = np.random.default_rng(seed).permutation(len(victim))[:samples]
        return ksg(encoded[drawn], victim[drawn], neighbors), len(drawn)

    return _normalized('mutual_information', score)


@register('cka', needs=NEEDS)
def cka() -> Test:
    """Scores linear CKA (`fidelity.cka`), normalized by independents.

    CKA is the same for any width, orthogonal map, permutation, padding, isotropic scale and shift
    of a suspect. It is biased upwards where n, the number of public inputs, is not large against
    the widths; the bias is larger for a wider suspect than for the independents.

    >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
    >>> case = Case(np.tanh, public=inputs, independents=(np.cos, np.exp))
    >>> round(cka()(case, lambda x: -2 * np.tanh(x[:, ::-1])).statistic, 6)
    1.0

    Raises:
        UserError: in the test, the victim is constant, or independents score as the victim does.
    """
    return _normalized('cka', lambda a, b, seed: _value(fidelity.cka(a, b, seed=seed)))


@register('neighbor_overlap', needs=NEEDS)
def neighbor_overlap(neighbors: Annotated[int, Range(1, 10_000)] = 10) -> Test:
    """Scores the share of common nearest neighbors, normalized by independents.

    See `fidelity.neighbor_overlap`. Neighbors are by cosine: a suspect may have any width,
    orthogonal map, permutation, padding and scale. A shift changes them. n is the number of public
    inputs, many times the number of neighbors.

    >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
    >>> case = Case(np.tanh, public=inputs, independents=(np.cos, np.exp))
    >>> neighbor_overlap(5)(case, lambda x: 3 * np.tanh(x[:, ::-1])).statistic
    1.0

    Args:
        neighbors: of an input.

    Raises:
        UserError: in the test, there are not more inputs than neighbors, or independents score as
            the victim does.
    """

    def score(encoded: np.ndarray, victim: np.ndarray, seed: int) -> tuple[float, int]:
        return _value(fidelity.neighbor_overlap(encoded, victim, k=neighbors, seed=seed))

    return _normalized('neighbor_overlap', score)


@register('affine_residual', needs=NEEDS)
def affine_residual() -> Test:
    """Scores minus the error of the best affine map to the victim, normalized by independents.

    See `fidelity.affine_l2`. The map is fitted on a seeded half of the public inputs and measured
    on the other, whose size is n. A suspect may have any width and any invertible affine map.
    Prefer ten or more inputs for each coordinate of the widest encoder: with fewer the error is of
    the fit, and larger for a wider suspect.

    >>> inputs = np.random.default_rng(0).normal(size=(64, 4))
    >>> case = Case(np.tanh, public=inputs, independents=(np.cos, np.exp))
    >>> round(affine_residual()(case, lambda x: np.tanh(x) * [1, -2, 3, 4] + 1).statistic, 5)
    1.0

    Raises:
        UserError: in the test, there are fewer than 2 (D + 2) inputs for an encoder of width D, the
            victim is constant, or independents score as the victim does.
    """

    def score(encoded: np.ndarray, victim: np.ndarray, seed: int) -> tuple[float, int]:
        error, n = _value(fidelity.affine_l2(encoded, victim, seed=seed))
        return -error, n

    return _normalized('affine_residual', score)


def ksg(a: np.ndarray, b: np.ndarray, neighbors: int = 3) -> float:
    """Estimates the mutual information of two representations, in nats.

    The first estimator of Kraskov, Stögbauer and Grassberger 2004 (arXiv cond-mat/0305641, eq. 8),
    with Euclidean distances within either representation, each centered and scaled to a mean
    squared norm of 1. Let e be the larger of the two distances to the k-th neighbor in both
    together, and c, d the numbers of points nearer than e in either one. The estimate is psi(k) +
    psi(N) - mean(psi(c + 1) + psi(d + 1)). Duplicates count as nearer. A copy has psi(N) - psi(k),
    the largest value; the estimate may be below 0.

    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> round(ksg(x[:, :1], 0.8 * x[:, :1] + 0.6 * x[:, 1:]), 2)  # -log(1 - 0.8**2) / 2 is 0.51
    0.57

    Args:
        a: float [N, D].
        b: float [N, E], of the same inputs.
        neighbors: k.

    Raises:
        UserError: there are no N > k rows of both, or they are not finite.
    """
    a, b = check_features(a), check_features(b)
    if len(a) != len(b) or len(a) <= neighbors:
        raise UserError(
            f'{neighbors} neighbors need more inputs than that, the same of both encoders, got '
            f'{len(a)} and {len(b)}'
        )
    apart = [_squared_distances(x) for x in (a, b)]
    edge = np.partition(np.maximum(*apart), neighbors - 1, axis=1)[:, neighbors - 1, None]
    edge = np.maximum(edge, np.finfo(np.float32).tiny)  # of duplicates, which are nearer then
    psi = scipy.special.digamma
    near = [np.mean(psi(1 + np.sum(d < (1 - ROUNDING) * edge, axis=1))) for d in apart]
    return float(psi(neighbors) + psi(len(a)) - sum(near))


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    """Computes squared distances [N, N] of scaled rows; infinity on the diagonal."""
    rows = rows - rows.mean(axis=0, dtype=np.float64)
    rows = rows / (np.sqrt(np.mean(np.sum(rows**2, axis=1))) or 1)
    distances = scipy.spatial.distance.cdist(rows, rows, 'sqeuclidean')
    np.fill_diagonal(distances, np.inf)
    return distances


def _value(measured: fidelity.Measurement) -> tuple[float, int]:
    return measured.value, measured.n


def _normalized(name: str, score: Score) -> Test:
    """Makes the test of a score, see the top of this file."""
    known: list = []  # the last case, and what all of its suspects share

    def test(case: Case, suspect: Represent) -> Evidence:
        if not known or known[0] is not case:
            known[:] = [case, *_ends(name, score, case)]
        _, victim, null, own = known
        found, n = score(check_features(suspect(case.public)), victim, case.seed)
        return Evidence((found - null) / (own - null), n)

    return test


def _ends(name: str, score: Score, case: Case) -> tuple[np.ndarray, float, float]:
    """Returns the victim's representations, the independents' mean score and the victim's own."""
    victim = check_features(case.victim(case.public), "the victim's representations")
    if constant(victim).all():
        raise UserError(f"{name}: the victim's representations of all inputs are the same")
    own, *others = (
        score(check_features(encoder(case.public)), victim, case.seed)[0]
        for encoder in (case.victim, *case.independents)
    )
    null = float(np.mean(others))
    if not own - null > LEAST_GAP * max(1.0, abs(own)):
        raise UserError(
            f'{name} of the independents is {null:.4g} and of the victim with itself {own:.4g}: '
            'give independents that are no copies of the victim'
        )
    return victim, null, own
