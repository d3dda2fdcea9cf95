"""Operations on waveforms against NumPy and SciPy, and their draws over many keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from ssl_extract import augment, padding
from ssl_extract.errors import UserError

RNG = np.random.default_rng(0)
LENGTH, WIDTH = 200, 256  # of a clip, and of its row
CLIP = 0.1 * RNG.normal(size=LENGTH)
PEAK = 32_767 / 32_768
KEYS = 400
SPECS = (
    'gain',
    'polarity',
    'shift(share=1.0)',
    'white_noise(snr=(0, 10))',
    'time_mask(share=0.5, count=2)',
    'band_stop(share=0.5)',
    'crop_time',
)


def padded(clip, width=WIDTH):
    return np.pad(clip, (0, width - len(clip)), constant_values=-1).astype(np.float32)


@functools.cache
def _views(spec):
    return jax.jit(functools.partial(augment.views, augment.make(spec)))


def many(spec, wave, count=KEYS):
    """Views of one waveform, each with a key."""
    waves = jnp.broadcast_to(wave, (count, len(wave)))
    return np.asarray(_views(spec)(jax.random.key(0), waves), np.float64)


def is_uniform(values, low, high):
    """By the test of Kolmogorov and Smirnov; the keys are fixed."""
    return scipy.stats.kstest((values - low) / (high - low), 'uniform').pvalue > 0.01


def are_independent(first, second):
    return scipy.stats.spearmanr(first, second).pvalue > 0.01


def is_evenly_drawn(values, count):
    """Whether whole numbers from 0 to `count` - 1 are as frequent as chance has it."""
    frequencies = np.bincount(values, minlength=count)
    return len(frequencies) == count and scipy.stats.chisquare(frequencies).pvalue > 0.01


@pytest.mark.parametrize('spec', SPECS)
def test_padding_changes_no_sample_and_no_sample_becomes_padding(spec):
    loud = np.clip(8 * CLIP, -PEAK, PEAK).astype(np.float32)  # with samples at the bounds
    alone, long = many(spec, loud, 16), many(spec, padded(loud), 16)
    np.testing.assert_allclose(alone, long[:, :LENGTH], atol=1e-5)
    held = np.asarray(padding.mask(long))
    lengths = held.sum(axis=1)
    assert (held == (np.arange(WIDTH) < lengths[:, None])).all()
    assert np.abs(long[held]).max() <= PEAK and np.isfinite(long).all()
    assert (lengths == LENGTH).all() != (spec == 'crop_time')
    assert (many(spec, padded([]), 16) == -1).all()  # a row without a clip


def test_gain_changes_the_level_by_decibels():
    views = many('gain(decibels=(-12, 6))', padded(0.2 * CLIP))[:, :LENGTH]
    levels = 10 * np.log10(np.mean(views**2, axis=1) / np.mean((0.2 * CLIP) ** 2))
    assert is_uniform(levels, -12, 6) and levels.min() > -12.001 and levels.max() < 6.001
    np.testing.assert_allclose(views, 0.2 * CLIP * 10 ** (levels[:, None] / 20), atol=1e-6)
    assert many('gain(decibels=(60, 60))', padded(CLIP), 1).max() == PEAK


def test_polarity_turns_signs_with_its_probability():
    views = many('polarity(p=0.3)', padded(CLIP))[:, :LENGTH]
    turned = views[:, 0] * CLIP[0] < 0
    np.testing.assert_allclose(views, np.where(turned[:, None], -CLIP, CLIP), atol=1e-7)
    assert scipy.stats.binomtest(int(turned.sum()), KEYS, 0.3).pvalue > 0.01


def test_shift_rotates_within_the_clip():
    views = many('shift(share=0.05)', padded(CLIP))[:, :LENGTH]
    rolled = np.stack([np.roll(CLIP, samples) for samples in range(-10, 11)])
    distances = np.abs(views[:, None] - rolled).max(axis=2)
    assert (distances.min(axis=1) < 1e-6).all()
    assert is_evenly_drawn(distances.argmin(axis=1), 21)


def test_crop_time_keeps_a_span_from_the_first_sample_on():
    views = many('crop_time(share=(0.25, 0.75))', padded(CLIP))
    kept = (views > -1).sum(axis=1)
    assert is_uniform(kept + RNG.uniform(-0.5, 0.5, KEYS), 50, 150)
    starts = []
    for view, length in zip(views, kept, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(CLIP, length)
        (start,) = np.flatnonzero(np.abs(windows - view[:length]).max(axis=1) < 1e-6)
        starts.append((start + RNG.uniform()) / (LENGTH - length + 1))
    assert is_uniform(np.array(starts), 0, 1) and are_independent(starts, kept)
    assert ((many('crop_time(share=(1e-9, 1e-9))', padded(CLIP), 9) > -1).sum(axis=1) == 1).all()


def test_white_noise_has_the_power_the_shape_and_the_spectrum():
    views = many('white_noise(snr=(5, 25))', padded(CLIP))[:, :LENGTH]
    noise = views - CLIP
    ratios = 10 * np.log10(np.mean(CLIP**2) / np.mean(noise**2, axis=1))
    assert is_uniform(ratios, 5, 25)
    scaled = noise / np.sqrt(np.mean(noise**2, axis=1, keepdims=True))
    assert scipy.stats.kstest(scaled[:100].ravel(), 'norm').pvalue > 0.01
    spectrum = np.mean(np.abs(np.fft.rfft(scaled, axis=1)) ** 2, axis=0)[1:-1] / LENGTH
    assert np.abs(spectrum - 1).max() < 5 / np.sqrt(KEYS)  # five standard errors
    silence = padded(np.zeros(LENGTH))
    np.testing.assert_array_equal(many('white_noise', silence, 2), np.stack([silence] * 2))


def test_time_mask_silences_one_span():
    views = many('time_mask(share=0.1)', padded(CLIP))[:, :LENGTH]
    silent = views == 0
    np.testing.assert_allclose(views[~silent], np.broadcast_to(CLIP, views.shape)[~silent])
    widths = silent.sum(axis=1)
    assert is_evenly_drawn(widths, 21)  # from none to 20 samples
    starts, ends = silent.argmax(axis=1), LENGTH - silent[:, ::-1].argmax(axis=1)
    some = widths > 0
    assert (ends - starts)[some].tolist() == widths[some].tolist()
    places = (starts + RNG.uniform(size=KEYS)) / (LENGTH - widths + 1)
    assert is_uniform(places[some], 0, 1) and are_independent(places[some], widths[some])


def test_time_mask_has_several_spans():
    silent = many('time_mask(share=0.1, count=3)', padded(CLIP))[:, :LENGTH] == 0
    spans = (np.diff(silent.astype(int), axis=1, prepend=0) == 1).sum(axis=1)
    assert set(spans) == {0, 1, 2, 3} or set(spans) == {1, 2, 3}


def band_of(response):
    """Bounds of the removed band, by the ideal filter's response to an impulse, in its middle."""
    middle = LENGTH // 2
    removed = (np.eye(LENGTH)[middle] - 2 * response)[[middle, middle + 1]]
    width = removed[0]
    low = np.arccos(np.pi * removed[1] / (2 * np.sin(np.pi * width / 2))) / np.pi - width / 2
    return low, low + width


