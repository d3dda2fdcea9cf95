"""Responses of a detector to a query: refusal, or replacement.

similarity_guard(then="replace(mean=1000.0, stddev=20.0)")
"""

import jax.numpy as jnp

from ssl_extract.checks import check_number
from ssl_extract.defenses.base import Defense, EmptyState, register, stateless
from ssl_extract.defenses.noise import draw_normal


@register('refuse')
def refuse() -> Defense:
    """Refuses every query that reaches it; for the `then` of a detector."""
    return Defense(
        init=lambda key, outputs, inputs: EmptyState(),
        apply=lambda outputs, state, *, inputs, where, keys: (
            outputs,
            jnp.zeros_like(where),
            state,
        ),
    )


@register('replace', moves_answers=True)
def replace(mean: float = 1000.0, stddev: float = 20.0) -> Defense:
    """Answers with a draw from N(mean, stddev^2) per coordinate: nothing of the answer is left.

    What the paper does to answers that resemble earlier ones (arXiv 2205.07890, section 5.3), with
    the mean of its code and the smallest stddev of its table 12.

    Raises:
        UserError: `stddev` is negative.
    """
    check_number('mean', mean)
    check_number('stddev', stddev, least=0)
    return stateless(lambda outputs, keys: mean + stddev * draw_normal(outputs, keys))
