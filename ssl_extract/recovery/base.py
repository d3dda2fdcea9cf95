"""The types and the registry of recoveries."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ssl_extract import augment
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

# The traits of a recovery.
# needs: 'shadow', the attacker's encoder.
# same_width: whether the shadow must be as wide as the answers.
# adaptive: whether the recovery acts against a defense.
RECOVERIES = Registry(
    'recovery', choices={'needs': ('shadow',)}, needs=(), same_width=False, adaptive=True
)
register = RECOVERIES.register


class Received(NamedTuple):
    """The answers that an account received.

    Attributes:
        inputs: [N, ...] as stored, the asked inputs.
        answers: float32 [N, m, D], to m views of each input; zeros where there is no answer.
        answered: bool [N, m].
    """

    inputs: np.ndarray
    answers: np.ndarray
    answered: np.ndarray


class Shadow(NamedTuple):
    """The attacker's shadow encoder and seed, which hold nothing of the victim.

    Attributes:
        represent: stored [M, ...] -> float32 [M, R], an encoder that the attacker trained without
            the victim. The first call may train the encoder, so that a recovery without calls costs
            no training.
        seed: of the attack.
        decode: stored [M, ...] -> [M, ...], the inputs as encoders and defenses see them.
    """

    represent: Callable[[np.ndarray], np.ndarray]
    seed: int
    decode: Callable[[jax.Array], jax.Array] = augment.to_float


Recover = Callable[[Received, Shadow], Received]


def make(spec: str) -> Recover:
    """Makes the recovery that `spec` names, applied from left to right; `''` does nothing.

    >>> received = Received(None, np.array([[[1.0]], [[2.0]], [[99.0]]]), np.ones((3, 1), bool))
    >>> make('drop_outliers(z=6.0)')(received, None).answered.ravel().tolist()
    [True, True, False]

    Raises:
        UserError: a part of the chain is unknown or has an argument that does not fit.
    """
    names, all_traits = RECOVERIES.names(spec), RECOVERIES.traits_of_chain(spec)
    parts = list(zip(names, RECOVERIES.make_all(spec), all_traits, strict=True))

    def recover(received: Received, shadow: Shadow) -> Received:
        for name, part, traits in parts:
            declared = 'shadow' in traits.needs
            received = part(received, shadow if declared else _undeclared(name, shadow))
            if not np.isfinite(received.answers).all():
                raise UserError(
                    f'attack.recover={spec!r}: {name} makes answers that are not finite: leave it '
                    'out, or change its arguments'
                )
        return received

    return recover


def needs(spec: str) -> frozenset[str]:
    """Returns the needs of a chain: 'shadow', an encoder that the attacker trained.

    >>> make('harden') and sorted(needs('harden'))
    []
    """
    return RECOVERIES.needs(spec)


def same_width(spec: str) -> bool:
    """Returns whether a part of a chain needs a shadow as wide as the answers."""
    return any(traits.same_width for traits in RECOVERIES.traits_of_chain(spec))


def answered_rows(received: Received, least: int, name: str) -> np.ndarray:
    """Returns the received answers, float32 [K, D].

    Args:
        received: of an account.
        least: the number of answers that the recovery needs.
        name: of the recovery, for an error message.

    Raises:
        UserError: there are fewer than `least` answers.
    """
    rows = received.answers[received.answered]
    if len(rows) < least:
        raise UserError(
            f'attack.recover={name}: needs at least {least} answers, got {len(rows)}: raise '
            f'attack.budget, or leave it out'
        )
    return rows


def _undeclared(name: str, shadow: Shadow | None) -> Shadow | None:
    """Makes the shadow for a recovery that declared no need; a call of the encoder is an error."""

    def represent(inputs: np.ndarray) -> np.ndarray:
        raise UserError(
            f"recovery {name!r} learns from the attacker's own encoder and does not say so: "
            "register it with needs=('shadow',)"
        )

    return shadow and shadow._replace(represent=represent)


def replaced(received: Received, rows: np.ndarray) -> Received:
    """Returns `received` with `rows` [K, D] in place of the K answers."""
    answers = np.zeros((*received.answers.shape[:2], rows.shape[-1]), np.float32)
    answers[received.answered] = rows
    return received._replace(answers=answers)
