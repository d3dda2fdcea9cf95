"""Removal of a constant that was added to the answers."""

import numpy as np
from absl import logging

from ssl_extract.recovery.base import Received, Recover, Shadow, given, register, replaced


@register('subtract_shift', needs=('shadow',))
def subtract_shift() -> Recover:
    """Estimates a constant added to every coordinate and subtracts it: against a noise's mean.

    With `gaussian_noise(mean=10.0)` the paper's MSE attacker loses about ten points (arXiv
    2205.07890, tables 10 and 11), though a constant carries no information. What has to be known
    is where a representation's mean lies without it, and the attacker's own encoder tells that up
    to the scale, in which two encoders differ (`estimate`).
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        rows = given(received, 2, 'subtract_shift')
        shift = estimate(rows, shadow.represent(received.inputs))
        logging.info('subtract_shift: the answers are shifted by %.4g', shift)
        return replaced(received, rows - np.float32(shift))

    return recover


def estimate(answers: np.ndarray, own: np.ndarray) -> float:
    """The constant c in `answers` = representations + c + noise of mean 0.

    Let m be the means of an encoder's coordinates over the images. The mean over m divided by its
    standard deviation does not depend on the encoder's scale, and it is taken to be alike for two
    encoders of a kind (after a ReLU, say). Neither c nor the noise, which the mean over the images
    averages out, changes the standard deviation of the answers' m: so the mean of their m is c plus
    the ratio of the attacker's encoder times that deviation. The widths of the two may differ. A
    constant of its own for every coordinate cannot be told from the victim's own means.

    >>> own = np.array([[0.0, 2.0, 4.0]])
    >>> estimate(10 + 3 * own, own)
    10.0

    Args:
        answers: float [K, D].
        own: float [M, R], the representations of the attacker's encoder.
    """
    asked, mine = (x.mean(axis=0, dtype=np.float64) for x in (answers, own))
    spread = mine.std()
    ratio = mine.mean() / spread if spread > 0 else 0.0
    return float(asked.mean() - ratio * asked.std())
