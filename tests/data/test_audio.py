"""Speech in folders and archives, against files that SciPy and soundfile write."""

import io

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

from ssl_extract import data, evaluation, padding
from ssl_extract.errors import UserError

RNG = np.random.default_rng(0)
PAD = padding.STORED_WAVE


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, count).astype(np.int16)


def tone(hertz, rate, seconds=0.2):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.fixture
def clips(tmp_path):
    """Two speakers with ten clips each, of 8 kHz and of 300 to 390 samples."""
    for speaker, name in enumerate(('bea', 'ann')):  # classes are numbered by sorted names
        (tmp_path / name).mkdir()
        for number in range(10):
            clip = noise(300 + 10 * number, seed=10 * speaker + number)
            wavfile.write(tmp_path / name / f'{number}.wav', 8_000, clip)
    return tmp_path


def load(root, split='all', options='', **kwargs):
    return data.load(f'speech_folder(path="{root}", rate=8000{options})', split, **kwargs)


def held(row):
    return row[row != PAD]


def test_every_clip_is_a_row_with_padding_behind_it(clips):
    whole = load(clips)
    assert (whole.inputs.dtype, whole.inputs.shape, whole.decode) == (np.int16, (20, 390), 'waves')
    assert (whole.num_classes, whole.labels.dtype) == (2, np.int32)
    stored = {held(row).tobytes(): label for row, label in zip(*whole[:2], strict=True)}
    for seed in range(20):
        assert stored[noise(300 + 10 * (seed % 10), seed).tobytes()] == (seed < 10)
    decoded = np.asarray(data.decoder(whole)(whole.inputs))
    np.testing.assert_array_equal(decoded, whole.inputs / 2.0**15)
    assert decoded[whole.inputs == PAD].tolist() == [-1.0] * int((whole.inputs == PAD).sum())


def test_slices_are_stratified_disjoint_and_of_one_width(clips):
    train, test = load(clips, 'all[:80%]'), load(clips, 'all[80%:]')
    assert train.inputs.shape[1] == test.inputs.shape[1] == 390
    np.testing.assert_array_equal(np.bincount(train.labels), [8, 8])
    data.check_disjoint(train, test)


def test_long_clips_are_cut_into_equal_parts_and_nothing_is_lost(clips):
    cut = load(clips, options=', seconds=0.02')  # 160 samples
    assert cut.inputs.shape[1] == 160
    lengths = [len(held(row)) for row in cut.inputs]
    assert (min(lengths), len(lengths)) == (110, 2 * (3 * 2 + 7 * 3))  # to 320: two parts
    whole = load(clips)
    first = np.concatenate([held(row) for row in cut.inputs])
    np.testing.assert_array_equal(first, np.concatenate([held(row) for row in whole.inputs]))
    parts = [load(clips, split, ', seconds=0.02') for split in ('all[:7]', 'all[7:]')]
    np.testing.assert_array_equal(np.concatenate([p.inputs for p in parts]), cut.inputs)
    assert sum(len(held(row)) for row in parts[0].inputs) == sum(
        len(held(row)) for row in whole.inputs[:7]
    )


@pytest.mark.parametrize(('rate', 'ending'), [(8_000, 'flac'), (44_100, 'wav'), (48_000, 'flac')])
def test_another_rate_and_channels_become_mono_of_the_rate(tmp_path, rate, ending):
    (tmp_path / 'a').mkdir()
    stereo = np.stack([tone(440, rate), tone(1_000, rate)], axis=1)
    soundfile.write(tmp_path / 'a' / f'0.{ending}', stereo, rate, subtype='PCM_24')
    row = data.load(f'speech_folder(path="{tmp_path}")', 'all').inputs[0] / 2**15
    expected = (tone(440, 16_000) + tone(1_000, 16_000)) / 2
    assert len(row) == len(expected) == 3_200
    np.testing.assert_allclose(row[200:-200], expected[200:-200], atol=2e-3)


def test_frequencies_above_half_the_rate_do_not_come_back_as_others(tmp_path):
    (tmp_path / 'a').mkdir()
    wavfile.write(tmp_path / 'a' / '0.wav', 16_000, tone(6_000, 16_000).astype(np.float32))
    row = load(tmp_path).inputs[0] / 2**15
    assert np.abs(row[200:-200]).max() < 2e-3


def test_the_least_sample_is_no_padding(tmp_path):
    (tmp_path / 'a').mkdir()
    wavfile.write(tmp_path / 'a' / '0.wav', 8_000, np.array([1, -(2**15), 7], np.int16))
    assert load(tmp_path).inputs.tolist() == [[1, -(2**15) + 1, 7]]


def test_a_size_is_for_images(clips):
    with pytest.raises(UserError, match=r'inputs of \[390\], which size=16 does not change'):
        load(clips, size=16)


def _path(clips):
    return clips / 'ann' / '3.wav'


