"""The command `score`, on the files of the page that explains it."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import ROOT

from ssl_extract import cli, ownership, victims
from ssl_extract.encoders import chain, trained
from ssl_extract.ownership import represented, sslguard
from ssl_extract.ownership.base import TESTS

PAGE = (ROOT / 'docs/how_to/ownership.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r'^```bash\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
PREDICTOR = 'rotation_predictor(hidden=4)'
RUN = [shlex.split(command) for command in COMMANDS if 'same_distances' in command]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The victim, the suspects and the independents of the page, and its own test."""
    folder = tmp_path_factory.mktemp('owner')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        (folder / 'my_ownership_tests.py').write_text(BLOCKS[0])
        (folder / 'new (2).txt').write_text('no encoder')
        exec(BLOCKS[1], {'ownership': ownership})
        entries = dict(TESTS.entries)
        yield folder
        TESTS.entries = entries
        sys.modules.pop('my_ownership_tests', None)


def call(capsys, *words):
    code = cli.main(['ssl-extract', 'score', *words])
    return code, *capsys.readouterr()


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('words', RUN, ids=lambda words: words[-1])
def test_the_commands_of_the_page_find_the_copies(words, folder, capsys):
    code, out, _ = call(capsys, *words[2:])
    assert code == 0 and f'scores: {folder}/scores.csv' in out
    rows = rows_of(folder / 'scores.csv')
    assert list(rows[0]) == list(ownership.scoring.Score._fields)
    independents = [row for row in rows if row['role'] == 'independent']
    assert len(independents) == 8 and f'report: {folder}/scores.report/report.html' in out
    rows = [row for row in rows if row['role'] == 'suspect']
    verdicts = {row['encoder']: row['verdict'] for row in rows}
    assert verdicts == {
        'int8.safetensors': 'stolen',
        'other.safetensors': 'not shown',
        'pruned.safetensors': 'stolen',
    }
    assert {row['null'] for row in rows} == {'independents, m=8'}
    printed = out.splitlines()
    assert printed[0].split() == [name for name in rows[0] if name != 'role']
    assert [line.split()[0] for line in printed[1:4]][-1] == 'other.safetensors'
    before = (folder / 'scores.csv').read_bytes()
    times = {path: path.stat().st_mtime_ns for path in folder.glob('scores.kept/*.json')}
    assert call(capsys, *words[2:])[0] == 0 and (folder / 'scores.csv').read_bytes() == before
    assert len(times) == 11 and all(path.stat().st_mtime_ns == t for path, t in times.items())


def test_known_truths_are_checked_first_and_measure_the_test(folder, capsys):
    (command,) = RUN
    truth = folder / 'truth.csv'
    truth.write_text('encoder,truth,how,queries\npruned.safetensors,stolen,pruned,\n')
    code, out, err = call(capsys, *command[2:], '--truth=truth.csv', '--out=known.csv')
    assert code == 2 and 'suspect int8.safetensors is not in the table' in err
    assert not (folder / 'known.kept').exists()
    with truth.open('a') as file:
        file.write('int8.safetensors,stolen,int8,\nother.safetensors,independent,noise,\n')
    code, out, _ = call(capsys, *command[2:], '--truth=truth.csv', '--out=known.csv')
    assert code == 0 and 'same_distances: accuses' not in out  # seven others are too few
    words = (folder / 'known.report/report.md').read_text()
    assert '| int8 | 1/1, p &lt;0.001 |' in words and '| independent: noise | 0/1, p ' in words


FILES = ('--victim=victim.safetensors', '--suspects=suspects', '--independents=independents')


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--suspects=suspects'], 'score: write --victim=...'),
        ([*FILES, 'x'], "unexpected 'x'"),
        ([*FILES, '--out=scores.txt'], 'write a name that ends in .csv'),
        ([*FILES, '--public=digits'], "--public='digits/train'"),
        ([*FILES, '--public=npz(path="a/b.npz")'], "--public='digits/train'"),
        ([*FILES, '--public=digits/test[:40]', '--tests=same('], "--tests='one,other(a=1)'"),
        ([*FILES, '--public=digits/test[:40]', '--tests=a) or (b'], "--tests='one,other(a=1)'"),
        ([*FILES, '--public=digits/test[:40]', '--tests=a\nb'], "--tests='one,other(a=1)'"),
        ([*FILES, '--public=digits/test[:40]', '--tests=sam'], 'unknown ownership test'),
        ([*FILES, '--public=digits/test[:40]', '--size=9'], 'each input is [9, 9, 3]'),
        (
            [*FILES, '--public=digits/test[:40]', '--private=digits/test[20:60]'],
            '20 of the 40 public inputs digits/test[:40] are among the private inputs',
        ),
        (['--victim=v.onnx', '--suspects=suspects'], 'v.onnx is not there'),
        (['--victim=new (2).txt', '--suspects=suspects'], 'new (2).txt: write a name that ends'),
        ([FILES[0], '--suspects=.'], 'is no encoder: in a folder of encoders, keep'),
        ([*FILES[:2], '--independents=suspects', '--public=digits/test[:40]'], 'is the same as'),
    ],
)
def test_wrong_flags_are_refused_in_one_line(words, said, folder, capsys):
    code, out, err = call(capsys, *words)
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1
    assert said in err


