"""Waveform augmentations: one clip and one key at a time.

An operation (`Op`) maps a key and a waveform, float32 `[T]`, to a waveform of the same shape.
Samples lie in (-1, 1) and -1 is padding, behind the end of a clip (`ssl_extract.padding`). Results
are clipped to the largest int16 sample, so that no sample becomes padding. More padding behind the
same clip changes no sample of the result. Padding stays where it is, but that `crop_time` makes a
clip shorter.

The two masks of SpecAugment (Park et al. 2019, arXiv 1904.08779) are `'time_mask | band_stop'`, on
the waveform, so that they serve every encoder, whatever spectrogram the encoder computes.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from ssl_extract import padding
from ssl_extract.augment.base import Op, chain, draw, register
from ssl_extract.augment.checks import check_order, check_wave
from ssl_extract.ranges import PositiveShare, Range, Share

_Decibels = Annotated[float, Range(-120, 120)]
_PEAK = 1 - 1 / 2**15  # the largest int16 sample, decoded


@register('speech', takes='waves')
def speech(
    min_share: PositiveShare = 0.5,
    snr: tuple[_Decibels, _Decibels] = (0.0, 20.0),
    mask: Share = 0.125,
) -> Op:
    """Crops, amplifies, adds noise and masks, for contrastive pretraining on speech.

    Two views are two spans of one clip, as in COLA (Saeed et al. 2021, arXiv 2010.10915). The noise
    of 0 to 20 dB is that of the code of CLAR (Al-Tahan and Mohsenzadeh 2021, arXiv 2010.09542),
    which also masks an eighth of the time in half of its views; here all lose up to an eighth.
    The masked band is the second mask of SpecAugment. Half a clip, the gain of 6 dB and an eighth
    of the frequencies are choices of this package.

    >>> op = speech(min_share=0.8)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.zeros(8000)).shape
    (8000,)

    Args:
        min_share: smallest share of a clip that a crop keeps.
        snr: bounds of the signal-to-noise ratio, in dB.
        mask: largest share of the time, and of the frequencies, that is masked.
    """
    return chain(
        [
            crop_time(share=(min_share, 1.0)),
            gain(decibels=(-6.0, 6.0)),
            white_noise(snr=snr),
            time_mask(share=mask, count=1),
            band_stop(share=mask),
        ]
    )


@register('gain', takes='waves')
def gain(decibels: tuple[_Decibels, _Decibels] = (-6.0, 6.0)) -> Op:
    """Amplifies or attenuates a clip; what becomes too loud is clipped.

    >>> op = gain(decibels=(-6.0206, -6.0206))
    >>> op(jax.random.key(0), jnp.array([0.5, -0.25, -1.0])).round(3).tolist()
    [0.25, -0.125, -1.0]

    Args:
        decibels: bounds of the change of the level, drawn uniformly; 6 dB double the samples.
    """
    check_order('decibels', decibels)

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'gain')
        return _within(wave * 10 ** (_between(decibels, draw(key, 1)[0]) / 20), wave)

    return op


@register('polarity', takes='waves')
def polarity(p: Share = 0.5) -> Op:
    """Turns the sign of all samples with probability `p`, which no ear notices.

    >>> polarity(p=1.0)(jax.random.key(0), jnp.array([0.5, -0.25, -1.0])).tolist()
    [-0.5, 0.25, -1.0]
    """

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'polarity')
        return _within(jnp.where(draw(key, 1)[0] < p, -wave, wave), wave)

    return op


@register('shift', takes='waves')
def shift(share: Share = 0.1) -> Op:
    """Rotates a clip in time: what leaves at one end comes back at the other.

    >>> op = shift(share=0.5)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.zeros(8000)).shape
    (8000,)

    Args:
        share: largest shift, in either direction, as a share of the clip. The shift is uniform over
            whole samples.
    """

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'shift')
        length = padding.lengths(wave)
        most = jnp.floor(share * length).astype(int)
        samples = _up_to(2 * most, draw(key, 1)[0]) - most
        places = (jnp.arange(len(wave)) - samples) % jnp.maximum(length, 1)
        return _within(wave[places], wave)

    return op


@register('crop_time', takes='waves')
def crop_time(share: tuple[PositiveShare, PositiveShare] = (0.5, 1.0)) -> Op:
    """Keeps a random span of a clip, from the beginning of the row on; the rest becomes padding.

    >>> op = crop_time(share=(0.5, 0.5))
    >>> op(jax.random.key(0), jnp.full(4, 0.25)).tolist()
    [0.25, 0.25, -1.0, -1.0]

    Args:
        share: bounds of the span, as a share of the clip, drawn uniformly; at least one sample.
    """
    check_order('share', share)

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'crop_time')
        uniform, length = draw(key, 2), padding.lengths(wave)
        kept = jnp.round(_between(share, uniform[0]) * length).astype(int)
        kept = jnp.clip(kept, jnp.minimum(length, 1), length)
        start = _up_to(length - kept, uniform[1])
        span = jax.lax.dynamic_slice(jnp.pad(wave, (0, len(wave))), (start,), wave.shape)
        return _within(span, jnp.where(jnp.arange(len(wave)) < kept, span, padding.PADDING))

    return op


@register('white_noise', takes='waves')
def white_noise(snr: tuple[_Decibels, _Decibels] = (10.0, 30.0)) -> Op:
    """Adds Gaussian white noise of a power relative to the clip's; silence stays silence.

    >>> op = white_noise(snr=(20.0, 20.0))
    >>> jax.eval_shape(op, jax.random.key(0), jnp.zeros(8000)).shape
    (8000,)

    Args:
        snr: bounds of the power of the clip over the power of the noise, in dB, drawn uniformly.
            The powers are those of this clip and this noise, not expected ones.
    """
    check_order('snr', snr)

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'white_noise')
        noise_key, key = jax.random.split(key)
        held = padding.mask(wave)
        # A draw does not depend on how many follow: more padding does not change the noise.
        noise = jnp.where(held, jax.random.normal(noise_key, wave.shape), 0)
        energies = [jnp.sum(jnp.square(x)) for x in (jnp.where(held, wave, 0), noise)]
        decibels = _between(snr, draw(key, 1)[0])
        scale = jnp.sqrt(energies[0] / jnp.maximum(energies[1], 1e-30)) * 10 ** (-decibels / 20)
        return _within(wave + scale * noise, wave)

    return op


@register('time_mask', takes='waves')
def time_mask(share: Share = 0.1, count: Annotated[int, Range(1, 100)] = 1) -> Op:
    """Silences spans of a clip: the mask in time of SpecAugment (Park et al. 2019).

    >>> op = time_mask(share=1.0, count=2)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.zeros(8000)).shape
    (8000,)

    Args:
        share: largest span, as a share of the clip. The span is uniform over whole samples from
            none on, its place uniform over the clip.
        count: number of spans, which may overlap.
    """

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'time_mask')
        uniform, length = draw(key, 2 * count).reshape(2, count, 1), padding.lengths(wave)
        spans = _up_to(jnp.floor(share * length).astype(int), uniform[0])
        starts, places = _up_to(length - spans, uniform[1]), jnp.arange(len(wave))[None]
        masked = jnp.any((places >= starts) & (places < starts + spans), axis=0)
        return _within(jnp.where(masked, 0, wave), wave)

    return op


@register('band_stop', takes='waves')
def band_stop(share: Share = 0.1) -> Op:
    """Removes a band of frequencies: the mask in frequency of SpecAugment (Park et al. 2019).

    The filter is the ideal one for a clip with silence around it: a sinc as long as the clip,
    applied by the real FFT. A transform of the row itself would depend on its padding.

    >>> op = band_stop(share=0.25)
    >>> jax.eval_shape(op, jax.random.key(0), jnp.zeros(8000)).shape
    (8000,)

    Args:
        share: largest width of the band, as a share of the frequencies up to half the sampling
            rate. The width is uniform from none on, its place uniform, both on a linear scale: a
            waveform does not say its rate, and mel bands of SpecAugment need one.
    """

    def op(key: jax.Array, wave: jax.Array) -> jax.Array:
        check_wave(wave, 'band_stop')
        uniform = draw(key, 2)
        width = share * uniform[0]
        low = uniform[1] * (1 - width)
        clip = jnp.where(padding.mask(wave), wave, 0)
        return _within(wave - _band(clip, low, low + width), wave)

    return op


def _band(clip: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Keeps of a clip [T] the frequencies from `low` to `high`, of half the sampling rate."""
    size = 2 ** (2 * len(clip) - 1).bit_length()  # so long that the clip's ends do not meet
    lags = jnp.arange(size)
    lags = jnp.where(lags < size // 2, lags, lags - size).astype(jnp.float32)
    kernel = high * jnp.sinc(high * lags) - low * jnp.sinc(low * lags)
    spectrum = jnp.fft.rfft(clip, size) * jnp.fft.rfft(kernel)
    return jnp.fft.irfft(spectrum, size)[: len(clip)]


def _between(bounds: tuple[float, float], uniform: jax.Array) -> jax.Array:
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def _up_to(most: jax.Array, uniform: jax.Array) -> jax.Array:
    """Returns a whole number from 0 to `most`, both included, of a draw in [0, 1)."""
    return jnp.minimum(jnp.floor(uniform * (most + 1)).astype(int), most)


def _within(changed: jax.Array, wave: jax.Array) -> jax.Array:
    """Clips the samples of a result, and keeps the padding of `wave`."""
    clipped = jnp.clip(changed, -_PEAK, _PEAK)
    return jnp.where(padding.mask(wave), clipped, padding.PADDING)
