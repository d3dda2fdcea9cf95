"""Bucket coverage (B4B): noise that grows with the covered space.

"Bucks for Buckets" (NeurIPS 2023, https://arxiv.org/abs/2310.08571): an attacker needs answers from
all over the space, a legitimate user from the part where the user's task lies. Locality-sensitive
hashing cuts the space into buckets, and the noise on answers grows with the number of filled
buckets.
"""

import functools
import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.defenses.base import Defense, register
from ssl_extract.defenses.noise import draw_normal
from ssl_extract.errors import UserError
from ssl_extract.ranges import Positive, PositiveShare, Range

# The buckets fit in memory: 64 MiB at most.
Bits, Tables = Annotated[int, Range(1, 20)], Annotated[int, Range(1, 64)]


class CoverageState(NamedTuple):
    """The buckets that an account has filled.

    Attributes:
        filled: bool[T, 2**bits], the filled buckets of each of the T tables; a byte each.
        coverage: float32[], the share of filled buckets.
        stddev: float32[], of the noise on an answer that fills no new bucket.
    """

    filled: jax.Array
    coverage: jax.Array
    stddev: jax.Array


@register(
    'bucket_coverage',
    moves_answers=True,
    compares_answers=True,
    because='it counts where representations lie, and the other one moves them',
)
def bucket_coverage(
    bits: Bits = 12,
    tables: Tables = 20,
    alpha: Positive = 1.0,
    beta: PositiveShare = 0.8,
    lambda_: Positive = 1e-6,
    center: bool = True,
) -> Defense:
    """Adds `N(0, stddev^2)` to every coordinate, with `stddev` set by the coverage E at the query.

    `stddev = lambda_ * (exp(log(alpha / lambda_) * E / beta) - 1)`, where E is the share of buckets
    that the account's queries up to and including this query have filled, averaged over the tables.
    The deviation is about `alpha` at `E = beta` and more beyond. See `buckets_of` for the buckets;
    an account takes `tables * 2**bits` bytes (80 KiB). The noise is drawn anew for every query.

    An attacker may make do with few buckets, share the queries among accounts, or ask many times
    about one input, which fills one bucket, and average.

    The coverage tells an attacker from a user whose inputs the victim keeps close together. A small
    CIFAR-10 victim has 2,000 Fashion-MNIST images in 4 % of the buckets and 2,000 CIFAR-10 images
    in 18 %, but 2,000 of three CIFAR-10 classes alone in 17 %.

    >>> from ssl_extract import defenses
    >>> defense = bucket_coverage(bits=1, tables=1)
    >>> outputs, where, state = defenses.apply_once(defense, [[1.0, 0.0]])
    >>> float(state.coverage)
    0.5

    Args:
        bits: there are 2**bits buckets; fewer buckets fill sooner. 2,000 CIFAR-10 images filled
            18 % of 2**12, 44 % of 2**10 and 77 % of 2**8 buckets for a small victim: a small budget
            needs fewer bits.
        tables: independent divisions of the space that are averaged (B4B's code: 20).
        alpha: standard deviation at `beta`, in units of the answers' coordinates.
        beta: the coverage, in (0, 1], that only attackers reach.
        lambda_: the deviation near coverage 0, below `alpha`; smaller values are flatter.
        center: see `buckets_of`; B4B's code does not center.

    Raises:
        UserError: an argument is out of its range.
    """
    if lambda_ >= alpha:
        raise UserError(f'lambda_ must be less than alpha={alpha}, got {lambda_}')
    growth = math.log(alpha / lambda_) / beta
    if growth > 80:  # exp overflows float32 at 88
        raise UserError(
            f'beta={beta} makes the noise overflow at full coverage; write a larger beta or lambda_'
        )

    def init(key: jax.Array, outputs: Any, inputs: Any) -> CoverageState:
        return CoverageState(
            filled=jnp.zeros((tables, 2**bits), bool),
            coverage=jnp.zeros([], jnp.float32),
            stddev=jnp.zeros([], jnp.float32),
        )

    def apply(outputs, state, *, inputs, where, keys):
        buckets = buckets_of(outputs, bits, tables, center)
        coverage, filled = fill(state.filled, buckets, where)
        stddev = lambda_ * jnp.expm1(growth * coverage)
        outputs = outputs + stddev[:, None].astype(outputs.dtype) * draw_normal(outputs, keys)
        now = share(filled)
        return outputs, where, CoverageState(filled, now, lambda_ * jnp.expm1(growth * now))

    return Defense(init, apply)


def buckets_of(outputs: jax.Array, bits: int, tables: int, center: bool = True) -> jax.Array:
    """Returns the buckets of representations.

    A bucket holds the vectors that lie on the same side of each of `bits` random hyperplanes
    through the origin (Charikar 2002, https://doi.org/10.1145/509907.509965). The planes are the
    same for all accounts, so that coverages compare, and a shared query fills the same bucket
    everywhere. No account stores the planes.

    Representations behind a ReLU lie in the positive orthant, most of the length along the
    diagonal, and planes through the origin leave nearly all of them on one side. With `center` the
    mean of a vector's coordinates is subtracted first. The step needs no data, so that the first
    query of an account and the thousandth are divided alike. On a small CIFAR-10 victim 2,000
    random CIFAR-10 images then fill 18 % of 2**12 buckets instead of 4 %, and 20 % if the mean
    representation of the data is subtracted.

    Args:
        outputs: float[B, D].
        bits: hyperplanes a table.
        tables: independent sets of hyperplanes.
        center: whether to subtract each row's mean.

    Returns:
        int32[B, tables], each in [0, 2**bits).
    """
    x = outputs.astype(jnp.float32)
    if center:
        x = x - x.mean(axis=1, keepdims=True)
    sides = jnp.matmul(x, _planes(x.shape[1], bits * tables), precision='highest') > 0
    sides = sides.reshape(len(x), tables, bits)
    powers = 2 ** jnp.arange(bits, dtype=jnp.int32)
    return jnp.sum(sides * powers[None, None], axis=-1, dtype=jnp.int32)


def fill(filled: jax.Array, buckets: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Fills the buckets of a batch, one row after the other.

    Args:
        filled: bool[T, 2**bits].
        buckets: int32[B, T].
        where: bool[B], the rows that count.

    Returns:
        The share of filled buckets after each row, float32[B], and the new `filled`.
    """
    rows, table = jnp.arange(len(buckets)), jnp.arange(len(filled))
    number = jnp.where(where, rows, len(rows))
    first = jnp.full(filled.shape, len(rows)).at[table, buckets].min(number[:, None])
    new = ~filled[table, buckets] & (first[table, buckets] == number[:, None]) & where[:, None]
    count = jnp.sum(filled, dtype=jnp.int32) + jnp.cumsum(new.sum(axis=1, dtype=jnp.int32))
    return count.astype(jnp.float32) / filled.size, filled | (first < len(rows))


def share(filled: jax.Array) -> jax.Array:
    """Computes the share of filled buckets, float32[], of `filled` bool[T, 2**bits]."""
    return jnp.sum(filled, dtype=jnp.int32).astype(jnp.float32) / filled.size


@functools.lru_cache(maxsize=8)
def _planes(dim: int, number: int) -> np.ndarray:
    """Draws the normals of `number` hyperplanes, float32[dim, number]."""
    return np.random.default_rng(0).standard_normal((dim, number), dtype=np.float32)
