"""DynaMarks: a watermark in a classifier's posteriors.

The idea is that of DynaMarks (https://arxiv.org/abs/2207.13321): the service changes the scores of
its answers by secret parameters, and trains nothing anew. The rule is a choice of this project, not
the paper's:

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

`ssl_extract.ownership.dynamarks` tests a suspect for the secret.
"""

import importlib
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract.defenses.base import Defense, register
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import image_keys
from ssl_extract.ranges import NotNegative, Range, Share

CELLS = 4  # the image is shrunk to CELLS x CELLS
FLAT = 1e-3  # norm of the differences below which an image has next to no signal
KEPT_LEAD = 0.9  # share of the first class's lead that a tilt may take away
MAX_KEY = 2**32 - 1


def __getattr__(name: str) -> Any:
    """Returns `verify`, which lies above this room, in `ssl_extract.ownership.dynamarks`."""
    if name == 'verify':
        return importlib.import_module('ssl_extract.ownership.dynamarks').verify
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


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


@register(
    'dynamarks',
    not_after=(
        *('gaussian_noise', 'round', 'replace', 'normalize', 'top_k'),
        *('binarize', 'orthogonal', 'affine', 'pad_shuffle', 'dynamarks'),
    ),
    because='it marks probabilities that sum to 1, once',
    endpoints=('posteriors', 'labels'),
    marks=True,
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
        check_images(inputs)
        return DynamarksState(jnp.zeros([], jnp.int32))

    def apply(outputs, state, *, inputs, where, keys):
        secret = draw_secret(jax.random.key(key), outputs.shape[-1], inputs.shape[-1])
        signal = signal_of(differences_of(inputs), secret.direction)
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


def differences_of(images: jax.Array) -> jax.Array:
    """Computes v(x) of images: f32 `[B, C * 2 * CELLS * (CELLS - 1)]`."""
    batch, _, _, channels = images.shape
    shape = (batch, CELLS, CELLS, channels)
    cells = jax.image.resize(images.astype(jnp.float32), shape, 'linear', antialias=True)
    down, right = (jnp.diff(cells, axis=axis).reshape(batch, -1) for axis in (1, 2))
    values = jnp.concatenate([down, right], axis=1)
    return values / jnp.maximum(jnp.linalg.norm(values, axis=1, keepdims=True), FLAT)


def signal_of(differences: jax.Array, direction: jax.Array) -> jax.Array:
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


def check_images(images: Any) -> None:
    """Raises UserError unless inputs (arrays or shapes) are images [B, H, W, C]."""
    if len(images.shape) != 4:
        raise UserError(
            'dynamarks reads its signal from images [B, H, W, C], got inputs of shape '
            f'{tuple(images.shape)}'
        )
