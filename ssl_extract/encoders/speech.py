"""Transformers on speech: of mel spectrograms, or of waveforms.

Strided convolutions over time, then pre-LayerNorm blocks, as in wav2vec 2.0 (Baevski et al. 2020,
https://arxiv.org/abs/2006.11477) in small, and the mean over time. Clips of different lengths share
a batch: padding is masked everywhere, and changes no output.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import padding
from ssl_extract.encoders.base import WAVES, Network, check_dtype, from_module, register
from ssl_extract.encoders.log_mel import filters, log_mel
from ssl_extract.encoders.vit import block_kind
from ssl_extract.errors import UserError
from ssl_extract.ranges import Range, Width

FRAME, HOP = 0.025, 0.01  # seconds of a frame of a mel spectrogram, and to the next
# Speech lies between silence, the logarithm of log_mel.FLOOR, and about 2.
LOG_MEL_CENTER, LOG_MEL_SCALE = -6.0, 4.0
Rate = Annotated[int, Range(1000, 384_000)]  # samples per second
Depth = Annotated[int, Range(1, 200)]


class MelFrames(nn.Module):
    """Waveforms `[B, T]` to standardized log-mel frames `[B, F, mels]` and a mask `[B, F]`."""

    rate: int
    n_fft: int
    hop: int
    mels: int

    def __call__(self, waves: jax.Array) -> tuple[jax.Array, jax.Array]:
        frames, mask = log_mel(waves, self.rate, self.n_fft, self.hop, self.mels)
        return (frames - LOG_MEL_CENTER) / LOG_MEL_SCALE, mask


class Samples(nn.Module):
    """Waveforms `[B, T]` to samples `[B, T, 1]` and a mask `[B, T]`."""

    def __call__(self, waves: jax.Array) -> tuple[jax.Array, jax.Array]:
        return waves[..., None], padding.mask(waves)


class SpeechTransformer(nn.Module):
    """Waveforms `[B, T]` to representations `[B, width]`."""

    frames: nn.Module
    strides: tuple[int, ...]
    width: int
    depth: int
    heads: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, waves: jax.Array, train: bool) -> jax.Array:
        x, mask = self.frames(waves)
        for i, stride in enumerate(self.strides):
            x = self.conv(stride, f'conv{i}')(jnp.where(mask[..., None], x, 0))
            x = nn.gelu(self.norm(f'conv{i}_norm')(x))
            mask = mask[:, ::stride]
        x = x + positions(*x.shape[1:])[None].astype(x.dtype)
        kind = block_kind(train and self.remat)
        for i in range(self.depth):
            self.sow('intermediates', 'layers', padding.mean(x, mask))
            x = kind(self.heads, self.dtype, name=f'block{i}')(x, mask[:, None, None])
        represented = padding.mean(self.norm('norm')(x), mask)
        self.sow('intermediates', 'layers', represented)
        return represented

    def conv(self, stride: int, name: str) -> nn.Module:
        """Makes a convolution whose output j is around input `stride * j`."""
        size, around = (2 * stride + 1,), [(stride, stride)]
        return nn.Conv(self.width, size, stride, around, dtype=self.dtype, name=name)

    def norm(self, name: str) -> nn.Module:
        """Makes a LayerNorm."""
        return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)


def positions(count: int, width: int) -> np.ndarray:
    """Makes the sines and cosines of Vaswani et al. 2017: float32 `[count, width]`.

    They have no parameters, so that clips may have any length. https://arxiv.org/abs/1706.03762.
    """
    half = -(-width // 2)
    angles = np.arange(count)[:, None] / 10_000 ** (np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width].astype(np.float32)


@register('speech_transformer')
def speech_transformer(
    rate: Rate = 16_000,
    mels: Width = 40,
    strides: tuple[Width, ...] = (2, 2),
    width: Width = 128,
    depth: Depth = 4,
    heads: Width = 4,
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes a transformer on the log-mel spectrogram of waveforms; it has layers.

    >>> from ssl_extract import encoders
    >>> network = speech_transformer(rate=8000, width=12, heads=2)
    >>> encoders.dim(network, (8000,))
    12

    Args:
        rate: samples per second of the waveforms.
        mels: bands of the spectrogram, which has 100 frames a second.
        strides: of each convolution over frames; the blocks see every fourth frame with (2, 2).
        width: dimension of the frames and of the representation; a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        dtype: of the computation, 'float32' or 'bfloat16'; the spectrogram is always float32.
        remat: see `vit`.

    Raises:
        UserError: an argument has a wrong value, or later the inputs are no waveforms.
    """
    n_fft, hop = round(rate * FRAME), round(rate * HOP)
    filters(rate, n_fft, mels)  # too many bands are refused here
    frames = MelFrames(rate, n_fft, hop, mels)
    return _network(frames, strides, width, depth, heads, dtype, remat)


@register('wave_transformer')
def wave_transformer(
    strides: tuple[Width, ...] = (10, 4, 4, 2),
    width: Width = 128,
    depth: Depth = 4,
    heads: Width = 4,
    dtype: str = 'float32',
    remat: bool = False,
) -> Network:
    """Makes a transformer on the samples of waveforms of any rate; it has layers.

    >>> from ssl_extract import encoders
    >>> network = wave_transformer(width=12, heads=2)
    >>> encoders.dim(network, (8000,))
    12

    Args:
        strides: of each convolution; the blocks see every 320th sample with (10, 4, 4, 2).
        width: dimension of the frames and of the representation; a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        dtype: of the computation, 'float32' or 'bfloat16'.
        remat: see `vit`.

    Raises:
        UserError: an argument has a wrong value, or later the inputs are no waveforms.
    """
    return _network(Samples(), strides, width, depth, heads, dtype, remat)


def _network(
    frames: nn.Module,
    strides: tuple[int, ...],
    width: int,
    depth: int,
    heads: int,
    dtype: str,
    remat: bool,
) -> Network:
    if not strides:
        raise UserError('strides=() of a speech encoder: write one for each convolution: (2, 2)')
    if width % heads:
        raise UserError(f'width={width} of a speech encoder is not a multiple of heads={heads}')
    computed = check_dtype(dtype)
    module = SpeechTransformer(frames, tuple(strides), width, depth, heads, computed, remat)
    return from_module(module, rank=2, takes=WAVES, layers=True)