def _cut_off(clips):
    content = _path(clips).read_bytes()
    _path(clips).write_bytes(content[: len(content) // 2])
    return r'3\.wav is cut off'


def _cut_off_flac(clips):
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(4_000), 8_000, format='FLAC')
    _path(clips).with_suffix('.flac').write_bytes(buffer.getvalue()[:3_000])
    return r'3\.flac cannot be read as sound \(.*\): repair or remove it'


def _text(clips):
    (clips / 'ann' / 'notes.txt').write_text('no sound')
    return r'notes\.txt is no \.wav or \.flac: convert or remove it'


def _text_as_sound(clips):
    _path(clips).write_text('no sound')
    return r'3\.wav cannot be read as sound \(Format not .*\)'


def _nested(clips):
    (clips / 'ann' / 'chapter').mkdir()
    return r'chapter is no \.wav .* directly in the folder of their class'


def _empty(clips):
    wavfile.write(_path(clips), 8_000, np.zeros(0, np.int16))
    return r'3\.wav holds no samples'


def _too_loud(clips):
    wavfile.write(_path(clips), 8_000, np.array([0.5, 1.5], np.float32))
    return r'3\.wav has samples outside of \[-1, 1\], up to 1\.5'


def _not_finite(clips):
    wavfile.write(_path(clips), 8_000, np.array([0.5, np.nan], np.float32))
    return r'3\.wav has samples outside of \[-1, 1\], up to nan'


def _empty_class(clips):
    (clips / 'cat').mkdir()
    return 'cat has no clip'


@pytest.mark.parametrize(
    'wrong',
    [
        *(_cut_off, _cut_off_flac, _text, _text_as_sound, _nested, _empty, _too_loud),
        *(_not_finite, _empty_class),
    ],
)
def test_wrong_files_are_named(clips, wrong):
    message = wrong(clips)
    with pytest.raises(UserError, match=message) as error:
        load(clips)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (', seconds=0', 'seconds must be .* above 0'),
        (', seconds=1e-5', 'less than a sample of 8000 Hz'),
        (', seconds=10000', r'20 rows of 80,000,000 samples would take 3 GiB|20 rows'),
    ],
)
def test_wrong_lengths_are_named(clips, options, message, monkeypatch):
    monkeypatch.setattr('os.sysconf', lambda name: 2**10)  # a machine of 1 MiB
    with pytest.raises(UserError, match=message):
        load(clips, options=options)


LENGTHS = np.array([30, 50, 20, 40] * 5)
AUDIO = noise(LENGTHS.sum())
SPEAKERS = np.array(['zoe', 'ann', 'bob', 'ann'] * 5)
DIGITS = np.arange(20) % 10
ARRAYS = {'audio': AUDIO, 'length': LENGTHS, 'digit': DIGITS, 'speaker': SPEAKERS}
STARTS = np.cumsum(LENGTHS) - LENGTHS


