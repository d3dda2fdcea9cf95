"""The test for the mark of `dynamarks` in probabilities."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.checks import check_whole
from ssl_extract.defenses.dynamarks import (
    MAX_KEY,
    check_images,
    differences_of,
    draw_secret,
    signal_of,
)
from ssl_extract.errors import UserError
from ssl_extract.ownership import decoys
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ranges import NotNegative, Range, Share

LEAST_PROBABILITY = 1e-3  # smaller probabilities count as this in `verify`
EPSILON = 1e-12


class Verification(NamedTuple):
    """The evidence of a mark in a suspect.

    Attributes:
        statistic: the partial correlation, in [-1, 1], of the suspect's tilt with the signal.
        p_value: the probability of a statistic at least as large if the suspect never saw the
            marked answers.
    """

    statistic: float
    p_value: float


@register('dynamarks', needs=('public',), null='secrets')
def dynamarks(
    key: Annotated[int, Range(0, MAX_KEY)] = 0, strength: NotNegative = 1.0, rate: Share = 0.2
) -> Test:
    """Tests a classifier for the mark of the defense of the same name and arguments.

    See `verify`. Victim and suspect give probabilities `[N, K]` of the same K classes, the victim's
    without the mark; the public inputs are images. n is the number of images. A suspect whose
    classes are in another order, or which answers other than with probabilities, must be brought
    into form first.

    >>> test = dynamarks(key=3)

    Args:
        key: the secret of the defense.
        strength, rate: of the defense; the test does not depend on them.

    Raises:
        UserError: an argument is out of its range; in the test, see `verify`.
    """

    def test(case: Case, suspect: Represent) -> Evidence:
        found = verify(suspect(case.public), case.victim(case.public), case.public, key=key)
        return Evidence(found.statistic, len(case.public), found.p_value)

    return test


def verify(
    suspect: np.ndarray,
    victim: np.ndarray,
    images: np.ndarray,
    *,
    key: int,
    num_decoys: int = decoys.NUM_DECOYS,
) -> Verification:
    """Tests whether a suspect carries the mark of `dynamarks(key=key)`; one-sided.

    A model's tilt on an image is `sum_k c_k log q_k`, with q at least 1e-3, since no surrogate
    learns smaller probabilities. The statistic is the correlation of the suspect's tilt with the
    signal over the images, after a regression of both on the tilt of the victim without the mark:
    the classes correlate with the signal far more than a mark does. The statistic is compared with
    those of `num_decoys` other secrets: see `ownership.decoys` for what the p-value means.

    Args:
        suspect: the suspect's probabilities `[N, K]` for the images; one-hot labels will do.
        victim: the probabilities `[N, K]` of the victim, without the mark.
        images: float `[N, H, W, C]` in [0, 1], held out: none that the suspect was trained on.
        key: the secret of the defense.
        num_decoys: the number of other secrets; no p-value is below 1 / (1 + num_decoys).

    Raises:
        UserError: an argument has a wrong value, or the shapes do not fit.
    """
    check_whole('key', key, 0, MAX_KEY)
    check_whole('num_decoys', num_decoys, 1)
    check_images(images)
    for name, values in (('suspect', suspect), ('victim', victim)):
        _check_probabilities(name, values, np.shape(victim), len(images))
    keys = decoys.with_decoys(key, num_decoys)
    statistics = np.asarray(_statistics(*map(jnp.asarray, (suspect, victim, images)), keys))
    return Verification(float(statistics[0]), decoys.p_above(statistics))


@jax.jit
def _statistics(suspect, victim, images, keys) -> jax.Array:
    """Computes the statistic under the secret of each key: f32 [len(keys)]."""
    suspect, victim = (jnp.log(jnp.maximum(q, LEAST_PROBABILITY)) for q in (suspect, victim))
    suspect, victim = (q.astype(jnp.float32) for q in (suspect, victim))
    differences = differences_of(images)

    def statistic(key):
        secret = draw_secret(key, suspect.shape[-1], images.shape[-1])
        tilt, unmarked, signal = (
            values - jnp.mean(values)
            for values in (
                suspect @ secret.signs,
                victim @ secret.signs,
                signal_of(differences, secret.direction),
            )
        )
        unit = unmarked / jnp.maximum(jnp.linalg.norm(unmarked), EPSILON)
        tilt, signal = (values - jnp.vdot(unit, values) * unit for values in (tilt, signal))
        norms = jnp.linalg.norm(tilt) * jnp.linalg.norm(signal)
        return jnp.vdot(tilt, signal) / jnp.maximum(norms, EPSILON)

    return jax.lax.map(statistic, keys, batch_size=50)


def _check_probabilities(
    name: str, values: np.ndarray, shape: tuple[int, ...], num_images: int
) -> None:
    if np.ndim(values) != 2 or np.shape(values) != shape or len(values) != num_images:
        raise UserError(
            f'{name} has the shape {np.shape(values)}: suspect and victim give each of the '
            f'{num_images} images K probabilities'
        )
    values = np.asarray(values)
    if not (np.all(values >= 0) and np.allclose(np.sum(values, axis=-1), 1, atol=1e-3)):
        raise UserError(f'{name} must be probabilities, of 0 or more and with sums of 1')
