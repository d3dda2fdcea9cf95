"""Conferrable inputs, where copies follow a victim and shadows do not."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_extract.checks import check_number, check_whole
from ssl_extract.errors import UserError
from ssl_extract.ownership.alignment import Affine, fit_affine

Traced = tuple[Callable[[Any, jax.Array], jax.Array], Any]  # (apply, variables), in JAX

_SMALL = 1e-6  # a squared distance, relative to the victim's spread, that counts as none


def search_conferrable(
    victim: Traced,
    shadows: Sequence[Traced],
    copies: Sequence[Traced],
    public: np.ndarray,
    *,
    num_probes: int = 128,
    radius: float = 8 / 255,
    steps: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Searches near public inputs for some where shadows leave the victim and copies stay with it.

    An encoder's distance to the victim is that of its representation, mapped affinely to the
    victim's; the map is fitted on the public inputs. Each step compares one shadow and one copy, in
    turn, and moves each probe (by Adam) to raise log(shadow's distance / copy's distance). A probe
    stays within `radius` of a public input, and in the range of all of them.

    The idea is that of conferrable examples of classifiers (Lukas et al. 2021, arXiv 1912.00888).
    The result is for `Case.conferrable` of `shadow_score(probes="conferrable")`. The shadows that
    take part here should not be those of the case: the search moves its own shadows further than
    others, and a suspect that is independent would look like a copy. A p-value over such shadows is
    wrong. The copies must not be among the suspects.

    >>> apply = lambda weights, x: jnp.tanh(x @ weights)
    >>> draw = lambda seed: np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    >>> encoders = [[(apply, draw(seed) + shift)] for seed, shift in [(1, 0.0), (0, 0.01)]]
    >>> search_conferrable((apply, draw(0)), *encoders, np.eye(4), num_probes=2, steps=2).shape
    (2, 4)

    Args:
        victim: `(apply, variables)`, for an `Encoder` `(encoder.network.apply, encoder.variables)`.
            `apply` is differentiable in the inputs and treats them independently.
        shadows: encoders of the victim's recipe, trained on other inputs; those of the same `apply`
            share one compiled step.
        copies: encoders that the owner stole from the victim.
        public: float [M, ...], decoded; more than the victim is wide, so that the maps are known.
        num_probes: the number P of public inputs that are moved, all at once.
        radius: the largest change of a value, in the unit of the inputs.
        steps: of the search; at least as many as there are shadows.
        seed: of the choice of inputs and of the starts within the radius.

    Returns:
        float32 [P, ...].

    Raises:
        UserError: a kind of encoder is missing, there are too few inputs or steps, or an encoder
            gives numbers that are not finite.
    """
    inputs = jnp.asarray(public, jnp.float32)
    _check(shadows, copies, len(inputs), num_probes, radius, steps)
    target = _rows(victim, inputs)
    scale = float(np.sqrt(np.mean(np.var(target, axis=0)))) or 1.0
    kinds = [[_aligned(e, inputs, target) for e in encoders] for encoders in (shadows, copies)]
    rng = np.random.default_rng(seed)
    centers = inputs[rng.choice(len(inputs), num_probes, replace=False)]
    low, high = jnp.min(inputs), jnp.max(inputs)
    bounds = jnp.maximum(centers - radius, low), jnp.minimum(centers + radius, high)
    probes = jnp.asarray(rng.uniform(*bounds), jnp.float32)
    state = _adam(radius).init(probes)
    for number in range(steps):
        pair = [encoders[number % len(encoders)] for encoders in kinds]
        applies = victim[0], *(apply for apply, _ in pair)
        variables = victim[1], *(aligned for _, aligned in pair)
        probes, state = _step(applies, variables, probes, state, bounds, scale, radius)
    return np.asarray(probes)


def _adam(radius: float) -> optax.GradientTransformation:
    return optax.adam(radius / 10)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _step(
    applies: tuple[Callable, ...],
    variables: tuple[Any, ...],
    probes: jax.Array,
    state: optax.OptState,
    bounds: tuple[jax.Array, jax.Array],
    scale: float,
    radius: float,
) -> tuple[jax.Array, optax.OptState]:
    """Moves the probes once, against one shadow and one copy."""

    def loss(probes: jax.Array) -> jax.Array:
        rows = applies[0](variables[0], probes)
        logs = []
        for apply, (own, affine) in zip(applies[1:], variables[1:], strict=True):
            gap = (affine(apply(own, probes)) - rows) / scale
            logs.append(jnp.log(jnp.mean(jnp.square(gap), axis=1) + _SMALL))
        return jnp.sum(logs[1] - logs[0])

    updates, state = _adam(radius).update(jax.grad(loss)(probes), state)
    return jnp.clip(optax.apply_updates(probes, updates), *bounds), state


@functools.partial(jax.jit, static_argnums=0)
def _forward(apply: Callable, variables: Any, inputs: jax.Array) -> jax.Array:
    return apply(variables, inputs)


def _rows(encoder: Traced, inputs: jax.Array) -> np.ndarray:
    rows = np.asarray(_forward(*encoder, inputs))
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise UserError(
            f'an encoder gives {list(rows.shape)}, or numbers that are not finite: give encoders '
            'of finite [N, D]'
        )
    return rows


def _aligned(
    encoder: Traced, inputs: jax.Array, target: np.ndarray
) -> tuple[Callable, tuple[Any, Affine]]:
    """Returns `apply` of an encoder, and its variables with the map to the victim's rows."""
    affine = fit_affine(_rows(encoder, inputs), target)
    return encoder[0], (encoder[1], Affine(*(jnp.asarray(part, jnp.float32) for part in affine)))


def _check(
    shadows: Sequence[Traced],
    copies: Sequence[Traced],
    available: int,
    num_probes: int,
    radius: float,
    steps: int,
) -> None:
    for name, encoders in (('shadow', shadows), ('copy', copies)):
        if not encoders:
            raise UserError(f'the search of conferrable inputs needs a {name}: give one or more')
    check_whole('num_probes', num_probes, 1)
    if num_probes > available:
        raise UserError(f'num_probes={num_probes} is more than the {available} public inputs')
    check_number('radius', radius, above=0)
    if steps < max(len(shadows), len(copies)):
        raise UserError(
            f'steps={steps} leave out some of {len(shadows)} shadows and {len(copies)} copies: '
            'write more'
        )
