"""Removal of a constant that was added to the answers."""

import numpy as np
from absl import logging

from ssl_extract.recovery.base import Received, Recover, Shadow, answered_rows, register, replaced


@register('subtract_shift', needs=('shadow',))
def subtract_shift() -> Recover:
    """Estimates a constant in every coordinate, such as the mean of noise, and subtracts it.

    With `gaussian_noise(mean=10.0)` the paper's MSE attacker loses about ten points (arXiv
    2205.07890, tables 10 and 11), though a constant carries no information. The attacker needs the
    mean of representations without the constant. The shadow encoder tells this mean up to the
    scale, in which two encoders differ (`estimate`).

    >>> shadow = Shadow(represent=lambda inputs: np.array([[0.0, 2.0, 4.0]] * 2), seed=0)
    >>> answers = np.array([[[10.0, 12.0, 14.0]]] * 2, np.float32)
    >>> received = Received(None, answers, np.ones((2, 1), bool))
    >>> subtract_shift()(received, shadow).answers[0].tolist()
    [[0.0, 2.0, 4.0]]
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        rows = answered_rows(received, 2, 'subtract_shift')
        shift = estimate(rows, shadow.represent(received.inputs))
        logging.info('subtract_shift: the answers are shifted by %.4g', shift)
        return replaced(received, rows - np.float32(shift))

    return recover


def estimate(answers: np.ndarray, reference: np.ndarray) -> float:
    """Estimates the constant c in `answers` = representations + c + noise of mean 0.

    Let m be the means of an encoder's coordinates over the inputs. The ratio of the mean of m to
    the standard deviation of m does not depend on the encoder's scale, and is taken to be alike for
    two encoders of a kind (after a ReLU, say). Neither c nor the noise, which averages out over the
    inputs, changes the standard deviation of the answers' m. So the mean of the answers' m is c
    plus the reference's ratio times the deviation. The widths of the two may differ. A constant
    that differs between coordinates cannot be told from the victim's means.

    >>> reference = np.array([[0.0, 2.0, 4.0]])
    >>> estimate(10 + 3 * reference, reference)
    10.0

    Args:
        answers: float [K, D].
        reference: float [M, R], the representations of the attacker's encoder.
    """
    answer_means, means = (x.mean(axis=0, dtype=np.float64) for x in (answers, reference))
    spread = means.std()
    ratio = means.mean() / spread if spread > 0 else 0.0
    return float(answer_means.mean() - ratio * answer_means.std())
