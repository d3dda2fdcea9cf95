"""Pairs of perturbed and clean representations, to learn from."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from ssl_extract import augment, defenses
from ssl_extract.errors import UserError

_BLOCK = 256  # representations that are defended at a time


class Pairs(NamedTuple):
    """The attacker's representations behind a defense, float32 [K, D], and without it."""

    perturbed: np.ndarray
    clean: np.ndarray


def perturb(spec: str, clean: np.ndarray, images: np.ndarray, seed: int) -> Pairs:
    """Sends representations through a defense, as one new account; refused ones are left out.

    Args:
        spec: a defense, as of `defenses.make`.
        clean: float32 [N, D].
        images: uint8 [N, H, W, 3], their images.
        seed: of the account.

    Raises:
        UserError: the defense does not fit.
    """
    init, apply = _compiled(spec)
    key = jax.random.key(seed)
    shapes = jnp.zeros((_BLOCK, clean.shape[1])), jnp.zeros((_BLOCK, *images.shape[1:]))
    state = init(key, *shapes)
    got, kept = [], []
    for start in range(0, len(clean), _BLOCK):
        rows = slice(start, start + _BLOCK)
        where = np.arange(_BLOCK) < len(clean[rows])
        sent, inputs = (
            np.pad(x[rows], [(0, _BLOCK - len(x[rows]))] + [(0, 0)] * (x.ndim - 1))
            for x in (clean.astype(np.float32), images)
        )
        outputs, answered, state = apply(key, start, sent, inputs, where, state)
        got.append(np.asarray(outputs)[where])
        kept.append(np.asarray(answered)[where])
    perturbed, kept = np.concatenate(got), np.concatenate(kept)
    return Pairs(perturbed[kept], clean[kept])


def check_width(spec: str) -> None:
    """Raises UserError if a defense is unknown, needs its owner, or changes the width."""
    width, images = 2**14, jnp.zeros((1, 8, 8, 3))  # traced only
    defense = defenses.make(spec)

    def defend(key, outputs):
        given = dict(inputs=images, where=jnp.ones(1, bool), keys=jax.random.split(key, 1))
        return defense.apply(outputs, defense.init(key, outputs, images), **given)[0]

    shape = jax.eval_shape(defend, jax.random.key(0), jnp.zeros((1, width))).shape
    if shape[1] != width:
        raise UserError(f'{spec} changes the width of the answers, which cannot be undone')


@functools.lru_cache(maxsize=64)
def _compiled(spec: str) -> tuple[Callable, Callable]:
    defense = defenses.make(spec)

    @jax.jit
    def apply(key, start, outputs, images, where, state):
        keys = jax.vmap(lambda row: jax.random.fold_in(key, start + row))(jnp.arange(_BLOCK))
        return defense.apply(
            outputs, state, inputs=augment.to_float(images), where=where, keys=keys
        )

    return defense.init, apply


def variants(own: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    """`own` [N, D], and `number - 1` stand-ins for other encoders, of the same spread.

    Their coordinates are multiplied by random factors, and up to four spreads are added to half of
    them: encoders differ in how unequal their coordinates are and in how often these are zero.
    """
    rng, unit, made = np.random.default_rng((seed, 7)), spread(own), [own]
    for _ in range(number - 1):
        varied = own * np.exp(rng.normal(scale=0.5, size=own.shape[1]))
        varied *= unit / max(spread(varied), 1e-12)
        raised = rng.integers(2, size=own.shape[1]) * rng.uniform(size=own.shape[1])
        made.append(varied + rng.uniform(0, 4) * unit * raised)
    return made


def spread(rows: np.ndarray) -> float:
    """Root mean square deviation of [K, D] from the coordinates' means."""
    return float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean()))


def scale(spec: str, own: np.ndarray, images: np.ndarray, target: float, seed: int) -> float:
    """The factor by which to multiply `own` so that the defended rows have the spread `target`.

    Two encoders differ in their scale, and noise or rounding act in absolute units: at this scale
    they do to the attacker's representations what they did to the victim's. Only the scale is
    matched: a shift would move the zeros of a ReLU. Where no factor does it (`normalize`), it is
    the one that gives `own` that spread.
    """
    few = slice(0, _BLOCK)
    start = target / max(spread(own), 1e-12)

    def excess(power: float) -> float:
        clean = (own[few] * (start * math.exp(power))).astype(np.float32)
        return math.log(
            max(spread(perturb(spec, clean, images[few], seed).perturbed), 1e-12) / target
        )

    low, high = -7.0, 7.0
    if excess(low) * excess(high) >= 0:
        return start
    return start * math.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-2))