def test_band_stop_is_scipys_ideal_filter():
    impulse = 0.5 * np.eye(LENGTH)[LENGTH // 2]
    responses = many('band_stop(share=0.5)', padded(impulse))[:, :LENGTH]
    low, high = np.transpose([band_of(response) for response in responses])
    assert is_uniform(high - low, 0, 0.5) and is_uniform(low / (1 - (high - low)), 0, 1)
    assert are_independent(low / (1 - (high - low)), high - low)
    views = many('band_stop(share=0.5)', padded(CLIP))[:, :LENGTH]
    wide = np.flatnonzero((high - low > 0.02) & (low > 0.01) & (high < 0.99))
    assert len(wide) > KEYS / 2
    for row in wide[:50]:
        taps = scipy.signal.firwin(
            2 * LENGTH - 1, [low[row], high[row]], window='boxcar', pass_zero=False, scale=False
        )
        removed = scipy.signal.fftconvolve(CLIP, taps)[LENGTH - 1 : 2 * LENGTH - 1]
        np.testing.assert_allclose(views[row], CLIP - removed, atol=1e-4)


def test_band_stop_takes_the_band_and_leaves_the_rest():
    time = np.arange(2_000)
    tones = {share: 0.3 * np.sin(np.pi * share * time) for share in (0.2, 0.6)}
    both = many('band_stop(share=0.2)', sum(tones.values()).astype(np.float32), 200)
    impulse = np.zeros(2_000, np.float32)
    impulse[1_000] = 0.5
    spectra = np.abs(np.fft.rfft(many('band_stop(share=0.2)', impulse, 200), 4_000, axis=1)) / 0.5
    for share, tone in tones.items():
        passed = spectra[:, round(share * 2_000)]
        kept = (both @ tone) / (tone @ tone)
        sure = np.abs(passed - 0.5) > 0.45  # the tone is not at an edge of the band
        assert 0 < (passed[sure] < 0.5).sum() < sure.sum() and sure.mean() > 0.9
        np.testing.assert_allclose(kept[sure], passed[sure], atol=0.06)


def test_the_preset_is_its_chain():
    chain = (
        'crop_time(share=(0.5, 1.0)) | gain(decibels=(-6, 6)) | white_noise(snr=(0, 20)) | '
        'time_mask(share=0.125) | band_stop(share=0.125)'
    )
    given = jax.random.key(0), jnp.asarray(padded(CLIP))
    speech, written = (str(jax.make_jaxpr(augment.make(x))(*given)) for x in ('speech', chain))
    assert speech == written
    assert speech != str(jax.make_jaxpr(augment.make('speech(mask=0.1)'))(*given))


@pytest.mark.parametrize(
    ('spec', 'inputs', 'message'),
    [
        (
            'simclr',
            CLIP,
            r"takes an image \[H, W, C\], got \[200\]: write 'none', or one that takes "
            'waves: band_stop, crop_time, gain, polarity, shift, speech, time_mask, white_noise',
        ),
        ('gain | flip', CLIP, r'flip takes an image .* one that takes waves'),
        (
            'speech',
            np.ones((8, 8, 3)),
            r'crop_time takes a waveform \[T\], got \[8, 8, 3\]: write '
            "'none', or one that takes images: color_jitter, flip, .*, simclr",
        ),
        ('polarity', np.ones((8, 4)), r"got \[8, 4\]: write 'none', or an operation that fits"),
        ('gain', np.ones(8, np.int16), 'gain takes floats in .-1, 1., got int16: decode waveforms'),
        ('gain', 300 * CLIP, r'gain takes floats in \[-1, 1\], got .* decode waveforms first'),
        ('gain', np.nan * CLIP, 'got nan to nan'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spec, inputs, message):
    with pytest.raises(UserError, match=message) as error:
        augment.make(spec)(jax.random.key(0), jnp.asarray(inputs))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('gain(decibels=(6, -6))', 'decibels is .*: write the smaller number first'),
        ('white_noise(snr=(30, 10))', 'snr is .*: write the smaller number first'),
        ('crop_time(share=(0.0, 1.0))', 'share must be'),
        ('shift(share=1.5)', 'share must be a finite number from 0 to 1'),
        ('time_mask(count=0)', 'count must be'),
        ('speech(snr=(3, 2))', 'the smaller number first'),
    ],
)
def test_wrong_arguments_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        augment.make(spec)
