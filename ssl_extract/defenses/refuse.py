"""Responses of a detector to a query: refusal, or replacement.

similarity_guard(then="replace(mean=1000.0, stddev=20.0)")
"""

import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, EmptyState, register, stateless
from ssl_extract.defenses.noise import draw_normal
from ssl_extract.ranges import NotNegative, Real


@register('refuse')
def refuse() -> Defense:
    """Refuses every query; for the `then` of a detector.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('refuse', [[1.0, 2.0]])
    >>> where.tolist()
    [False]
    """
    return Defense(
        init=lambda key, outputs, inputs: EmptyState(),
        apply=lambda outputs, state, *, inputs, where, keys: (
            outputs,
            jnp.zeros_like(where),
            state,
        ),
    )


@register('replace', moves_answers=True)
def replace(mean: Real = 1000.0, stddev: NotNegative = 20.0) -> Defense:
    """Replaces each coordinate of an answer by a draw from N(mean, stddev^2).

    The paper does so to answers that resemble earlier answers (arXiv 2205.07890, section 5.3). The
    defaults are the mean of the paper's code and the smallest stddev of table 12.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('replace(mean=5.0, stddev=0.0)', [[1.0, 2.0]])
    >>> outputs.tolist()
    [[5.0, 5.0]]

    Raises:
        UserError: `stddev` is negative.
    """
    return stateless(lambda outputs, keys: mean + stddev * draw_normal(outputs, keys))
