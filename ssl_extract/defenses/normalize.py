"""Answers of unit length."""

from ssl_extract import numerics
from ssl_extract.defenses.base import Defense, register, stateless


@register('normalize')
def normalize() -> Defense:
    """Scales each answer to L2 norm 1; a zero answer stays zero.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('normalize', [[0.0, 5.0]])
    >>> outputs.tolist()
    [[0.0, 1.0]]
    """
    return stateless(lambda outputs, keys: numerics.normalize(outputs))
