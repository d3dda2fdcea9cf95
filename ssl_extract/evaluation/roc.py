"""ROC curves of detectors.

Pure NumPy: from arrays of answers, flags and scores to rates with 95 % intervals.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.evaluation.intervals import RESAMPLES, Measurement, percentiles, student, wilson
from ssl_extract.numerics import check_metric, units


class Roc(NamedTuple):
    """The separation of two kinds of accounts by a score.

    Attributes:
        auc: the probability that an attacker scores higher than a user (ties count half), with a
            bootstrap interval over accounts of both kinds; `n` counts both.
        fpr, tpr: [K], the curve.
        thresholds: [K]; an account with a score of at least the threshold counts as an attacker.
    """

    auc: Measurement
    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray


def nearest_before(rows: np.ndarray, metric: str, history: int) -> np.ndarray:
    """Computes the nearness of each row to the nearest of the `history` rows before.

    Args:
        rows: [N, D], answers in order.
        metric: 'cosine' for the largest cosine, 'l2' for the smallest distance.
        history: number of earlier rows to compare with.

    Returns:
        float64[N]; NaN for the first row.
    """
    check_metric(metric)
    if isinstance(history, bool) or not isinstance(history, int) or history < 1:
        raise UserError(f'history={history!r}: write a whole number of at least 1')
    rows = np.asarray(rows, np.float64)
    if metric == 'cosine':
        rows = units(rows)
    nearest = np.full(len(rows), np.nan)
    for i in range(1, len(rows)):
        past = rows[max(0, i - history) : i]
        if metric == 'cosine':
            nearest[i] = (past @ rows[i]).max()
        else:
            nearest[i] = np.sqrt(((past - rows[i]) ** 2).sum(axis=1).min())
    return nearest


def thresholds(nearest: np.ndarray, rates: Sequence[float], metric: str) -> list[float]:
    """Computes the thresholds that flag given shares of fresh queries.

    Args:
        nearest: [N], as of `nearest_before`, of a user's account; NaNs are left out.
        rates: false positive rates in (0, 1).
        metric: 'cosine' flags above, 'l2' below the threshold.

    >>> thresholds(np.arange(1.0, 102.0), [0.05, 0.5], 'l2')
    [6.0, 51.0]
    """
    rates = np.asarray(rates, np.float64)
    if not np.all((rates > 0) & (rates < 1)):
        raise UserError(f'rates={rates.tolist()}: write shares between 0 and 1')
    levels = 1 - rates if metric == 'cosine' else rates
    return [float(x) for x in np.nanquantile(np.asarray(nearest, np.float64), levels)]


def repeated_order(num_images: int, history: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns an order of two views of each image, with `history` answers from first to second.

    The images come in groups of `history`: the first views of a group, then the second views, so
    that the first view is exactly the oldest of the `history` answers before the second view.

    Args:
        num_images: a multiple of `history`.
        history: the guard's capacity.

    Returns:
        (image int[2 N], second bool[2 N]): the image, and whether the view is the second.

    >>> image, second = repeated_order(4, 2)
    >>> image.tolist(), second.astype(int).tolist()
    ([0, 1, 0, 1, 2, 3, 2, 3], [0, 0, 1, 1, 0, 0, 1, 1])
    """
    if history < 1 or num_images < history or num_images % history:
        raise UserError(f'{num_images} images: write a multiple of the history of {history}')
    groups = np.arange(num_images).reshape(-1, 1, history)
    image = np.broadcast_to(groups, (len(groups), 2, history)).ravel()
    second = np.broadcast_to(np.array([[False], [True]]), (len(groups), 2, history)).ravel()
    return image, second


def rate(flags: Sequence[np.ndarray]) -> Measurement:
    """Computes the share of True, with a 95 % interval over seeds.

    With several seeds, the interval is Student's over the seeds' rates, within [0, 1] and not
    narrower than Wilson's over all rows, since the rates of a few seeds may agree by chance. With
    one seed, the interval is Wilson's.

    Args:
        flags: bool[N] for each seed.

    Returns:
        The mean of the seeds' rates; `n` counts all rows.
    """
    if not len(flags) or not all(len(rows) for rows in flags):
        raise UserError('a rate needs at least one flag of each seed, got none')
    rates = [float(np.mean(rows)) for rows in flags]
    n = sum(len(rows) for rows in flags)
    low, high = wilson(sum(int(np.sum(rows)) for rows in flags), n)
    if len(rates) > 1:
        ends = student(rates)
        low, high = max(min(low, ends[0]), 0.0), min(max(high, ends[1]), 1.0)
    return Measurement(float(np.mean(rates)), low, high, n)


def roc(attackers: np.ndarray, users: np.ndarray, *, seed: int = 0) -> Roc:
    """Computes the receiver operating characteristic of a score, higher for attackers.

    Args:
        attackers: [T], the scores of attackers' accounts.
        users: [U], the scores of users' accounts.
        seed: of the bootstrap, which resamples attackers and users apart.

    Raises:
        UserError: a kind has no account, or a score is not finite.
    """
    from sklearn import metrics  # takes a second to import

    attackers, users = (np.asarray(scores, np.float64) for scores in (attackers, users))
    if not len(attackers) or not len(users):
        raise UserError(
            f'a ROC needs accounts of both kinds, got {len(attackers)} of attackers and '
            f'{len(users)} of users'
        )
    scores = np.concatenate([attackers, users])
    if not np.isfinite(scores).all():
        raise UserError('a ROC needs finite scores, got NaN or infinity among them')
    labels = np.repeat([1, 0], [len(attackers), len(users)])
    curve = metrics.roc_curve(labels, scores, drop_intermediate=False)
    wins = np.heaviside(attackers[:, None] - users, 0.5)  # [T, U]
    rng = np.random.default_rng(seed)
    samples = [
        wins[np.ix_(rng.integers(len(attackers), size=len(attackers)),
                    rng.integers(len(users), size=len(users)))].mean()
        for _ in range(RESAMPLES)
    ]  # fmt: skip
    area = float(metrics.auc(curve[0], curve[1]))
    return Roc(Measurement(area, *percentiles(np.array(samples)), len(scores)), *curve)


def power(curve: Roc, rate: float) -> float:
    """Returns the largest share of detected attackers at false positive rates up to `rate`."""
    return float(curve.tpr[curve.fpr <= rate].max())