def test_a_folder_or_file_of_an_encoder_is_one_suspect(folder):
    assert list(represented.in_folder(folder / 'victim.safetensors')) == ['victim.safetensors']
    assert len(represented.in_folder(folder / 'independents')) == 8


def test_the_mark_is_the_victims_head_or_the_secret_of_a_file(tmp_path):
    from ssl_extract.cli import scoring

    spec, heads = 'resnet18(stem="patch", width=4, stages=(1,))', (('rotation', PREDICTOR),)
    networks = trained.networks_of(spec, heads)
    joint = chain.init(networks, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    parts = {name: chain.part(joint, name) for name in networks}
    plain = trained.Encoder(spec, parts['encoder'], (8, 8, 3))
    marked = plain._replace(heads=heads, head_variables={'rotation': parts['rotation']})
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = trained.make_head(PREDICTOR).apply(parts['rotation'], rows)[:, 0]
    np.testing.assert_array_equal(scoring._mark_of('', marked)(rows), expected)
    loaded = victims.from_encoder(marked)  # as a source gives it
    np.testing.assert_array_equal(scoring._mark_of('', loaded)(rows), expected)
    assert scoring._mark_of('', plain) is None
    secret = sslguard.Secret(*np.ones((3, 2), np.float32), {'kernel0': np.eye(2), 'bias0': rows[0]})
    paths = [str(tmp_path / f'{name}.safetensors') for name in 'ab']
    for path in paths:
        sslguard.save(path, secret)
    found = scoring._mark_of(', '.join(paths), marked)
    assert len(found) == 2 and all(isinstance(part, sslguard.Secret) for part in found)


def test_tests_are_split_at_the_outer_commas():
    from ssl_extract.cli import scoring

    assert scoring._specs_of('one, two(a=1, b="x,y")') == ['one', "two(a=1, b='x,y')"]
    assert scoring._specs_of('') is None


SLOW = """
import pathlib
import time

import numpy as np

from ssl_extract import ownership


@ownership.register('slow_means', needs=('public',))
def slow_means():
    def test(case, suspect):
        means = suspect(case.public).mean(axis=0)
        with pathlib.Path('ran').open('a') as file:
            file.write(f'{means[0]}\\n')
        time.sleep(0.5)
        return ownership.Evidence(means.std(), len(case.public))

    return test
"""


@pytest.mark.wide
def test_a_killed_command_goes_on_and_runs_no_finished_encoder_again(folder, tmp_path):
    for name in ('suspects', 'independents', 'victim.safetensors'):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, tmp_path / name)
    (tmp_path / 'my_slow_tests.py').write_text(SLOW)
    flags = ['--public=digits/test[:40]', '--modules=my_slow_tests', '--tests=slow_means']

    def start(out):
        command = [sys.executable, str(ROOT / 'launch.py'), 'score', *FILES, *flags]
        return subprocess.Popen(
            [*command, f'--out={out}'],
            cwd=tmp_path,
            env=os.environ | {'PYTHONPATH': str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    killed = start('scores.csv')
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob('scores.kept/*.json'))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finished = len(list(tmp_path.glob('scores.kept/*.json')))
    assert 4 <= finished < 11 and not (tmp_path / 'scores.csv').exists()
    (tmp_path / 'ran').unlink()
    for out, ran in (('scores.csv', 11 - finished), ('whole.csv', 11)):
        process = start(out)
        text = process.communicate(timeout=600)[0]
        assert process.returncode == 0, text
        assert len((tmp_path / 'ran').read_text().splitlines()) == ran
        (tmp_path / 'ran').unlink()
    assert (tmp_path / 'scores.csv').read_bytes() == (tmp_path / 'whole.csv').read_bytes()
