"""The shadow score: agreement where a victim deviates from its shadows."""

import math

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.evaluation import knn
from ssl_extract.ownership.alignment import fit_affine
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register, remembered
from ssl_extract.ownership.verdict import rank_among
from ssl_extract.ranges import Count, PositiveShare

LEAST_SHADOWS = 8  # below which their spread is hardly known
AGREEMENTS = ('neighbors', 'residuals')
PROBES = ('natural', 'noise', 'conferrable')
_ROUNDING = 1e-6  # a spread of agreements, relative to their size, that counts as none


@register(
    'shadow_score',
    needs=lambda probes, **_: ('public', 'shadows', *(['conferrable'] * (probes == 'conferrable'))),
    null='shadows',
)
def shadow_score(
    agreement: str = 'neighbors',
    probes: str = 'natural',
    k: Count = 10,
    share: PositiveShare = 0.25,
) -> Test:
    """Scores a suspect's agreement with the victim where the victim deviates from its shadows.

    The agreement of an encoder with the victim is one number for each probe:

    - `'neighbors'`: the share of the probe's k nearest public inputs (by cosine) common to both.
    - `'residuals'`: minus the distance between the victim's representation and the encoder's,
      mapped affinely to the victim's. The map is fitted on public inputs; of natural probes, it is
      fitted on one half and measured on the other, both ways.

    The probes that count are those where the shadows agree least with the victim. The statistic is
    the suspect's mean z-score there, against the mean and the spread of the shadows. The p-value is
    the rank of the statistic among those of the shadows, each scored against all others and the
    suspect. It is exact for any distribution, and never below 1 / (number of shadows + 1). It is so
    over draws of shadows and suspect: against one set of shadows, false positives come together.

    Assumptions: under the null, the suspect and the shadows are drawn alike (exchangeable): trained
    by one recipe, each on inputs and with a seed of its own. The p-value does not cover independent
    encoders of another method, size or data set, nor those trained on the victim's own inputs:
    compare the statistic with theirs (`verdict.p_among`). It does not cover an owner who chooses
    poor shadows: any better encoder agrees more with the victim than they do.

    The suspect may have any width. n is the number of probes that count. The idea is that of scores
    of classifiers against shadow models (likelihood ratios, Carlini et al. 2022, arXiv 2112.03570);
    here agreement of representations takes the place of the probability of a class.

    >>> from ssl_extract import ownership
    >>> ownership.TESTS.traits('shadow_score(probes="conferrable")').needs
    ('public', 'shadows', 'conferrable')

    Args:
        agreement: `'neighbors'` or `'residuals'`.
        probes: `'natural'` are the public inputs; `'noise'` is noise with their mean and spread;
            `'conferrable'` are those of the case (see `search_conferrable`).
        k: the number of neighbors.
        share: the share of probes that count.

    Raises:
        UserError: an argument is unknown; the case has fewer than LEAST_SHADOWS shadows, or two of
            its encoders are the same; the victim is constant; no shadow differs from the others.
    """
    for name, value, known in (('agreement', agreement, AGREEMENTS), ('probes', probes, PROBES)):
        if value not in known:
            raise UserError(f'{name}={value!r}: write one of {", ".join(known)}')

    def test(case: Case, suspect: Represent) -> Evidence:
        encoders = [remembered(encoder) for encoder in (case.victim, *case.shadows, suspect)]
        inputs = probe_inputs(case, probes)
        rows = [(f(case.public), None if inputs is None else f(inputs)) for f in encoders]
        _check_owners(rows[:-1])
        if agreement == 'neighbors':
            agreements = shared_neighbors(rows[0], rows[1:], k)
        else:
            agreements = negative_residuals(rows[0], rows[1:], case.seed)
        own, others = scores(agreements, share)
        return Evidence(own, _count(share, len(agreements[0])), rank_among(own, others))

    return test


Rows = tuple[np.ndarray, np.ndarray | None]  # of public inputs, of probes that are others


def probe_inputs(case: Case, probes: str) -> np.ndarray | None:
    """Returns the probes of a kind; None of natural ones, which are the public inputs themselves.

    Args:
        case: the owner's side.
        probes: one of `PROBES`.
    """
    if probes == 'noise':
        return noise(case.public, case.seed)
    return case.conferrable if probes == 'conferrable' else None


