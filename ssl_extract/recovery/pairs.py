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

_BLOCK = 256  # representations sent through a defense at a time


class Pairs(NamedTuple):
    """The attacker's representations with and without a defense, float32 [K, D] each."""

    perturbed: np.ndarray
    clean: np.ndarray


def perturb(spec: str, clean: np.ndarray, images: np.ndarray, seed: int) -> Pairs:
    """Sends representations through a defense, as one new account; refused rows are left out.

    Args:
        spec: a defense, as of `defenses.make`.
        clean: float32 [N, D].
        images: uint8 [N, H, W, 3], the images of the representations.
        seed: of the account.

    Raises:
        UserError: the defense does not fit.
    """
    init, apply = _compiled(spec)
    key = jax.random.key(seed)
    shapes = jnp.zeros((_BLOCK, clean.shape[1])), jnp.zeros((_BLOCK, *images.shape[1:]))
    state = init(key, *shapes)
    outputs_blocks, answered_blocks = [], []
    for start in range(0, len(clean), _BLOCK):
        rows = slice(start, start + _BLOCK)
        where = np.arange(_BLOCK) < len(clean[rows])
        sent, inputs = (
            np.pad(x[rows], [(0, _BLOCK - len(x[rows]))] + [(0, 0)] * (x.ndim - 1))
            for x in (clean.astype(np.float32), images)
        )
        outputs, answered, state = apply(key, start, sent, inputs, where, state)
        outputs_blocks.append(np.asarray(outputs)[where])
        answered_blocks.append(np.asarray(answered)[where])
    perturbed, rows = np.concatenate(outputs_blocks), np.concatenate(answered_blocks)
    return Pairs(perturbed[rows], clean[rows])


def check_width(spec: str) -> None:
    """Raises UserError if a defense is unknown, needs the victim's owner, or changes the width."""
    width, images = 2**14, jnp.zeros((1, 8, 8, 3))  # traced only
    defense = defenses.make(spec)

    def defend(key, outputs):
        query = dict(inputs=images, where=jnp.ones(1, bool), keys=jax.random.split(key, 1))
        return defense.apply(outputs, defense.init(key, outputs, images), **query)[0]

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


def variants(clean: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    """Makes stand-ins for the representations of other encoders, of the same spread.

    The coordinates are multiplied by random factors, and up to four spreads are added to half of
    the coordinates: encoders differ in how unequal the coordinates are, and in the share of zeros.

    Args:
        clean: float [N, D], the representations of the attacker's encoder.
        number: of representations to return.
        seed: of the factors.

    Returns:
        `clean` and `number - 1` variants.
    """
    rng, unit, variants = np.random.default_rng((seed, 7)), spread(clean), [clean]
    for _ in range(number - 1):
        varied = clean * np.exp(rng.normal(scale=0.5, size=clean.shape[1]))
        varied *= unit / (spread(varied) or 1.0)
        raised = rng.integers(2, size=clean.shape[1]) * rng.uniform(size=clean.shape[1])
        variants.append(varied + rng.uniform(0, 4) * unit * raised)
    return variants


def spread(rows: np.ndarray) -> float:
    """Computes the root mean square deviation of rows [K, D] from the coordinates' means."""
    return float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean()))


def scale(spec: str, clean: np.ndarray, images: np.ndarray, target: float, seed: int) -> float:
    """Finds the factor for `clean` with which the defended rows have the spread `target`.

    Two encoders differ in scale, and noise or rounding act in absolute units. At the returned scale
    a defense changes the attacker's representations as much as the victim's. Only the scale is
    matched: a shift would move the zeros of a ReLU. Where no factor exists (`normalize`), the
    returned factor gives `clean` the spread `target`.

    Args:
        spec: a defense, as of `defenses.make`.
        clean: float32 [N, D], the representations of the attacker's encoder.
        images: uint8 [N, H, W, 3], the images of the representations.
        target: the spread of the received answers.
        seed: of the account.
    """
    few = slice(0, _BLOCK)
    start = target / (spread(clean) or 1.0)

    def excess(power: float) -> float:
        scaled = (clean[few] * (start * math.exp(power))).astype(np.float32)
        return math.log(
            max(spread(perturb(spec, scaled, images[few], seed).perturbed) / target, 1e-12)
        )

    low, high = -7.0, 7.0
    if excess(low) * excess(high) >= 0:
        return start
    return start * math.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-2))
