"""The types and the registry of recoveries."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

# needs: what it takes from the attacker; same_width: whether the attacker's own encoder must be as
# wide as the answers; adaptive: whether it acts against a defense.
RECOVERIES = Registry(
    'recovery', choices={'needs': ('shadow',)}, needs=(), same_width=False, adaptive=True
)
register = RECOVERIES.register


class Received(NamedTuple):
    """What an account holds after asking.

    Attributes:
        inputs: uint8 [N, H, W, 3], those asked.
        answers: float32 [N, m, D], to m views of each; zeros where there is none.
        answered: bool [N, m].
    """

    inputs: np.ndarray
    answers: np.ndarray
    answered: np.ndarray


class Shadow(NamedTuple):
    """The attacker's own means, nothing of the victim.

    Attributes:
        represent: uint8 [M, H, W, 3] -> float32 [M, R], an encoder of its own, trained without the
            victim. It may train on its first call: a recovery that needs no encoder never calls it.
        seed: of this attack.
    """

    represent: Callable[[np.ndarray], np.ndarray]
    seed: int


Recover = Callable[[Received, Shadow], Received]


def make(spec: str) -> Recover:
    """Makes the recovery that `spec` writes down, applied from left to right; `''` does nothing.

    >>> received = Received(None, np.array([[[1.0]], [[2.0]], [[99.0]]]), np.ones((3, 1), bool))
    >>> make('drop_outliers(z=6.0)')(received, None).answered.ravel().tolist()
    [True, True, False]

    Raises:
        UserError: a part of the chain is unknown or has an argument that does not fit.
    """
    names, every = RECOVERIES.names(spec), RECOVERIES.traits_of_chain(spec)
    parts = list(zip(names, RECOVERIES.make_all(spec), every, strict=True))

    def recover(received: Received, shadow: Shadow) -> Received:
        for name, part, traits in parts:
            declared = 'shadow' in traits.needs
            received = part(received, shadow if declared else _undeclared(name, shadow))
        return received

    return recover


def needs(spec: str) -> frozenset[str]:
    """Returns what the parts of a chain need: 'shadow', an encoder of the attacker's own.

    >>> make('harden') and sorted(needs('harden'))
    []
    """
    return RECOVERIES.needs(spec)


def same_width(spec: str) -> bool:
    """Returns whether a part of a chain needs a shadow as wide as the answers."""
    return any(traits.same_width for traits in RECOVERIES.traits_of_chain(spec))


def given(received: Received, least: int, name: str) -> np.ndarray:
    """The answers that came, float32 [K, D].

    Raises:
        UserError: there are fewer than the recovery `name` needs.
    """
    rows = received.answers[received.answered]
    if len(rows) < least:
        raise UserError(
            f'attack.recover={name}: needs at least {least} answers, got {len(rows)}: raise '
            f'attack.budget, or leave it out'
        )
    return rows


def _undeclared(name: str, shadow: Shadow | None) -> Shadow | None:
    """The shadow for a recovery that declared no need of its encoder."""

    def represent(images: np.ndarray) -> np.ndarray:
        raise UserError(
            f"recovery {name!r} learns from the attacker's own encoder and does not say so: "
            "register it with needs=('shadow',)"
        )

    return shadow and shadow._replace(represent=represent)


def replaced(received: Received, rows: np.ndarray) -> Received:
    """`received` with other answers, [K, D], where there are any."""
    answers = np.zeros((*received.answers.shape[:2], rows.shape[-1]), np.float32)
    answers[received.answered] = rows
    return received._replace(answers=answers)
