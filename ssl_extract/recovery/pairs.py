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


def perturb(
    spec: str,
    clean: np.ndarray,
    inputs: np.ndarray,
    seed: int,
    decode: Callable[[jax.Array], jax.Array] = augment.to_float,
) -> Pairs:
    """Sends representations through a defense, as one new account; refused rows are left out.

    Args:
        spec: a defense, as of `defenses.make`.
        clean: float32 [N, D].
        inputs: [N, ...] as stored, those of the representations.
        seed: of the account.
        decode: stored inputs to what encoders see.

    Raises:
        UserError: the defense does not fit.
    """
    init, apply = _compiled(spec, decode)
    key = jax.random.key(seed)
    seen = decode(np.zeros((_BLOCK, *inputs.shape[1:]), inputs.dtype))
    state = init(key, jnp.zeros((_BLOCK, clean.shape[1])), seen)
    outputs_blocks, answered_blocks = [], []
    for start in range(0, len(clean), _BLOCK):
        rows = slice(start, start + _BLOCK)
        where = np.arange(_BLOCK) < len(clean[rows])
        sent, asked = (
            np.pad(x[rows], [(0, _BLOCK - len(x[rows]))] + [(0, 0)] * (x.ndim - 1))
            for x in (clean.astype(np.float32), inputs)
        )
        outputs, answered, state = apply(key, start, sent, asked, where, state)
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
def _compiled(spec: str, decode: Callable) -> tuple[Callable, Callable]:
    defense = defenses.make(spec)

    @jax.jit
    def apply(key, start, outputs, inputs, where, state):
        keys = jax.vmap(lambda row: jax.random.fold_in(key, start + row))(jnp.arange(_BLOCK))
        return defense.apply(outputs, state, inputs=decode(inputs), where=where, keys=keys)

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


def scale(
    spec: str,
    clean: np.ndarray,
    inputs: np.ndarray,
    target: float,
    seed: int,
    decode: Callable[[jax.Array], jax.Array] = augment.to_float,
) -> float:
    """Finds the factor for `clean` with which the defended rows have the spread `target`.

    Two encoders differ in scale, and noise or rounding act in absolute units. At the returned scale
    a defense changes the attacker's representations as much as the victim's. Only the scale is
    matched: a shift would move the zeros of a ReLU. Where no factor exists (`normalize`), the
    returned factor gives `clean` the spread `target`.

    Args:
        spec: a defense, as of `defenses.make`.
        clean: float32 [N, D], the representations of the attacker's encoder.
        inputs: [N, ...] as stored, those of the representations.
        target: the spread of the received answers.
        seed: of the account.
        decode: stored inputs to what encoders see.
    """
    few = slice(0, _BLOCK)
    start = target / (spread(clean) or 1.0)

    def excess(power: float) -> float:
        scaled = (clean[few] * (start * math.exp(power))).astype(np.float32)
        perturbed = perturb(spec, scaled, inputs[few], seed, decode).perturbed
        return math.log(max(spread(perturbed) / target, 1e-12))

    low, high = -7.0, 7.0
    if excess(low) * excess(high) >= 0:
        return start
    return start * math.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-2))
