"""DynaMarks: a watermark in a classifier's posteriors.

The idea is that of DynaMarks (https://arxiv.org/abs/2207.13321): the service changes the scores of
its answers by secret parameters, and trains nothing anew. The rule and the test are a choice of
this project, not the paper's:

*   The secret, drawn from the service's `key`: a vector w, and a sign c_k for each class, one half
    +1 and the other -1 (with an odd number, one class has 0), paired off plus with minus.
*   An image x has a signal s(x) = tanh <w, v(x)> in (-1, 1), where v(x) are the differences between
    neighboring cells of the image shrunk to 4 x 4, scaled to norm 1. The signal is smooth, so that
    a surrogate learns it. Differences are used because natural images differ most in the average.
    For any image <w, v> ~ N(0, 1), because w is Gaussian and v of norm 1; no data is needed.
*   Posteriors p are tilted to p_k exp(strength s(x) c_k), renormalized, as far as the most probable
    class stays the same: the accuracy is unchanged.
*   Labels cannot be tilted. A label with c s(x) < 0 becomes the partner of its class, with
    probability `rate |s(x)|`.

`verify` tests a suspect for the secret.
"""

import functools
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.checks import check_whole
from ssl_extract.defenses.base import Defense, register
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import image_keys
from ssl_extract.ranges import NotNegative, Range, Share

CELLS = 4  # the image is shrunk to CELLS x CELLS
FLAT = 1e-3  # norm of the differences below which an image has next to no signal
KEPT_LEAD = 0.9  # share of the first class's lead that a tilt may take away
LEAST_PROBABILITY = 1e-3  # smaller probabilities count as this in `verify`
NUM_DECOYS = 9_999
FOR_DECOYS = 2**31  # folded into the key; the first numbers are the splits of the key
EPSILON = 1e-12
MAX_KEY = 2**32 - 1


class DynamarksState(NamedTuple):
    """The counter of an account.

    Attributes:
        num_flipped: int32[], the labels that were answered with another class.
    """

    num_flipped: jax.Array


class Secret(NamedTuple):
    """The secret of the service.

    Attributes:
        direction: f32 `[C * 2 * CELLS * (CELLS - 1)]`, w.
        signs: f32 `[K]`, c.
        partner: int32 `[K]`, the class of the other sign that a class is exchanged for.
        salt: key[], of the draws.
    """

    direction: jax.Array
    signs: jax.Array
    partner: jax.Array
    salt: jax.Array


class Verification(NamedTuple):
    """The evidence of a mark in a suspect.

    Attributes:
        statistic: the partial correlation, in [-1, 1], of the suspect's tilt with the signal.
        p_value: the probability of a statistic at least as large if the suspect never saw the
            marked answers.
    """

    statistic: float
    p_value: float


