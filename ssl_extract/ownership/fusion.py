"""Fusion of several tests' scores, or p-values, of one suspect."""

from collections.abc import Sequence

import numpy as np
import scipy

from ssl_extract.errors import UserError

RULES = {'mean': np.mean, 'max': np.max}


def fused(
    scores: Sequence[float], independents: Sequence[Sequence[float]], rule: str = 'mean'
) -> tuple[float, np.ndarray]:
    """Fuses T scores of a suspect to one statistic, and those of each independent encoder alike.

    Each of the m + 1 encoders gets a z-score of each test, against the m others. The statistic of
    an encoder is the mean or the maximum of its z-scores: the mean assumes that a copy raises all
    scores, the maximum that a copy raises at least one. The m + 1 statistics are exchangeable if
    the encoders are, however the scores depend on each other. So `verdict.rank_among` of the result
    is exact. `verdict.p_among` assumes normal statistics too: at a level of 5 %, it accuses 5 % of
    independent encoders by the mean and up to 6 % by the maximum (24 independents, normal scores of
    2 or 4 tests, correlated by 0 to 0.9; 20,000 draws); with 8 independents up to 6 % and 7 %.

    >>> statistic, null = fused([4.0, 9.0], [[-1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    >>> statistic, null.shape
    (6.5, (3,))

    Args:
        scores: [T] of the suspect, one for each test, larger for copies.
        independents: [m, T], of m >= 3 independent encoders.
        rule: `'mean'` or `'max'`.

    Returns:
        The suspect's statistic, and float64 [m], those of the independents.

    Raises:
        UserError: the rule is unknown, the shapes do not fit, a number is not finite, or the
            independents' scores of a test are all alike.
    """
    if rule not in RULES:
        raise UserError(f'rule={rule!r}: write one of {", ".join(RULES)}')
    own, null = np.asarray(scores, np.float64), np.asarray(independents, np.float64)
    if own.ndim != 1 or null.ndim != 2 or len(null) < 3 or null.shape[1:] != own.shape:
        raise UserError(
            f'scores {list(own.shape)} and independents {list(null.shape)} do not fit: give [T] '
            'and [m, T] with m of at least 3'
        )
    everyone = np.vstack([null, own])
    if not np.isfinite(everyone).all():
        raise UserError('scores to fuse must be finite')
    values = RULES[rule]([_z_scores(everyone, index) for index in range(len(everyone))], axis=1)
    return float(values[-1]), values[:-1]


def fisher(p_values: Sequence[float]) -> float:
    """Fuses p-values of one suspect to one, by Fisher's method.

    Assumption: the p-values are independent of each other under the null. Those of several tests of
    one suspect are often not. At a level of 5 %, four tests whose scores are correlated by 0.5
    accuse 11 % of independent encoders, and two such tests 7 % (24 independents, normal scores,
    20,000 draws); `fused` has no such assumption.

    >>> round(fisher([0.1, 0.1]), 4)
    0.0561

    Args:
        p_values: of the tests.

    Raises:
        UserError: there is none, or one is not in [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or not len(values) or not np.all((values >= 0) & (values <= 1)):
        raise UserError(f'p-values {values.tolist()}: give some, each from 0 to 1')
    with np.errstate(divide='ignore'):  # of 0, the result is 0
        return float(scipy.stats.combine_pvalues(values, 'fisher').pvalue)


def _z_scores(everyone: np.ndarray, index: int) -> np.ndarray:
    others = np.delete(everyone, index, axis=0)
    alike = np.flatnonzero(np.ptp(others, axis=0) == 0)
    if len(alike):
        raise UserError(
            f'the scores of test {alike[0]} are {others[0, alike[0]]} of all other encoders: they '
            'tell no spread; leave the test out'
        )
    return (everyone[index] - others.mean(axis=0)) / others.std(axis=0, ddof=1)