def noise(inputs: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws one noise input for each input, float32 [N, ...].

    Each value is normal with the mean and the spread of its position, and cut to the range of all
    inputs.

    >>> noise(np.ones((3, 2), np.float32)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]

    Args:
        inputs: float [N, ...].
        seed: of the draws.
    """
    mean, spread = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64)
    draws = np.random.default_rng(seed).normal(mean, spread, inputs.shape)
    return np.clip(draws, inputs.min(), inputs.max()).astype(np.float32)


def shared_neighbors(victim: Rows, encoders: list[Rows], k: int) -> np.ndarray:
    """Computes the shares of a probe's k nearest public inputs common to encoder and victim.

    Args:
        victim: the victim's representations, of public inputs and of probes.
        encoders: those of A encoders.
        k: the number of neighbors.

    Returns:
        float64 [A, N].
    """

    def near(rows: Rows) -> np.ndarray:
        public, probes = rows
        own = probes is None
        return knn.neighbors(public if own else probes, public, k, exclude_self=own)[1]

    of_victim = near(victim)[:, None, :]
    shared = [np.sum(near(rows)[:, :, None] == of_victim, axis=(1, 2)) for rows in encoders]
    return np.array(shared) / k


def negative_residuals(victim: Rows, encoders: list[Rows], seed: int = 0) -> np.ndarray:
    """Computes minus the distances between the victim's and the affinely mapped representations.

    Args:
        victim: the victim's representations, of public inputs and of probes.
        encoders: those of A encoders.
        seed: of the halves of the public inputs.

    Returns:
        float64 [A, N].
    """
    target, target_probes = victim
    order = np.random.default_rng(seed).permutation(len(target))
    halves = order[: len(order) // 2], order[len(order) // 2 :]

    def distances(rows: Rows) -> np.ndarray:
        public, probes = rows
        if probes is not None:
            return np.linalg.norm(fit_affine(public, target)(probes) - target_probes, axis=1)
        found = np.empty(len(target))
        for fit, rest in (halves, halves[::-1]):
            mapped = fit_affine(public[fit], target[fit])(public[rest])
            found[rest] = np.linalg.norm(mapped - target[rest], axis=1)
        return found

    return -np.array([distances(rows) for rows in encoders])


def scores(agreements: np.ndarray, share: float) -> tuple[float, list[float]]:
    """Scores the last of A encoders, and each of the others, against all but itself.

    The A scores are exchangeable if the encoders are.

    Args:
        agreements: float [A, N], with the victim, of the shadows and the suspect.
        share: the share of probes that count.

    Returns:
        The suspect's score, and those of the shadows.
    """
    values = [
        mean_z(own, np.delete(agreements, index, axis=0), share)
        for index, own in enumerate(agreements)
    ]
    return values[-1], values[:-1]


def mean_z(own: np.ndarray, others: np.ndarray, share: float) -> float:
    """Averages an encoder's z-scores over the probes where others agree least with the victim.

    The variance of a probe is the mean of its own and that of all probes that count: a few
    encoders tell little of one probe, and may all share no neighbor there.

    >>> mean_z(np.array([3.0, 9.0]), np.array([[0.0, 9.0], [1.0, 9.0], [2.0, 9.0]]), 0.5)
    2.0

    Args:
        own: float [N], the encoder's agreement with the victim.
        others: float [m, N], that of the encoders to compare with.
        share: the share of probes that count.

    Raises:
        UserError: the others agree alike on all probes that count.
    """
    mean = others.mean(axis=0)
    where = np.argsort(mean, kind='stable')[: _count(share, len(mean))]
    variance = others[:, where].var(axis=0, ddof=1)
    pooled = variance.mean()
    if not pooled > (_ROUNDING * np.abs(mean[where]).mean()) ** 2:
        raise UserError(
            f'the shadows agree alike with the victim on all {len(where)} probes that count: give '
            'other shadows or more probes'
        )
    return float(np.mean((own - mean)[where] / np.sqrt((variance + pooled) / 2)))


def _count(share: float, probes: int) -> int:
    return math.ceil(share * probes)


def _check_owners(rows: list[Rows]) -> None:
    """Checks the victim's and the shadows' representations.

    Raises:
        UserError: there are too few shadows, the victim is constant, or two encoders are the same.
    """
    if len(rows) - 1 < LEAST_SHADOWS:
        raise UserError(f'{len(rows) - 1} shadows tell no spread: give {LEAST_SHADOWS} or more')
    if not np.ptp(rows[0][0], axis=0).any():
        raise UserError('the victim represents all public inputs alike: its training has collapsed')
    names = ['the victim', *(f'shadow {index}' for index in range(len(rows) - 1))]
    seen: dict[bytes, str] = {}
    for name, (public, _) in zip(names, rows, strict=True):
        other = seen.setdefault(public.tobytes(), name)
        if other != name:
            raise UserError(f'{name} is {other}: give shadows of different seeds and inputs')