@register(
    'dynamarks',
    not_after=(
        *('gaussian_noise', 'round', 'replace', 'normalize', 'top_k'),
        *('binarize', 'orthogonal', 'affine', 'pad_shuffle', 'dynamarks'),
    ),
    because='it marks probabilities that sum to 1, once',
    endpoints=('posteriors', 'labels'),
    verify=lambda key, **_: functools.partial(verify, key=key),
)
def dynamarks(
    key: Annotated[int, Range(0, MAX_KEY)] = 0, strength: NotNegative = 1.0, rate: Share = 0.2
) -> Defense:
    """Marks the answers of a classifier, by the rule at the top of this file.

    The secret is that of the service and not of the account: accounts that collude get one mark,
    and their surrogates too. The same image is answered alike, so that asking again averages
    nothing away. A posterior that is 0 but for one class counts as a label.

    Marked posteriors lose calibration: each log-odds moves by at most `2 * strength`. Marked labels
    lose accuracy: about `rate / 4` of the labels are changed (E |tanh N(0, 1)| is 0.56, and half of
    the labels have the sign in question). The mark in labels is much weaker than the mark in
    posteriors. An attacker whose augmentation changes the signal (mirroring, large crops) learns
    less of the mark.

    >>> defense = dynamarks(key=3, strength=0.5)
    >>> state = defense.init(jax.random.key(0), jnp.zeros((1, 10)), jnp.zeros((1, 8, 8, 3)))
    >>> int(state.num_flipped)
    0

    Args:
        key: the secret, as a number; do not publish it.
        strength: the largest move of a log-probability, in nats.
        rate: the largest probability of changing a label, in [0, 1].

    Raises:
        UserError: an argument has a wrong value; or, in `init`, the inputs are no images.
    """

    def init(account_key, outputs, inputs):
        _check_images(inputs)
        return DynamarksState(jnp.zeros([], jnp.int32))

    def apply(outputs, state, *, inputs, where, keys):
        secret = draw_secret(jax.random.key(key), outputs.shape[-1], inputs.shape[-1])
        signal = _signal(_differences(inputs), secret.direction)
        is_label = jnp.sum(outputs != 0, axis=-1) == 1
        against = -signal * secret.signs[jnp.argmax(outputs, axis=-1)]
        flipped = is_label & (_uniform(secret.salt, inputs) < rate * against)
        tilted = _tilt(outputs, signal, secret.signs, strength)
        marked = jnp.where(is_label[:, None], outputs, tilted)
        marked = jnp.where(flipped[:, None], outputs[:, secret.partner], marked)
        num_flipped = state.num_flipped + jnp.sum(flipped & where, dtype=jnp.int32)
        return marked, where, DynamarksState(num_flipped)

    return Defense(init, apply)


def draw_secret(key: jax.Array, num_classes: int, channels: int) -> Secret:
    """Draws the secret of a service with `num_classes` classes and images of `channels`."""
    for_direction, for_order, salt = jax.random.split(key, 3)
    direction = jax.random.normal(for_direction, (channels * 2 * CELLS * (CELLS - 1),))
    order = jax.random.permutation(for_order, num_classes)
    place = jnp.arange(num_classes)
    paired = place < num_classes // 2 * 2
    signs = jnp.zeros(num_classes).at[order].set(jnp.where(paired, 1.0 - 2.0 * (place % 2), 0.0))
    partner = jnp.zeros_like(order).at[order].set(order[jnp.where(paired, place ^ 1, place)])
    return Secret(direction, signs, partner, salt)


