"""Suspects of known truth: copies of an encoder that hide their origin.

An obfuscation changes weights and gives an `Encoder`, or changes answers and gives a `Represent`:

    suspect = obfuscate('prune(share=0.5) | rotate | pad(count=64)', stolen, seed=3)

`rotate | scale | rotate` is any affine map. A new obfuscation is a factory:

    @suspects.register('sign')
    def sign() -> Callable: return lambda represent: lambda inputs: np.sign(represent(inputs))
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from ssl_extract import data
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.ownership.base import Represent
from ssl_extract.ownership.represented import represent_of
from ssl_extract.ranges import NotNegative, Positive, Range, Share, Whole, Width
from ssl_extract.registry import Registry, split_chain
from ssl_extract.victims.model import Victim

# The traits of an obfuscation.
# gives: 'encoder' or 'answers', an `Encoder` or a `Represent`.
# needs: 'weights' takes an `Encoder` and no function; 'inputs' are the attacker's own.
OBFUSCATIONS = Registry(
    'obfuscation',
    choices={'gives': ('encoder', 'answers'), 'needs': ('weights', 'inputs')},
    gives='answers',
    needs=(),
)
register = OBFUSCATIONS.register

Suspect = Encoder | Represent
Spread = Annotated[float, Range(1, 1e6)]


def obfuscate(
    chain: str, stolen: Suspect | Victim, *, inputs: np.ndarray | None = None, seed: int = 0
) -> Suspect:
    """Makes an obfuscated copy of an encoder; the same arguments make the same copy.

    >>> suspect = obfuscate('permute | pad(count=2)', lambda inputs: inputs)
    >>> suspect(np.ones((3, 4), np.float32)).shape
    (3, 6)

    Args:
        chain: the obfuscations, with bars between them; '' gives the encoder as it is.
        stolen: the encoder, or a function of decoded inputs.
        inputs: float32 [N, ...], decoded, of the attacker; none of the owner's private inputs.
        seed: of the draws; each part of the chain draws on its own.

    Returns:
        An `Encoder` if the last part changes weights, else a function of decoded inputs.

    Raises:
        UserError: a name or an argument is wrong, a part that changes weights stands behind one
            that changes answers, or inputs are missing.
    """
    if isinstance(stolen, Victim):
        stolen = stolen.encoder or represent_of(stolen)
    _check(chain, isinstance(stolen, Encoder), inputs is not None)
    suspect = stolen
    for place, part in enumerate(split_chain(chain, OBFUSCATIONS.kind)):
        own = int(np.random.SeedSequence((seed, place)).generate_state(1)[0] >> 1)
        change = OBFUSCATIONS.make(part, inputs=inputs, seed=own)
        weights = 'weights' in OBFUSCATIONS.traits(part).needs
        suspect = change(suspect if weights else represent_of(suspect))
    return suspect


def _check(chain: str, has_weights: bool, has_inputs: bool) -> None:
    """Checks the order and the needs of a chain before anything is made."""
    for part in split_chain(chain, OBFUSCATIONS.kind):
        gives, needs = OBFUSCATIONS.traits(part)
        if 'weights' in needs and not has_weights:
            raise UserError(
                f'obfuscation {part!r} changes weights, and there are none before it: put it '
                'before those that change answers, and give an Encoder'
            )
        if 'inputs' in needs and not has_inputs:
            raise UserError(f"obfuscation {part!r} trains: give the attacker's inputs=...")
        has_weights = gives == 'encoder'


@register('noise', gives='encoder', needs=('weights',))
def noise(scale: NotNegative = 0.05, *, seed: Whole) -> Callable[[Encoder], Encoder]:
    """Adds normal noise to each weight array; gives an `Encoder`.

    >>> encoder = Encoder('any', {'params': {'kernel': jnp.ones((300, 300))}}, (300,))
    >>> noisy = noise(scale=0.1, seed=0)(encoder).variables['params']['kernel']
    >>> round(float(noisy.mean()), 2), round(float(noisy.std()), 2)
    (1.0, 0.1)

    Args:
        scale: standard deviation of the noise, as a share of the array's root mean square.
        seed: of the noise.
    """

    def change(encoder: Encoder) -> Encoder:
        rng = np.random.default_rng(seed)

        def noised(array: np.ndarray) -> np.ndarray:
            size = np.sqrt(np.mean(np.square(array, dtype=np.float64)))
            return array + scale * size * rng.standard_normal(array.shape)

        return _with_weights(encoder, noised)

    return change


@register('prune', gives='encoder', needs=('weights',))
def prune(share: Share = 0.5) -> Callable[[Encoder], Encoder]:
    """Sets the smallest weights of each array to 0; gives an `Encoder`.

    Magnitude pruning, array by array (Han et al. 2015, arXiv 1506.02626), without training after
    it; `prune | fine_tune` trains after it, and moves the zeros.

    >>> encoder = Encoder('any', {'params': {'kernel': jnp.array([[3.0, -1.0], [2.0, 0.5]])}}, (2,))
    >>> prune(share=0.5)(encoder).variables['params']['kernel'].tolist()
    [[3.0, 0.0], [2.0, 0.0]]

    Args:
        share: of the weights of each array, rounded to whole weights.
    """

    def pruned(array: np.ndarray) -> np.ndarray:
        flat = array.flatten()
        flat[np.argsort(np.abs(flat), kind='stable')[: round(share * flat.size)]] = 0
        return flat.reshape(array.shape)

    return lambda encoder: _with_weights(encoder, pruned)


@register('quantize', gives='encoder', needs=('weights',))
def quantize(bits: Annotated[int, Range(2, 16)] = 8) -> Callable[[Encoder], Encoder]:
    """Rounds weights to the integers of a grid for each array; gives an `Encoder`.

    The grid is symmetric, and its largest integer is the array's largest weight (Jacob et al. 2017,
    arXiv 1712.05877, without their training). Activations stay float32.

    >>> encoder = Encoder('any', {'params': {'kernel': jnp.array([[3.0, -1.2], [2.4, 0.4]])}}, (2,))
    >>> quantize(bits=3)(encoder).variables['params']['kernel'].tolist()
    [[3.0, -1.0], [2.0, 0.0]]

    Args:
        bits: of a weight, its sign counted; 8 is int8.
    """

    def rounded(array: np.ndarray) -> np.ndarray:
        largest = np.abs(array).max()
        step = (largest or 1.0) / (2 ** (bits - 1) - 1)
        return np.rint(array / step) * step

    return lambda encoder: _with_weights(encoder, rounded)


@register('permute')
def permute(*, seed: Whole) -> Callable[[Represent], Represent]:
    """Permutes the coordinates; gives a `Represent`.

    >>> permute(seed=0)(lambda inputs: inputs)(np.array([[1.0, 2.0, 3.0]])).round(1).tolist()
    [[3.0, 1.0, 2.0]]

    Args:
        seed: of the order.
    """

    def permuted(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return features[:, np.random.default_rng(seed).permutation(features.shape[1])]

    return _answering(permuted)


@register('pad')
def pad(
    count: Width = 64, scale: Positive = 1.0, constant: bool = True, *, seed: Whole
) -> Callable[[Represent], Represent]:
    """Shuffles further coordinates in; gives a `Represent`.

    Constants are those of pad-and-shuffle (B4B, arXiv 2310.08571). Noise is drawn anew for each
    input, from a seed that is the hash of the input: the same input gets the same noise.

    >>> pad(count=2, seed=0)(lambda inputs: inputs)(np.ones((3, 4))).shape
    (3, 6)

    Args:
        count: number of coordinates that are added.
        scale: standard deviation of their values, in units of the representation.
        constant: whether they are the same for all inputs; False draws noise.
        seed: of values and order.
    """

    def padded(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(seed)
        order = rng.permutation(features.shape[1] + count)
        if constant:
            added = np.broadcast_to(rng.standard_normal(count), (len(features), count))
        else:
            seeds = [(seed, int(hashed, 16)) for hashed in data.hashes(inputs)]
            added = np.stack([np.random.default_rng(s).standard_normal(count) for s in seeds])
        return np.concatenate([features, scale * added], axis=1)[:, order]

    return _answering(padded)


@register('rotate')
def rotate(*, seed: Whole) -> Callable[[Represent], Represent]:
    """Multiplies by an orthogonal matrix, Haar distributed (scipy); gives a `Represent`.

    >>> turned = rotate(seed=0)(lambda inputs: inputs)(np.eye(4))
    >>> bool(np.allclose(turned @ turned.T, np.eye(4), atol=1e-6))
    True

    Args:
        seed: of the matrix.
    """

    def rotated(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return features @ scipy.stats.ortho_group.rvs(features.shape[1], random_state=seed)

    return _answering(rotated)


@register('scale')
def scale(
    spread: Spread = 4.0, shift: NotNegative = 1.0, *, seed: Whole
) -> Callable[[Represent], Represent]:
    """Multiplies each coordinate by a factor and adds an offset; gives a `Represent`.

    >>> scale(spread=1.0, shift=0.0, seed=0)(lambda inputs: inputs)(np.ones((1, 2))).tolist()
    [[1.0, 1.0]]

    Args:
        spread: factors are drawn evenly on the logarithmic scale from 1 / spread to spread.
        shift: standard deviation of the offsets, in units of the representation.
        seed: of factors and offsets.
    """

    def scaled(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(seed)
        factors = spread ** rng.uniform(-1, 1, features.shape[1])
        return features * factors + shift * rng.standard_normal(features.shape[1])

    return _answering(scaled)


def _answering(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[Represent], Represent]:
    """Makes an obfuscation of a function `(features float64 [N, D], inputs) -> features`."""

    def obfuscation(represent: Represent) -> Represent:
        def suspect(inputs: np.ndarray) -> np.ndarray:
            features = check_features(represent(inputs)).astype(np.float64)
            with np.errstate(over='ignore'):  # which the check tells
                return check_features(change(features, inputs).astype(np.float32))

        return suspect

    return obfuscation


def _with_weights(encoder: Encoder, change: Callable[[np.ndarray], np.ndarray]) -> Encoder:
    """Changes the weights: arrays of two axes or more, not biases or the arrays of norms."""

    def changed(array: jax.Array) -> jax.Array:
        array = jnp.asarray(array)
        if array.ndim < 2:
            return array
        return jax.device_put(change(np.asarray(array)).astype(array.dtype), array.sharding)

    params = jax.tree.map(changed, encoder.variables['params'])
    return encoder._replace(variables=encoder.variables | {'params': params})
