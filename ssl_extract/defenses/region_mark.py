"""A mark in the answers of secret regions of the representation space.

The idea is that of RegionMarker (https://arxiv.org/abs/2511.13329): the trigger of the mark is the
place of a representation, which an attacker who paraphrases, crops or shifts inputs hardly leaves.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register
from ssl_extract.numerics import lengths, product
from ssl_extract.ranges import Range, Share, Whole

Bits = Annotated[int, Range(1, 12)]
SomeShare = Annotated[float, Range(above=0, below=1)]


class RegionState(NamedTuple):
    """The counter of an account.

    Attributes:
        num_marked: int32[], the answers that carry the mark.
    """

    num_marked: jax.Array


class Secret(NamedTuple):
    """The secret of the service.

    Attributes:
        planes: float32 [D, bits], the normals of random hyperplanes.
        marked: bool [2**bits], the regions with a mark.
        direction: float32 [D], t: of length 1, the same positive number in a quarter of the
            coordinates and 0 elsewhere. So answers behind a ReLU get no negative coordinate, which
            would tell the mark.
    """

    planes: jax.Array
    marked: jax.Array
    direction: jax.Array


@register(
    'region_mark',
    marks=True,
    moves_answers=True,
    compares_answers=True,
    because='it marks regions of the representations themselves',
    endpoints=('representation', 'projection'),
)
def region_mark(
    key: Whole = 0, bits: Bits = 4, rate: SomeShare = 0.25, strength: Share = 0.2
) -> Defense:
    """Moves the answers in a secret share of regions toward a secret direction.

    See `mark_regions` for regions and moves. The secret is that of the service and not of the
    account: accounts that collude get one mark. The same input is answered alike, so that asking
    again averages nothing away. The answers of all regions that are not marked stay as they are.
    The ownership test of the same name looks for the mark.

    RegionMarker cuts the space along principal components. Here the planes are random, as those of
    `bucket_coverage` are: a defense sees no answers when an account is opened, and planes that
    follow the answers would mark the same input differently at another time.

    >>> from ssl_extract import defenses
    >>> outputs, where, state = defenses.apply_once('region_mark', [[3.0, 4.0], [4.0, 3.0]])
    >>> defenses.noticed(state)
    {'region_mark.num_marked': 1.0}

    Args:
        key: the secret, as a number; do not publish it.
        bits: there are 2**bits regions.
        rate: the share of regions with a mark, rounded to whole regions, at least one and not all.
            The share of answers with a mark depends on where the answers lie.
        strength: the share of a marked answer that the mark takes.

    Raises:
        UserError: an argument is out of its range.
    """

    def init(account_key, outputs, inputs):
        return RegionState(jnp.zeros([], jnp.int32))

    def apply(outputs, state, *, inputs, where, keys):
        moved, marked = mark_regions(outputs, jax.random.key(key), bits, rate, strength)
        number = jnp.sum(marked & where, dtype=jnp.int32)
        return moved, where, RegionState(state.num_marked + number)

    return Defense(init, apply)


def mark_regions(
    outputs: jax.Array, secret: jax.Array, bits: int, rate: float, strength: float
) -> tuple[jax.Array, jax.Array]:
    """Marks the representations that lie in secret regions.

    In a marked region e becomes `(1 - strength) e + strength |e| t`, with t of `Secret`.

    Args:
        outputs: float [B, D].
        secret: key[], see `draw_secret`.
        bits, rate, strength: see `region_mark`.

    Returns:
        The answers [B, D], and bool [B], whether an answer has the mark.
    """
    drawn = draw_secret(secret, outputs.shape[-1], bits, rate)
    marked = lies_in(outputs, drawn)
    toward = lengths(outputs) * drawn.direction[None]
    moved = outputs + strength * (toward - outputs)
    return jnp.where(marked[:, None], moved, outputs).astype(outputs.dtype), marked


def draw_secret(secret: jax.Array, width: int, bits: int, rate: float) -> Secret:
    """Draws planes, regions and direction for representations of `width` from a key."""
    regions = 2**bits
    for_planes, for_regions, for_direction = jax.random.split(secret, 3)
    chosen = min(max(round(rate * regions), 1), regions - 1)
    high = max(width // 4, 1)
    return Secret(
        jax.random.normal(for_planes, (width, bits)),
        jax.random.permutation(for_regions, regions) < chosen,
        (jax.random.permutation(for_direction, width) < high) / high**0.5,
    )


def lies_in(outputs: jax.Array, secret: Secret) -> jax.Array:
    """Returns whether representations [B, D] lie in marked regions, bool [B].

    A region holds the vectors on the same side of each plane through the origin. The mean of a
    vector's coordinates is subtracted first, because planes through the origin leave nearly all
    vectors behind a ReLU on one side (see `bucket_coverage`).
    """
    centered = (outputs - jnp.mean(outputs, axis=1, keepdims=True)).astype(jnp.float32)
    sides = product(centered, secret.planes) > 0
    powers = 2 ** jnp.arange(sides.shape[1])
    return secret.marked[jnp.sum(sides * powers[None], axis=1)]
