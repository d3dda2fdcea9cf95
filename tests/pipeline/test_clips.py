"""The spectrograms of a run on waveforms, from the clips to the report."""

import json

import modalities
import numpy as np
import pytest
from finished_runs import write_run

from ssl_extract import config, report
from ssl_extract.errors import UserError
from ssl_extract.pipeline import clips, context
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.report import page, publish
from ssl_extract.report.figures.clips import figure_clips
from ssl_extract.runtime import files, parallel

RATE, LENGTHS = 4000, (2000, 1000, 1400)  # samples of the three kinds of clips
TICKS = ['200', '500', '1000']  # Hz, within the bands
QUIETER = 'gain(decibels=(-20.0, -20.0))'


@pytest.fixture
def waves(tmp_path):
    """The modality of clips that are a tone of 500 Hz each."""
    rng, count = np.random.default_rng(0), modalities.NUM
    lengths = np.resize(LENGTHS, count)
    tones = [np.sin(2 * np.pi * 500 / RATE * np.arange(n) + rng.uniform(0, 6)) for n in lengths]
    audio = (8000 * np.concatenate(tones)).astype(np.int16)
    np.savez(tmp_path / 'tones.npz', audio=audio, length=lengths, label=np.arange(count) % 2)
    source = f'speech_npz(path="{tmp_path}/tones.npz", rate={RATE}, labels="label"'
    return modalities.write(tmp_path)['waves']._replace(source=source, view=QUIETER)


def arrays_of(modality, folder, **fields):
    (cfg,) = config.expand(modalities.config_of(modality, **fields))
    run = context.make_run(cfg, folder, parallel.data_mesh(1))
    where = clips.spectrograms_of(run, load_sets(run))
    return where and files.read_npz(run.workspace.folder / where / 'result.npz')


def test_spectrograms_show_tone_end_and_view(waves, tmp_path):
    arrays = arrays_of(waves, tmp_path / 'run')
    plain, quiet = arrays['spectrograms'].astype(np.float32)
    assert arrays['fields'].tolist() == ['', 'victim.augmentation'] and len(plain) == clips.COUNT
    frames = np.sum(~np.isnan(plain[:, :, 0]), axis=1)
    assert set(frames) <= {1 + length * 100 // RATE for length in LENGTHS}  # 10 ms apart
    assert float(arrays['hop']) == 0.01
    assert np.all(np.abs(arrays['hertz'][np.argmax(plain[:, 5], axis=1)] - 500) < 50)
    np.testing.assert_array_equal(np.isnan(quiet), np.isnan(plain))
    loud = plain[:, 5].max(axis=1) - quiet[:, 5].max(axis=1)
    np.testing.assert_allclose(loud, np.log(100), atol=0.05)  # 20 dB


def test_a_figure_names_its_axes_and_leaves_padding_gray():
    values = np.zeros((2, 3, 5, 4), np.float16)
    values[:, 1, 3:] = np.nan
    drawn = {'spectrograms': values, 'fields': np.array(['', 'attack.query_augmentation'])}
    hertz = np.array([100.0, 300.0, 700.0, 1500.0])
    figure, note = figure_clips(drawn | {'hop': np.array(0.01), 'hertz': hertz})
    assert figure.get_supxlabel() == 'seconds' and 'frequency in Hz' in figure.get_supylabel()
    panels = figure.axes[:6]
    assert panels[0].get_title() == 'clip as it is'
    assert panels[1].get_title() == 'view under\nattack.query_augmentation'
    assert [label.get_text() for label in panels[0].get_yticklabels()] == TICKS
    assert panels[0].get_yticks()[TICKS.index('500')] == 1.5
    image = panels[2].images[0]
    assert image.get_extent() == [-0.005, 0.045, -0.5, 3.5]
    assert image.get_array().mask[:, 3:].all() and not image.get_array().mask[:, :3].any()
    assert '25 ms' in note
    figure, note = figure_clips(drawn | {'hop': np.array(160), 'hertz': np.zeros(0)})
    assert figure.get_supxlabel() == 'samples' and 'not known' in note


def test_a_report_has_the_clips_of_a_run_and_none_of_other_inputs(tmp_path):
    values = {'spectrograms': np.zeros((1, 1, 5, 4), np.float16), 'fields': np.array([''])}
    values |= {'hop': np.array(0.01), 'hertz': np.array([100.0, 300.0, 700.0, 1500.0])}
    files.write_npz(tmp_path / 'clips' / 'a' / 'result.npz', **values)
    folder = write_run(tmp_path, 'r')
    assert publish.read_shown(report.read_runs(tmp_path)) == {}
    about = json.loads((folder / 'run.json').read_text())
    (folder / 'run.json').write_text(json.dumps(about | {'shown': {'clips': 'clips/a'}}))
    read = publish.read_shown(report.read_runs(tmp_path))
    parts = {'config': {}, 'curves': {}, 'views': [], 'bill': [], 'title': 'Report'}
    (section,) = page.build([], shown=read, **parts).sections
    assert section.title == 'Clips' and section.items[0].png.startswith(b'\x89PNG')
    assert page.build([], **parts).sections == []
    (tmp_path / 'clips' / 'a' / 'result.npz').unlink()
    with pytest.raises(UserError, match='run.json names .*, which is not there: put it back'):
        publish.read_shown(report.read_runs(tmp_path))


def test_images_and_texts_have_no_spectrogram(tmp_path):
    sets = modalities.write(tmp_path)
    for kind in ('images', 'tokens'):
        assert arrays_of(sets[kind], tmp_path / 'run') is None


def test_clips_of_an_unknown_rate_are_shown_in_samples(tmp_path):
    rng, count = np.random.default_rng(0), modalities.NUM
    rows = rng.integers(-9000, 9000, (count, 700)).astype(np.int16)
    np.savez(tmp_path / 'rows.npz', inputs=rows, labels=np.arange(count) % 2)
    modality = modalities.write(tmp_path)['waves']
    modality = modality._replace(source=f'npz(path="{tmp_path}/rows.npz", decode="waves"')
    arrays = arrays_of(modality, tmp_path / 'run', victim__augmentation='none')
    assert arrays['spectrograms'].shape == (1, 3, 5, 40)
    assert int(arrays['hop']) == 160 and not len(arrays['hertz'])
