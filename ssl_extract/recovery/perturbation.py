"""Removal of inputs whose answers hardly follow a perturbation.

Semantic perturbation: arXiv 2411.09359.
"""

from typing import Annotated

import numpy as np
from absl import logging

from ssl_extract.errors import UserError
from ssl_extract.numerics import units
from ssl_extract.ranges import Range
from ssl_extract.recovery.base import Received, Recover, Shadow, answered_rows, register


@register('semantic_perturbation')
def semantic_perturbation(share: Annotated[float, Range(above=0, below=1)] = 0.2) -> Recover:
    """Drops the inputs whose views are answered most alike.

    A mark that stays when the meaning of an input changes holds the answers together: the answers
    to views of a marked input are more alike than those to views of another. The `share` of inputs
    with the highest mean cosine between the answers to their views, about the mean of all answers,
    are dropped, and the surrogate does not learn from them. The views must be asked
    (`attack.plan="views(m=4)"`), and cost as many queries.

    The attack of the paper appends text, chosen by a small model to change the meaning most, and
    sets its threshold by the victim's answers to texts that are known to be clean. Here random
    views stand for the text, and the attacker writes the share. Inputs with fewer than two answers
    stay.

    >>> answers = np.array([[[2.0, 0.0], [0.0, 2.0]], [[-2.0, -1.0], [-2.0, -1.0]]], np.float32)
    >>> received = Received(None, answers, np.ones((2, 2), bool))
    >>> semantic_perturbation(share=0.5)(received, None).answered.tolist()
    [[True, True], [False, False]]

    Args:
        share: of the inputs that are dropped, rounded to whole inputs.

    Raises:
        UserError: `share` is out of its range; no input has answers to two views.
    """

    def recover(received: Received, shadow: Shadow) -> Received:
        answered_rows(received, 1, 'semantic_perturbation')
        counts = received.answered.sum(axis=1)
        several = counts >= 2
        if not several.any():
            raise UserError(
                'attack.recover=semantic_perturbation: no input has answers to two views: write '
                'attack.plan="views(m=4)", or leave it out'
            )
        likeness = np.where(several, _likeness(received), -np.inf)
        number = min(round(share * len(counts)), int(several.sum()))
        dropped = np.zeros(len(counts), bool)
        dropped[np.argsort(-likeness, kind='stable')[:number]] = True
        logging.info('semantic_perturbation: dropped %d of %d inputs', number, len(counts))
        answered = received.answered & ~dropped[:, None]
        answers = np.where(answered[..., None], received.answers, 0)
        return received._replace(answers=answers, answered=answered)

    return recover


def _likeness(received: Received) -> np.ndarray:
    """Computes the mean cosine between the answers to each input's views, float64 [N]."""
    mean = received.answers[received.answered].mean(axis=0, dtype=np.float64)
    directions = units(received.answers - mean) * received.answered[..., None]
    counts = received.answered.sum(axis=1)
    total = np.sum(np.sum(directions, axis=1) ** 2, axis=-1) - counts
    return total / np.maximum(counts * (counts - 1), 1)