@pytest.fixture
def write(tmp_path):
    """Writes an archive and gives its description."""

    def write(options='', **changed):
        np.savez(tmp_path / 'clips.npz', **(ARRAYS | {'index': np.arange(20) // 4} | changed))
        return f'speech_npz(path="{tmp_path / "clips.npz"}", rate=8000{options})'

    return write


def numbers(dataset):
    """The clips of a set, by their place in the archive."""
    places = {
        AUDIO[s : s + n].tobytes(): i for i, (s, n) in enumerate(zip(STARTS, LENGTHS, strict=True))
    }
    return [places[held(row).tobytes()] for row in dataset.inputs]


def test_an_archive_has_text_and_number_labels_for_the_same_clips(write):
    digit, speaker = (data.load(write(f', labels="{n}"'), 'all[:12]') for n in ('digit', 'speaker'))
    assert numbers(digit) == numbers(speaker) != sorted(numbers(digit))
    rows = numbers(digit)
    np.testing.assert_array_equal(digit.labels, DIGITS[rows])
    np.testing.assert_array_equal(
        speaker.labels, np.searchsorted(['ann', 'bob', 'zoe'], SPEAKERS[rows])
    )
    assert (digit.num_classes, speaker.num_classes) == (10, 3)
    assert (digit.inputs.shape, digit.decode) == ((12, 50), 'waves')
    assert data.load(write(), 'all').labels is None


def test_an_archive_is_split_by_a_condition_or_an_array(write):
    spec = write(', labels="digit", test_where="index<2"')
    test, train = (data.load(spec, split) for split in ('test', 'train'))
    assert sorted(numbers(test)) == [*range(8)] and sorted(numbers(train)) == [*range(8, 20)]
    task = evaluation.make_task(spec)  # which has words of its own, train and test
    assert (len(task.train.inputs), len(task.test.inputs)) == (12, 8)
    one = data.load(write(', labels="digit", splits="speaker"'), 'zoe+bob')
    assert sorted(numbers(one)) == [*range(0, 20, 2)]
    assert test.inputs.shape[1] == one.inputs.shape[1] == 50


def test_an_archive_is_resampled_and_cut(write):
    whole = data.load(write(', to_rate=16000', audio=np.full(700, 900, np.int16)), 'all')
    assert whole.inputs.shape == (20, 100)
    assert sorted(len(held(row)) for row in whole.inputs) == sorted(2 * LENGTHS)
    cut = data.load(write(', labels="digit", seconds=0.003'), 'all')  # 24 samples
    assert cut.inputs.shape == (2 * 5 + 3 * 5 + 5 + 2 * 5, 24)
    parts = np.bincount(DIGITS, weights=-(-LENGTHS // 24))
    np.testing.assert_array_equal(np.bincount(cut.labels), parts)


@pytest.mark.parametrize(
    ('options', 'changed', 'message'),
    [
        ('', {'length': LENGTHS[:-1]}, 'length adds up to 660, and audio has 700 samples'),
        ('', {'length': np.append(LENGTHS, 0)}, 'length holds 0'),
        ('', {'length': LENGTHS / 1.0}, r'length must be integers \[N\], got float64'),
        ('', {'audio': AUDIO / 2**15}, r'audio must be int16 \[S\], .* got float64 \[700\]'),
        ('', {'audio': AUDIO.reshape(20, 35)}, r"rows of one length: npz\(..., decode='waves'\)"),
        (', labels="nope"', {}, "has no array 'nope'"),
        (', labels="digit"', {'digit': DIGITS / 2}, 'digit must hold integers or texts'),
        (', labels="digit"', {'digit': DIGITS[:3]}, r'digit must be \[20\]'),
        (
            ', test_where="index"',
            {},
            "test_where='index': write an array and a number, such as 'index<5'",
        ),
        (', test_where="speaker<5"', {}, 'compares integers'),
        (', test_where="nope<5"', {}, "has no array 'nope'"),
        (', test_where="index<5"', {'split': SPEAKERS}, 'write one of the two'),
        (', splits="digit"', {}, 'digit must hold the names of splits'),
    ],
)
def test_wrong_archives_are_named(write, options, changed, message):
    with pytest.raises(UserError, match=message) as error:
        data.load(write(options, **changed), 'all')
    assert '\n' not in str(error.value)


PADDED = np.full((3, 6), PAD, np.int16)
PADDED[0, :4], PADDED[1, :6], PADDED[2, :1] = [1, 2, 3, 4], 5, 6


def waves(inputs, **fields):
    return data.checked(data.Dataset(inputs, decode='waves', **fields))


def test_padded_rows_of_an_archive_are_waveforms(tmp_path):
    np.savez(tmp_path / 'rows.npz', inputs=PADDED, labels=['b', 'a', 'b'])
    rows = data.load(f'npz(path="{tmp_path / "rows.npz"}", decode="waves")', 'all')
    np.testing.assert_array_equal(rows.inputs, PADDED)
    assert (rows.labels.tolist(), rows.num_classes) == ([1, 0, 1], 2)
    np.testing.assert_array_equal(padding.lengths(data.decoder(rows)(rows.inputs)), [4, 6, 1])
    with pytest.raises(UserError, match='int16 has no decoder .* identity, images, .*waves'):
        data.load(f'npz(path="{tmp_path / "rows.npz"}")', 'all')


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (np.array([[1, 2], [PAD, 2]], np.int16), r'row 1 has -32768 before its end'),
        (np.array([[1, 2], [PAD, PAD]], np.int16), r'row 1 has -32768 .* or nothing else'),
        (np.ones((2, 4), np.int32), r"decode='waves' takes int16 \[N, T\], got int32 \[2, 4\]"),
        (np.ones((2, 4, 4), np.int16), r'got int16 \[2, 4, 4\]'),
    ],
)
def test_what_is_no_waveform_is_refused(inputs, message):
    with pytest.raises(UserError, match=message):
        waves(inputs)


def test_a_clip_is_found_in_rows_of_another_width():
    wider = np.full((2, 9), PAD, np.int16)
    wider[0, :4], wider[1, :5] = [1, 2, 3, 4], 5
    train, test = waves(PADDED, name='train'), waves(wider, name='test')
    assert data.count_shared(train, test) == data.count_shared(test, train) == 1
    with pytest.raises(UserError, match='1 of the 2 inputs of test are among those of train'):
        data.check_train_test(train, test)
    data.check_disjoint(train, test._replace(inputs=wider[1:]))  # 5 x 5 is not 6 x 5
    with pytest.raises(UserError, match='cannot compare'):
        data.count_shared(train, data.Dataset(wider, decode='identity'))


def test_floats_that_are_no_waveforms_are_refused():
    floats = np.array([[0.5, -0.5, -1.0]], np.float32)
    data.check_waves(data.Dataset(floats), 'gain')
    with pytest.raises(
        UserError, match=r'values of -1 to 2, and gain takes waveforms in \[-1, 1\]'
    ):
        data.check_waves(data.Dataset(floats * [[4, 1, 1]]), 'gain')
    with pytest.raises(UserError, match='row 0 has -1.0 before its end'):
        data.check_waves(data.Dataset(floats[:, ::-1]), 'gain')