def verify(
    suspect: np.ndarray,
    victim: np.ndarray,
    images: np.ndarray,
    *,
    key: int,
    num_decoys: int = NUM_DECOYS,
) -> Verification:
    """Tests whether a suspect carries the mark of `dynamarks(key=key)`; one-sided.

    A model's tilt on an image is `sum_k c_k log q_k`, with q at least 1e-3, since no surrogate
    learns smaller probabilities. The statistic is the correlation of the suspect's tilt with the
    signal over the images, after a regression of both on the tilt of the victim without the mark:
    the classes correlate with the signal far more than a mark does. The statistic is compared with
    those of `num_decoys` other secrets, drawn as the true secret was. To a suspect that never saw a
    marked answer all secrets are alike, whatever the images and the classes, so that

        p = (1 + number of decoys with a statistic at least as large) / (1 + num_decoys)

    is at most alpha with probability at most alpha over the draw of the key, exactly, as in a
    permutation test (Phipson and Smyth, https://arxiv.org/abs/1603.05766). The probability is over
    the key: innocent models that resemble each other get similar p-values under one key, so that
    an owner with an innocent model can reject an unlucky key before using it.

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
    _check_images(images)
    for name, values in (('suspect', suspect), ('victim', victim)):
        _check_probabilities(name, values, np.shape(victim), len(images))
    secret = jax.random.key(key)
    decoys = jax.random.split(jax.random.fold_in(secret, FOR_DECOYS), num_decoys)
    keys = jnp.concatenate([secret[None], decoys])
    statistics = np.asarray(_statistics(*map(jnp.asarray, (suspect, victim, images)), keys))
    at_least = np.sum(statistics[1:] >= statistics[0])
    return Verification(float(statistics[0]), float((1 + at_least) / (1 + num_decoys)))


@jax.jit
def _statistics(suspect, victim, images, keys) -> jax.Array:
    """Computes the statistic under the secret of each key: f32 [len(keys)]."""
    suspect, victim = (jnp.log(jnp.maximum(q, LEAST_PROBABILITY)) for q in (suspect, victim))
    suspect, victim = (q.astype(jnp.float32) for q in (suspect, victim))
    differences = _differences(images)

    def statistic(key):
        secret = draw_secret(key, suspect.shape[-1], images.shape[-1])
        tilt, unmarked, signal = (
            values - jnp.mean(values)
            for values in (
                suspect @ secret.signs,
                victim @ secret.signs,
                _signal(differences, secret.direction),
            )
        )
        unit = unmarked / jnp.maximum(jnp.linalg.norm(unmarked), EPSILON)
        tilt, signal = (values - jnp.vdot(unit, values) * unit for values in (tilt, signal))
        norms = jnp.linalg.norm(tilt) * jnp.linalg.norm(signal)
        return jnp.vdot(tilt, signal) / jnp.maximum(norms, EPSILON)

    return jax.lax.map(statistic, keys, batch_size=50)


def _differences(images: jax.Array) -> jax.Array:
    """Computes v(x), the differences of neighboring cells: `[B, C * 2 * CELLS * (CELLS - 1)]`."""
    batch, _, _, channels = images.shape
    shape = (batch, CELLS, CELLS, channels)
    cells = jax.image.resize(images.astype(jnp.float32), shape, 'linear', antialias=True)
    down, right = (jnp.diff(cells, axis=axis).reshape(batch, -1) for axis in (1, 2))
    values = jnp.concatenate([down, right], axis=1)
    return values / jnp.maximum(jnp.linalg.norm(values, axis=1, keepdims=True), FLAT)


def _signal(differences: jax.Array, direction: jax.Array) -> jax.Array:
    """Computes s(x), `[B]`, in [-1, 1], by a sum a row, which does not depend on the batch."""
    return jnp.tanh(jnp.sum(differences * direction[None], axis=-1))


def _tilt(outputs: jax.Array, signal: jax.Array, signs: jax.Array, strength: float) -> jax.Array:
    """Tilts p_k to p_k exp(strength s c_k), with as much strength as keeps the first class."""
    logs = jnp.log(jnp.maximum(outputs, jnp.finfo(outputs.dtype).tiny))
    top = jnp.argmax(outputs, axis=-1)
    lead = jnp.max(logs, axis=-1, keepdims=True) - logs
    tilt = strength * signal[:, None] * signs[None]
    gain = tilt - jnp.take_along_axis(tilt, top[:, None], axis=-1)  # on the first class
    limits = jnp.where(gain > 0, KEPT_LEAD * lead / jnp.where(gain > 0, gain, 1), jnp.inf)
    share = jnp.minimum(jnp.min(limits, axis=-1, keepdims=True), 1)
    marked = jax.nn.softmax(logs + share * tilt)
    same = jnp.argmax(marked, axis=-1) == top  # False where a tie was broken otherwise
    return jnp.where(same[:, None], marked, outputs)


def _uniform(salt: jax.Array, images: jax.Array) -> jax.Array:
    """Draws from [0, 1) for each image [B, ...]; equal images get equal draws."""
    return jax.vmap(jax.random.uniform)(image_keys(salt, images))


def _check_images(images) -> None:
    if len(images.shape) != 4:
        raise UserError(
            'dynamarks reads its signal from images [B, H, W, C], got inputs of shape '
            f'{tuple(images.shape)}'
        )


def _check_probabilities(name: str, values, shape: tuple[int, ...], num_images: int) -> None:
    if np.ndim(values) != 2 or np.shape(values) != shape or len(values) != num_images:
        raise UserError(
            f'{name} has the shape {np.shape(values)}: suspect and victim give each of the '
            f'{num_images} images K probabilities'
        )
    values = np.asarray(values)
    if not (np.all(values >= 0) and np.allclose(np.sum(values, axis=-1), 1, atol=1e-3)):
        raise UserError(f'{name} must be probabilities, of 0 or more and with sums of 1')
