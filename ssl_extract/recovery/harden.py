"""Classes in the place of posteriors."""

import numpy as np

from ssl_extract.recovery.base import Received, Recover, Shadow, given, register, replaced


@register('harden')
def harden() -> Recover:
    """Makes each posterior the one-hot vector of its most probable class.

    The adversary of a mark in the scores (`defenses.dynamarks`), which keeps the first class where
    it was. What the probabilities of the other classes tell is lost to the attacker too.
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        rows = given(received, 1, 'harden')
        return replaced(received, np.eye(rows.shape[1], dtype=np.float32)[rows.argmax(axis=1)])

    return recover
