"""Encoders of speech: librosa's and Resemblyzer's values, padding, layers, and wrong inputs.

`python -m benchmarks.ge2e_parity --fixtures=tests/golden/ge2e` wrote the files, with Resemblyzer's
network 4 wide.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy import signal

from ssl_extract import encoders, victims
from ssl_extract.encoders import torch_names, torch_weights
from ssl_extract.encoders.ge2e import partials
from ssl_extract.encoders.log_mel import FLOOR, filters, log_mel, mel
from ssl_extract.errors import UserError

FOLDER = pathlib.Path(__file__).parent.parent / 'golden' / 'ge2e'
FILE = FOLDER / 'small.safetensors'
MEL = 'speech_transformer(rate=8000, width=8, depth=1, heads=2)'
WAVE = 'wave_transformer(strides=(10, 8), width=8, depth=1, heads=2)'
GE2E = 'ge2e(width=8, depth=1, dim=16)'
SMALL = 'ge2e(width=4, depth=2, dim=3)'
TOTALS = {MEL: 4000, WAVE: 4000, GE2E: 48_000}  # samples of the longest clip


def waves(total=4000):
    """Four clips padded to `total` samples; the last row is padding alone."""
    lengths = np.array([total, total * 7 // 10, 90, 0])
    clips = np.random.default_rng(0).normal(0.0, 0.05, (4, total)).astype(np.float32)
    return np.where(np.arange(total) < lengths[:, None], clips, np.float32(-1.0))


def golden():
    with np.load(FOLDER / 'small.npz') as arrays:
        return dict(arrays)


def told(call):
    """The line of an error."""
    with pytest.raises(UserError) as caught:
        call()
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- the spectrogram ---------------------------------------------------------


@pytest.mark.parametrize('rate', [8000, 16_000])
def test_a_mel_spectrogram_is_that_of_librosa(rate):
    stored = golden()
    clip = stored['clips'][3][None].astype(np.float32) / 2**15  # 4,000 samples and padding
    frames, mask = mel(clip, rate, rate // 40, rate // 100, 40)
    expected = stored[f'mel_{rate}']
    assert mask.sum() == len(expected) == 1 + 4000 // (rate // 100)
    np.testing.assert_allclose(frames[mask], expected, 1e-4, 1e-5 * expected.max())
    logs, _ = log_mel(clip, rate, rate // 40, rate // 100, 40)
    np.testing.assert_allclose(logs[mask], np.log(expected + FLOOR), 1e-4, 1e-4)


def test_a_mel_spectrogram_is_the_filtered_spectrogram_of_scipy():
    clip = waves()[0]
    _, _, spectrum = signal.stft(
        clip.astype(np.float64), window='hann', nperseg=256, noverlap=160, padded=False
    )
    power = np.abs(spectrum * signal.get_window('hann', 256).sum()) ** 2
    expected = power.T @ filters(8000, 256, 20)
    frames, mask = mel(clip[None], 8000, 256, 96, 20)
    assert mask.all()
    np.testing.assert_allclose(frames[0][: len(expected)], expected, 1e-4, 1e-5)


def test_more_bands_than_a_frame_tells_apart_are_refused_with_a_number_that_works():
    line = told(lambda: encoders.make('speech_transformer(rate=8000, mels=128)'))
    assert 'mels=128: frames of 200 samples at rate=8000' in line
    fits = int(line.split('write mels=')[1].split()[0])
    assert filters(8000, 200, fits).any(axis=0).all() and fits > 50


# --- padding -----------------------------------------------------------------


@pytest.mark.parametrize('spec', TOTALS)
def test_padding_changes_nothing(spec):
    network = encoders.make(spec)
    inputs, length = waves(TOTALS[spec]), TOTALS[spec] * 7 // 10
    padded = np.pad(inputs, ((0, 0), (0, 3 * len(inputs[0]) // 10)), constant_values=-1.0)
    variables = network.init(jax.random.key(0), inputs)
    outputs = network.apply(variables, inputs)
    np.testing.assert_allclose(network.apply(variables, padded), outputs, 1e-5, 1e-5)
    np.testing.assert_allclose(network.train(variables, padded)[0], outputs, 1e-5, 1e-5)
    alone = network.apply(variables, inputs[1:2, :length])  # without padding
    np.testing.assert_allclose(alone, outputs[1:2], 1e-5, 1e-5)
    assert np.ptp(outputs[:2], axis=0).max() > 1e-3  # rows differ
    if network.layers:
        for layers in zip(*(network.layers(variables, x) for x in (inputs, padded)), strict=True):
            np.testing.assert_allclose(*layers, 1e-5, 1e-5)


@pytest.mark.parametrize('spec', TOTALS)
def test_gradients_are_finite_with_a_row_of_padding_alone(spec):
    network, inputs = encoders.make(spec), waves(TOTALS[spec])
    variables = network.init(jax.random.key(0), inputs)

    @jax.jit
    def gradients(params, inputs):
        def loss(params, inputs):
            return jnp.sum(network.train({**variables, 'params': params}, inputs)[0] ** 2)

        return jax.grad(loss, argnums=(0, 1))(params, inputs)

    of_params, of_inputs = gradients(variables['params'], inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((of_params, of_inputs)))
    assert np.any(of_inputs[0]) and not np.any(of_inputs[inputs == -1.0])


# --- layers ------------------------------------------------------------------


def test_layers_are_the_input_of_the_blocks_and_the_output_of_each():
    network, inputs = encoders.make(MEL.replace('depth=1', 'depth=2')), waves()
    variables = network.init(jax.random.key(0), inputs)
    layers = network.layers(variables, inputs)
    assert [(layer.shape, layer.dtype) for layer in layers] == 3 * [((4, 8), jnp.float32)]
    np.testing.assert_allclose(layers[-1], network.apply(variables, inputs), 1e-6, 1e-6)
    # Without its last block a network has the layers before it.
    shallow = encoders.make(MEL)
    params = {name: p for name, p in variables['params'].items() if name != 'block1'}
    shorter = shallow.layers({'params': params, 'batch_stats': {}}, inputs)
    np.testing.assert_allclose(shorter[0], layers[0], 1e-5, 1e-5)
    assert encoders.make(SMALL).layers is None


# --- GE2E --------------------------------------------------------------------


def test_a_file_of_resemblyzer_answers_here_as_there():
    stored = golden()
    assert str(stored['spec']) == SMALL
    clips = stored['clips'].astype(np.float32) / 2**15
    loaded = torch_weights.load(FILE, SMALL, length=clips.shape[1])
    np.testing.assert_allclose(loaded.encoder.apply(clips), stored['answers'], 1e-4, 1e-5)
    assert loaded.prefix == 'model_state.'
    assert loaded.left_out == ('model_state.similarity_weight',)


def test_partials_are_those_that_a_clip_fills_to_three_quarters():
    lengths = np.array([100, 31_519, 31_520, 43_839, 43_840])
    clips = np.where(np.arange(50_000) < lengths[:, None], 0.01, -1.0).astype(np.float32)
    frames, mask = partials(clips)
    assert mask.sum(axis=1).tolist() == [1, 1, 2, 2, 3]
    low, _ = partials(np.where(clips > -1.0, clips / 2, clips))  # is raised to the same loudness
    np.testing.assert_allclose(low[4], frames[4], 1e-4, 1e-5)


def test_a_victim_of_a_file_takes_waveforms_of_its_length():
    source = f'torch({str(FILE)!r}, encoder="{SMALL}", length=8000)'
    victim = victims.load(source)
    assert victim.input_shape == (8000,) and victim.dim == 3
    for wrong, said in {
        source.replace(', length=8000', ''): 'write one of them, size=224',
        source.replace('length', 'size'): 'give it floating waveforms [B, T] above -1',
        source.replace('width=4', 'width=5'): 'the file holds ge2e(width=4, depth=2, dim=3)',
        source.replace(SMALL, MEL): 'has no counterpart in files of PyTorch',
    }.items():
        assert said in told(lambda wrong=wrong: victims.load(wrong))


def test_the_last_matrix_of_ge2e_is_no_head(tmp_path):
    line = told(lambda: torch_weights.load(FILE, SMALL, head='linear(dim=3)', length=8000))
    assert "fit head 'linear(dim=3)': it lacks linear1.bias" in line
    content = safetensors.numpy.load_file(FILE)
    del content['model_state.linear.bias']
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(safetensors.numpy.save(content))
    assert 'it lacks linear.bias' in told(lambda: torch_weights.load(path, SMALL, length=8000))
    assert torch_names.described({}) == 'another network'


# --- wrong inputs ------------------------------------------------------------


@pytest.mark.parametrize('spec', [MEL, WAVE, SMALL])
def test_images_are_refused_with_what_fits(spec):
    network = encoders.make(spec)
    line = told(lambda: network.init(jax.random.key(0), np.zeros((2, 8, 8, 3), np.float32)))
    assert 'inputs float32[2, 8, 8, 3]: give it floating waveforms [B, T]' in line
    assert 'floating' in told(lambda: network.init(jax.random.key(0), np.zeros((2, 99), np.int16)))


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ('speech_transformer(width=10, heads=4)', 'width=10 of a speech encoder is not a multiple'),
        ('wave_transformer(strides=())', 'strides=() of a speech encoder: write one for each'),
        ('speech_transformer(rate=10)', 'rate'),
        ('wave_transformer(strides=(0,))', 'strides'),
        ('ge2e(depth=0)', 'depth'),
    ],
)
def test_wrong_arguments_are_refused(spec, said):
    assert said in told(lambda: encoders.make(spec))
