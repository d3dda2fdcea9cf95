"""The speaker encoder of GE2E, as Resemblyzer 0.1.4 runs it.

Wan et al. 2018, https://arxiv.org/abs/1710.10467; https://github.com/resemble-ai/Resemblyzer.

A clip is raised to -30 dBFS and cut into partials of 1.6 s, 0.77 s apart. An LSTM embeds the mel
spectrogram of each, and the clip's embedding is their mean. What Resemblyzer does before that is a
choice of the data, and is left out here: it resamples clips and cuts long silence out of them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import padding
from ssl_extract.encoders.base import WAVES, Network, from_module, register
from ssl_extract.encoders.log_mel import mel
from ssl_extract.encoders.speech import Depth
from ssl_extract.numerics import normalize
from ssl_extract.ranges import Width

RATE, N_FFT, HOP, MELS = 16_000, 400, 160, 40
LOUDNESS = 10 ** (-30 / 20)  # root mean square of the samples, -30 dBFS
PARTIAL, STEP, COVERED = 160, 77, 120  # frames: of a partial, to the next, and in the last at least


class LSTM(nn.Module):
    """The last hidden state `[N, width]` of the last layer, of `[N, T, C]`.

    The arrays have the names of `torch.nn.LSTM`, transposed, with the gates in its order and its
    initial values.
    """

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weights = [
            self.weights(i, x.shape[-1] if i == 0 else self.width) for i in range(self.depth)
        ]

        def step(states: list, inputs: jax.Array) -> tuple[list, None]:
            following = []
            for (hidden, cell), (of_inputs, of_hidden, bias) in zip(states, weights, strict=True):
                gates = inputs @ of_inputs + hidden @ of_hidden + bias[None]
                write, keep, new, read = jnp.split(gates, 4, axis=-1)
                cell = nn.sigmoid(keep) * cell + nn.sigmoid(write) * jnp.tanh(new)
                inputs = nn.sigmoid(read) * jnp.tanh(cell)
                following.append((inputs, cell))
            return following, None

        zeros = jnp.zeros((len(x), self.width), x.dtype)
        states, _ = jax.lax.scan(step, [(zeros, zeros)] * self.depth, x.swapaxes(0, 1))
        return states[-1][0]

    def weights(self, layer: int, inputs: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Makes the parameters of a layer: of its inputs, of its hidden state, and the bias."""
        bound, gates = self.width**-0.5, 4 * self.width

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        biases = [self.param(f'bias_{kind}_l{layer}', init, (gates,)) for kind in ('ih', 'hh')]
        return (
            self.param(f'weight_ih_l{layer}', init, (inputs, gates)),
            self.param(f'weight_hh_l{layer}', init, (self.width, gates)),
            sum(biases),
        )


class SpeakerEncoder(nn.Module):
    """Waveforms `[B, T]` of 16 kHz to representations `[B, dim]` of length 1."""

    width: int
    depth: int
    dim: int

    @nn.compact
    def __call__(self, waves: jax.Array, train: bool) -> jax.Array:
        del train  # nothing here behaves differently in training
        frames, where = partials(waves)
        batch, count = where.shape
        hidden = LSTM(self.width, self.depth, name='lstm')(frames.reshape(-1, PARTIAL, MELS))
        embeddings = normalize(nn.relu(nn.Dense(self.dim, name='linear')(hidden)))
        return normalize(padding.mean(embeddings.reshape(batch, count, -1), where))


def partials(waves: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cuts the mel spectrogram of clips into partials.

    >>> frames, mask = partials(jnp.zeros((1, 48000)))  # three seconds
    >>> frames.shape, mask.tolist()
    ((1, 3, 160, 40), [[True, True, True]])

    Args:
        waves: float32 `[B, T]`, 16 kHz, with -1 behind the end of a clip.

    Returns:
        Power float32 `[B, P, 160, 40]` of the clips at -30 dBFS or above, and mask bool `[B, P]`. A
        clip has its first partial, with zeros behind a short clip, and each other partial that it
        fills to three quarters.
    """
    length = waves.shape[1]
    starts = STEP * np.arange(1 + max(length // HOP - COVERED, 0) // STEP)
    behind = max((starts[-1] + PARTIAL) * HOP - length, 0)
    seen = jnp.pad(waves, ((0, 0), (0, behind)), constant_values=padding.PADDING)
    frames, _ = mel(seen, RATE, N_FFT, HOP, MELS)
    frames = (
        frames[:, starts[:, None] + np.arange(PARTIAL)] * _gain(waves)[:, None, None, None] ** 2
    )
    filled = padding.lengths(waves)[:, None] >= HOP * (starts + COVERED)[None]
    return frames, filled | (starts == 0)[None]


def _gain(waves: jax.Array) -> jax.Array:
    """Returns the factor `[B]` of at least 1 that raises clips to the loudness."""
    mask = padding.mask(waves)
    power = jnp.sum(jnp.where(mask, waves, 0.0) ** 2, axis=1) / jnp.maximum(mask.sum(axis=1), 1)
    return jnp.maximum(LOUDNESS * jax.lax.rsqrt(jnp.maximum(power, 1e-12)), 1.0)


@register('ge2e')
def ge2e(width: Width = 256, depth: Depth = 3, dim: Width = 256) -> Network:
    """Makes the speaker encoder of Wan et al. 2018 for waveforms of 16 kHz, as in Resemblyzer.

    Behind a clip below 1.6 s the LSTM reads zeros. Weights that were not trained forget the clip.

    >>> from ssl_extract import encoders
    >>> encoders.dim(ge2e(), (16000,))
    256

    Args:
        width: dimension of the hidden states of the LSTM.
        depth: layers of the LSTM.
        dim: width of the representation.

    Raises:
        UserError: an argument has a wrong value, or later the inputs are no waveforms.
    """
    return from_module(SpeakerEncoder(width, depth, dim), rank=2, takes=WAVES)
