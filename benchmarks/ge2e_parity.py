"""The speaker encoder `ge2e` against Resemblyzer: `python -m benchmarks.ge2e_parity --clips=DIR`.

Both read Resemblyzer's weights and embed the same clips, the FLAC files of 16 kHz in a folder, such
as LibriSpeech's. Resemblyzer takes clips one by one, `ge2e` in padded batches. Prints the largest
differences of the mel spectrograms and of the embeddings, relative to the largest value; above 1e-4
it fails.

    python -m benchmarks.ge2e_parity --fixtures=tests/golden/ge2e

writes the fixtures of the tests instead: a small network, clips, Resemblyzer's embeddings of them
and librosa's mel spectrograms.
"""

import pathlib
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import commands
from ssl_extract import padding
from ssl_extract.encoders import ge2e, torch_weights
from ssl_extract.encoders.log_mel import mel

try:
    import librosa
    import resemblyzer
    import safetensors.torch
    import soundfile
    import torch
    from resemblyzer import audio, hparams, voice_encoder
    from torch import nn
except ModuleNotFoundError as error:
    raise SystemExit(f'{error.name} is not installed: pip install Resemblyzer==0.1.4') from None

TOLERANCE = 1e-4  # of the values, relative to the largest
BATCH = 10
WEIGHTS = pathlib.Path(resemblyzer.__file__).parent / 'pretrained.pt'
SMALL = 'ge2e(width=4, depth=2, dim=3)'
# Samples: two partials that just fit, one of two that just does not, and a clip below one partial.
LENGTHS = (45_000, 31_520, 31_519, 4_000)

_CLIPS = flags.DEFINE_string('clips', None, 'Folder with FLAC files of 16 kHz.')
_FIXTURES = flags.DEFINE_string('fixtures', None, 'Folder to write the fixtures of the tests to.')


def embedded(encoder: voice_encoder.VoiceEncoder, clip: np.ndarray) -> np.ndarray:
    """Embeds a clip as Resemblyzer does, but for the silence that it cuts out before."""
    target = hparams.audio_norm_target_dBFS
    return encoder.embed_utterance(audio.normalize_volume(clip, target, increase_only=True))


def padded(clips: list[np.ndarray]) -> np.ndarray:
    """Pads clips to the longest, float32 [B, T]."""
    longest = max(map(len, clips))
    rows = [np.pad(c, (0, longest - len(c)), constant_values=padding.PADDING) for c in clips]
    return np.stack(rows).astype(np.float32)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def differences(folder: pathlib.Path) -> Iterator[tuple[str, float, float]]:
    """Yields the differences of each clip: (name, of the mel spectrogram, of the embedding).

    Args:
        folder: with FLAC files, at any depth.

    Raises:
        SystemExit: there are no such files.
    """
    files = sorted(folder.rglob('*.flac'))
    if not files:
        raise SystemExit(f'{folder} holds no .flac')
    theirs = voice_encoder.VoiceEncoder('cpu', verbose=False)
    ours = torch_weights.load(WEIGHTS, 'ge2e', length=ge2e.RATE).encoder
    for first in range(0, len(files), BATCH):
        names = files[first : first + BATCH]
        clips = [soundfile.read(name, dtype='float32')[0] for name in names]
        waves = padded(clips)
        frames, mask = mel(jnp.asarray(waves), ge2e.RATE, ge2e.N_FFT, ge2e.HOP, ge2e.MELS)
        embeddings = ours.apply(waves)
        for i, (name, clip) in enumerate(zip(names, clips, strict=True)):
            own = np.asarray(frames[i])[np.asarray(mask[i])]
            apart = difference(own, audio.wav_to_mel_spectrogram(clip))
            yield name.stem, apart, difference(embeddings[i], embedded(theirs, clip))


def small_encoder() -> voice_encoder.VoiceEncoder:
    """Makes Resemblyzer's network 4 wide, with two layers and random weights."""
    torch.manual_seed(0)
    encoder = voice_encoder.VoiceEncoder.__new__(voice_encoder.VoiceEncoder)
    nn.Module.__init__(encoder)
    encoder.lstm = nn.LSTM(hparams.mel_n_channels, 4, 2, batch_first=True)
    encoder.linear, encoder.relu, encoder.device = nn.Linear(4, 3), nn.ReLU(), torch.device('cpu')
    for weight in encoder.parameters():
        nn.init.normal_(weight)
    return encoder


def small_clips() -> list[np.ndarray]:
    """Makes clips of int16, each a noise that repeats, so that their file is small; one is low."""
    rng = np.random.default_rng(0)
    noises = [rng.integers(-peak, peak + 1, 441) for peak in (4000, 300, 2000, 1000)]
    pairs = zip(noises, LENGTHS, strict=True)
    return [np.resize(noise, length).astype(np.int16) for noise, length in pairs]


def write(folder: pathlib.Path) -> None:
    """Writes the fixtures of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder, stored = small_encoder(), small_clips()
    state = {f'model_state.{name}': array for name, array in encoder.state_dict().items()}
    state |= {'model_state.similarity_weight': torch.ones(1)}
    safetensors.torch.save_file(state, folder / 'small.safetensors')
    clips = [clip.astype(np.float32) / 2**15 for clip in stored]
    rows = np.full((len(stored), max(LENGTHS)), padding.STORED_WAVE, np.int16)
    for row, clip in zip(rows, stored, strict=True):
        row[: len(clip)] = clip
    spectrograms = {
        f'mel_{rate}': librosa.feature.melspectrogram(
            y=clips[3], sr=rate, n_fft=rate // 40, hop_length=rate // 100, n_mels=40
        ).T
        for rate in (8000, 16_000)
    }
    answers = np.stack([embedded(encoder, clip) for clip in clips])
    arrays = {'clips': rows, 'answers': answers, **spectrograms}
    np.savez_compressed(folder / 'small.npz', spec=SMALL, **arrays)


def main(argv: list[str]) -> None:
    """Prints the differences, or writes the fixtures."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    if _FIXTURES.value:
        write(pathlib.Path(_FIXTURES.value))
        return
    if not _CLIPS.value:
        raise app.UsageError('write --clips=FOLDER, a folder with FLAC files of 16 kHz')
    print(f'torch {torch.__version__}, librosa {librosa.__version__}')
    found = []
    for name, of_mel, of_embedding in differences(pathlib.Path(_CLIPS.value)):
        print(f'{name:20s}mel {of_mel:.1e}  embedding {of_embedding:.1e}', flush=True)
        found.append(max(of_mel, of_embedding))
    print(f'{len(found)} clips, largest difference {max(found):.1e}')
    if not max(found) <= TOLERANCE:
        raise SystemExit(f'above {TOLERANCE}')


if __name__ == '__main__':
    commands.start(main)
