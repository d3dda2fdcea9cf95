"""Pretraining on waveforms, in the notebook and of an experiment."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import ssl_extract
from ssl_extract import data, encoders, padding
from ssl_extract.encoders.base import from_module
from ssl_extract.errors import UserError
from ssl_extract.pipeline.run import prepare

RATE, WIDTH = 2_000, 128


class Filters(nn.Module):
    """The mean over a clip of the rectified outputs of eight filters."""

    @nn.compact
    def __call__(self, waves, train):
        held = padding.mask(waves)[..., None]
        frames = nn.Conv(8, (16,), strides=4)(jnp.where(held, waves[..., None], 0))
        where = held[:, ::4]
        return jnp.sum(nn.relu(frames) * where, axis=1) / jnp.maximum(jnp.sum(where, axis=1), 1)


@pytest.fixture
def filters(registries_restored):
    encoders.register('filters')(lambda: from_module(Filters(), rank=2))


def tones():
    """64 clips of two classes, a low and a high tone, of several lengths."""
    rng = np.random.default_rng(0)
    clips, labels = [], np.arange(64) % 2
    for label in labels:
        time = np.arange(rng.integers(60, WIDTH)) / RATE
        clips.append(8_000 * np.sin(2 * np.pi * (rng.uniform(80, 120) + 500 * label) * time))
    return [clip.astype(np.int16) for clip in clips], labels


@pytest.fixture
def spec(tmp_path):
    clips, labels = tones()
    np.savez(
        tmp_path / 'tones.npz',
        audio=np.concatenate(clips),
        length=[len(clip) for clip in clips],
        tone=np.where(labels, 'high', 'low'),
    )
    return f'speech_npz(path="{tmp_path / "tones.npz"}", rate={RATE}, labels="tone"'


def test_waves_are_pretrained_on_and_images_views_refused(spec, filters):
    waves = data.load(spec + ')', 'all')
    method = dict(encoder='filters', method='simclr(hidden=8, dim=8)', epochs=1, batch_size=32)
    with pytest.raises(UserError, match='one that takes waves: .*, speech, ') as error:
        ssl_extract.pretrain(waves, **method)
    assert '\n' not in str(error.value)
    assert "augmentation='simclr' does not fit inputs [" in str(error.value)
    encoder = ssl_extract.pretrain(waves, **method, augmentation='speech')
    seen = np.asarray(data.decoder(waves)(waves.inputs[:8]))
    answers = encoder.apply(seen)
    assert answers.shape == (8, 8) and np.isfinite(answers).all() and np.ptp(answers) > 0


def test_an_experiment_on_waves_is_valid_with_views_of_waves_alone(spec, filters, tmp_path):
    c = tiny.get_config()
    c.data.name, c.data.size = spec + ')', 0
    c.victim.split, c.attack.split = 'all[:20]', 'all[20:40]'
    c.victim.encoder, c.victim.augmentation = 'filters', 'speech(min_share=0.8)'
    c.victim.batch_size = c.attack.batch_size = c.baselines.scratch_batch_size = 8
    c.attack.budget, c.legitimate.users, c.runs = 16, (), ({'attack.loss': 'mse'},)
    c.evaluation.tasks = (spec + ', train="all[:40]", test="all[40:]")',)
    assert len(prepare(c, tmp_path / 'run')) == 1
    c.victim.augmentation = 'simclr'
    with pytest.raises(
        UserError, match='victim.* takes images: write one that takes waves'
    ) as error:
        prepare(c, tmp_path / 'run')
    assert '\n' not in str(error.value)
    c.victim.augmentation, c.data.size = 'speech', 8
    with pytest.raises(UserError, match='which size=8 does not change: leave size out'):
        prepare(c, tmp_path / 'run')


def test_floats_that_are_no_waves_are_refused(filters):
    loud = np.random.default_rng(0).normal(size=(64, WIDTH)).astype(np.float32)
    with pytest.raises(UserError, match=r"augmentation='speech' takes waveforms in \[-1, 1\]"):
        ssl_extract.pretrain(loud, encoder='filters', augmentation='speech', batch_size=32)
