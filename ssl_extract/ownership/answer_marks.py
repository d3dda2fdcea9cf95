"""Tests for the marks of `region_mark` and `espew` in representations.

Both marks are functions of a clean representation and a secret, so that the owner knows by how much
the service moved, or would have moved, each public input's answer. The statistic asks whether the
suspect moved alike:

*   The suspect's representations are mapped onto the victim's clean ones by translation, one scale
    and the closest orthogonal map (Procrustes; Schoenemann 1966). So a suspect that was rotated,
    permuted, padded with constants, scaled or shifted gives the same statistic, and one of
    another D gives one too. A map with more freedom, such as an affine map, would fit the mark
    away. A suspect that was mapped linearly, in another way, keeps less of the mark.
*   The statistic is the correlation, over all inputs and coordinates, of suspect minus victim with
    the moves of the mark, both about their means over the inputs.

Nothing is known of the suspect's training: a suspect that learned little from the answers, or from
few of them, keeps little of the mark. See `ownership.decoys` for what the p-value means.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.defenses import espew as smallest_coordinates
from ssl_extract.defenses import region_mark as regions
from ssl_extract.errors import UserError
from ssl_extract.numerics import lengths
from ssl_extract.ownership import decoys
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ranges import Share, Whole

BLOCK = 500  # secrets in one compiled call
# (gap [N, D], clean [N, D]) -> secret -> (<moves, gap>, the moves' sum [D], their sum of squares).
# The moves of all inputs under thousands of secrets are never made: these sums need products only.
Sums = Callable[[jax.Array, jax.Array], Callable[[jax.Array], tuple[jax.Array, ...]]]


@register('region_mark', needs=('public',), null='secrets')
def region_mark(
    key: Whole = 0,
    bits: regions.Bits = 4,
    rate: regions.SomeShare = 0.25,
    strength: Share = 0.2,
) -> Test:
    """Tests an encoder for the mark of the defense of the same name and arguments.

    See the top of this file. n is the number of public inputs. A key whose marked regions hold
    none of the public inputs has nothing to compare: its statistic is 0.

    >>> test = region_mark(key=3, bits=4)

    Args:
        key, bits, rate: of the defense.
        strength: of the defense; the test does not depend on it.

    Raises:
        UserError: an argument is out of its range; in the test, see `search`.
    """
    return _test_of(key, region_sums(bits, rate))


@register('espew', needs=('public',), null='secrets')
def espew(key: Whole = 0, rate: smallest_coordinates.SomeShare = 0.25) -> Test:
    """Tests an encoder for the mark of the defense of the same name and arguments.

    See the top of this file. n is the number of public inputs.

    >>> test = espew(key=3)

    Args:
        key, rate: of the defense.

    Raises:
        UserError: an argument is out of its range; in the test, see `search`.
    """
    return _test_of(key, espew_sums(rate))


def search(suspect: np.ndarray, victim: np.ndarray, sums: Sums, secrets: jax.Array) -> np.ndarray:
    """Computes the statistic of a mark under each secret, float32 [S]; see the top of this file.

    Args:
        suspect: float [N, E], the suspect's representations of N inputs.
        victim: float [N, D], the victim's of the same inputs, without the mark.
        sums: of the mark.
        secrets: key[S].

    Raises:
        UserError: the numbers of rows differ, or all representations of one side are alike.
    """
    if len(suspect) != len(victim):
        raise UserError(
            f'the suspect represents {len(suspect)} inputs and the victim {len(victim)}: give both '
            'the same inputs'
        )
    gap = _aligned(suspect, victim) - _centered(victim, 'victim')
    unit = np.abs(victim).max()  # no mark depends on it, and squares stay within float32
    gap, clean = (jnp.asarray(rows / unit, jnp.float32) for rows in (gap, victim))
    starts = range(0, len(secrets), BLOCK)
    blocks = [_correlations(gap, clean, secrets[i : i + BLOCK], sums) for i in starts]
    return np.concatenate(blocks)


@functools.cache
def region_sums(bits: int, rate: float) -> Sums:
    """Returns the sums over the moves `marked (|v| t - v)` of `region_mark`, for `search`."""

    def of(gap: jax.Array, clean: jax.Array) -> Callable:
        length, along = lengths(clean)[:, 0], jnp.sum(gap * clean, axis=1)

        def sums(secret: jax.Array) -> tuple[jax.Array, ...]:
            drawn = regions.draw_secret(secret, clean.shape[1], bits, rate)
            weight = regions.lies_in(clean, drawn).astype(jnp.float32)
            inner = jnp.vdot(weight, length * (gap @ drawn.direction) - along)
            total = jnp.vdot(weight, length) * drawn.direction - weight @ clean
            squares = 2 * length * (length - clean @ drawn.direction)
            return inner, total, jnp.vdot(weight, squares)

        return sums

    return of


@functools.cache
def espew_sums(rate: float) -> Sums:
    """Returns the sums over the moves `small (code level - v)` of `espew`, for `search`."""

    def of(gap: jax.Array, clean: jax.Array) -> Callable:
        small = smallest_coordinates.smallest(clean, rate)
        level = jnp.where(small, smallest_coordinates.level_of(clean), 0)
        old = jnp.where(small, clean, 0)
        by_code = [jnp.sum(x, axis=0) for x in (gap * level, level, level**2 - 2 * level * old)]
        without = [jnp.sum(x, axis=0) for x in (gap * old, old, old**2)]

        def sums(secret: jax.Array) -> tuple[jax.Array, ...]:
            code = smallest_coordinates.draw_code(secret, clean.shape[1])
            inner = jnp.sum(code * by_code[0] - without[0])
            return inner, code * by_code[1] - without[1], jnp.sum(code * by_code[2] + without[2])

        return sums

    return of


def _test_of(key: int, sums: Sums) -> Test:
    def test(case: Case, suspect: Represent) -> Evidence:
        secrets = decoys.with_decoys(key, decoys.NUM_DECOYS)
        found = search(suspect(case.public), case.victim(case.public), sums, secrets)
        return Evidence(float(found[0]), len(case.public), decoys.p_above(found))

    return test


def _aligned(suspect: np.ndarray, victim: np.ndarray) -> np.ndarray:
    """Maps the suspect's centered rows onto the victim's: one scale, orthogonal, float64 [N, D]."""
    rows, wanted = _centered(suspect, 'suspect'), _centered(victim, 'victim')
    left, values, right = np.linalg.svd(rows.T @ wanted, full_matrices=False)
    return values.sum() / np.sum(rows**2) * rows @ left @ right


def _centered(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if not np.any(np.ptp(rows, axis=0)):
        raise UserError(f'all representations of the {name} are alike: they hold no mark')
    return rows - rows.mean(axis=0)


@functools.partial(jax.jit, static_argnames='sums')
def _correlations(gap: jax.Array, clean: jax.Array, secrets: jax.Array, sums: Sums) -> jax.Array:
    """Computes the correlation of the gap [N, D] with the moves under each secret: f32 [S]."""
    sums_under = sums(gap, clean)

    def statistic(secret: jax.Array) -> jax.Array:
        inner, total, squares = sums_under(secret)
        centered = squares - jnp.sum(total**2) / len(clean)
        norms = jnp.linalg.norm(gap) * jnp.sqrt(jnp.maximum(centered, 0))
        moved = centered > 1e-6 * squares  # else none, or all alike
        return jnp.where(moved & (norms > 0), inner / jnp.where(norms > 0, norms, 1), 0)

    return jax.lax.map(statistic, secrets, batch_size=50)
