"""Mel spectrograms of waveforms of different lengths, on device.

Power spectra of centered frames under a Hann window, with the triangular filters of Slaney's
Auditory Toolbox (1998), each of area 1 over frequency. These are the values of librosa's function
`feature.melspectrogram` with its defaults. A clip is taken as if zeros stood on both sides of it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import padding
from ssl_extract.errors import UserError

FLOOR = 1e-6  # added to the power before the logarithm
# Slaney's scale: linear below 1000 Hz, 15 mels; then a factor of 6.4 in frequency for 27 mels.
HZ_PER_MEL, BEND_HZ, MELS_PER_E = 200 / 3, 1000.0, 27 / np.log(6.4)


def mel(
    waves: jax.Array, rate: int, n_fft: int, hop: int, mels: int
) -> tuple[jax.Array, jax.Array]:
    """Computes the power in mel bands over time.

    >>> frames, mask = mel(jnp.array([[0.5] * 400 + [-1.0] * 240]), 16000, 400, 160, 40)
    >>> frames.shape, mask.tolist()
    ((1, 5, 40), [[True, True, True, False, False]])

    Args:
        waves: float32 `[B, T]` above -1, with -1 behind the end of a clip.
        rate: samples per second.
        n_fft: samples of a frame.
        hop: samples from the center of a frame to that of the next.
        mels: number M of bands, from 0 to `rate / 2` Hz.

    Returns:
        Power float32 `[B, F, M]`, where frame i of F = 1 + T // hop is centered at sample i * hop,
        and mask bool `[B, F]`: True for the frames whose center is in the clip or at its end.

    Raises:
        UserError: a band would lie between two frequencies of the spectrum.
    """
    samples = jnp.where(padding.mask(waves), waves, 0.0)
    count = 1 + waves.shape[1] // hop
    half = n_fft // 2
    behind = max((count - 1) * hop + n_fft - half - waves.shape[1], 0)
    samples = jnp.pad(samples, ((0, 0), (half, behind)))
    window = np.hanning(n_fft + 1)[None, None, :-1].astype(np.float32)
    taken = np.arange(count)[:, None] * hop + np.arange(n_fft)
    spectrum = jnp.fft.rfft(samples[:, taken] * window)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    ends = padding.lengths(waves) // hop
    return power @ filters(rate, n_fft, mels), jnp.arange(count)[None] <= ends[:, None]


def log_mel(
    waves: jax.Array, rate: int, n_fft: int, hop: int, mels: int
) -> tuple[jax.Array, jax.Array]:
    """Computes the natural logarithm of the power in mel bands, plus 1e-6; see `mel`.

    >>> frames, mask = log_mel(jnp.zeros((2, 8000)), 8000, 200, 80, 40)
    >>> frames.shape, mask.shape, round(float(frames[0, 0, 0]), 2)
    ((2, 101, 40), (2, 101), -13.82)
    """
    power, mask = mel(waves, rate, n_fft, hop, mels)
    return jnp.log(power + FLOOR), mask


def filters(rate: int, n_fft: int, mels: int) -> np.ndarray:
    """Makes the weights of the bands: float32 `[n_fft // 2 + 1, mels]`.

    Raises:
        UserError: a band would lie between two frequencies of the spectrum.
    """
    weights = _filters(rate, n_fft, mels)
    if not weights.any(axis=0).all():
        fits = (m for m in range(mels - 1, 0, -1) if _filters(rate, n_fft, m).any(axis=0).all())
        raise UserError(
            f'mels={mels}: frames of {n_fft} samples at rate={rate} do not tell so many bands '
            f'apart; write mels={next(fits, 1)} or fewer'
        )
    return weights


def centers(rate: int, mels: int) -> np.ndarray:
    """Returns the frequency of the middle of each band, in Hz: float64 `[mels]`.

    >>> centers(16_000, 3).round().tolist()
    [754.0, 1689.0, 3676.0]
    """
    return _hertz(np.linspace(0.0, _mels(rate / 2), mels + 2))[1:-1]


def _filters(rate: int, n_fft: int, mels: int) -> np.ndarray:
    edges = _hertz(np.linspace(0.0, _mels(rate / 2), mels + 2))
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0.0, rate * (n_fft // 2) / n_fft, n_fft // 2 + 1)[:, None]
    rising, falling = (bins - low) / (center - low), (high - bins) / (high - center)
    weights = np.maximum(np.minimum(rising, falling), 0.0) * 2 / (high - low)
    return weights.astype(np.float32)


def _mels(hertz: float) -> float:
    if hertz < BEND_HZ:
        return hertz / HZ_PER_MEL
    return BEND_HZ / HZ_PER_MEL + MELS_PER_E * np.log(hertz / BEND_HZ)


def _hertz(mels: np.ndarray) -> np.ndarray:
    bend = BEND_HZ / HZ_PER_MEL
    above = BEND_HZ * np.exp(np.maximum(mels - bend, 0.0) / MELS_PER_E)
    return np.where(mels < bend, mels * HZ_PER_MEL, above)
