"""Answers of unit length."""

from ssl_extract import numerics
from ssl_extract.defenses.base import Defense, register, stateless


@register('normalize')
def normalize() -> Defense:
    """Scales each answer to L2 norm 1; a zero answer stays zero."""
    return stateless(lambda outputs, keys: numerics.normalize(outputs))
