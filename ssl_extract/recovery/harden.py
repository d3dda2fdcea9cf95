"""Classes in the place of posteriors."""

import numpy as np

from ssl_extract.recovery.base import Received, Recover, Shadow, answered_rows, register, replaced


@register('harden')
def harden() -> Recover:
    """Makes each posterior the one-hot vector of its most probable class.

    The recovery is the adversary of a mark in the scores (`defenses.dynamarks`), which leaves the
    most probable class in place. The attacker loses the probabilities of the other classes.

    >>> answers = np.array([[[0.25, 0.75]]], np.float32)
    >>> harden()(Received(None, answers, np.ones((1, 1), bool)), None).answers.tolist()
    [[[0.0, 1.0]]]
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        rows = answered_rows(received, 1, 'harden')
        return replaced(received, np.eye(rows.shape[1], dtype=np.float32)[rows.argmax(axis=1)])

    return recover
