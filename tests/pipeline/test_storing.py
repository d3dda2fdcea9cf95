"""A finished victim, stored as a file, and the runs of that file."""

import numpy as np
import pytest
import small
import untrained

from ssl_extract import config, data
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.pipeline import run, storing, victim
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.runtime import files, parallel
from ssl_extract.victims import stored

SPEC = 'resnet18(stem="patch", width=4, stages=(1,))'
COSTS = ('role', 'metric', 'value', 'ci_low', 'ci_high', 'n', 'encoder', 'flops')
RUN_IN = "python /home/someone/launch.py --config='my config.py' --workdir=/data/runs"


def make_config(**fields):
    c = small.get_config()
    c.update_from_flattened_dict({name.replace('__', '.'): v for name, v in fields.items()})
    return c


def compute(cfg, workdir):
    """The rows of the only run of a config, without a report."""
    (current,) = run.prepare(cfg, workdir)
    sets = load_sets(current)
    return run.compute(current, sets, victim.sketch_of(current, sets)).rows


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A workdir with a finished run, its rows, and the file of its victim."""
    workdir = tmp_path_factory.mktemp('finished')
    rows = compute(make_config(), workdir)
    name = str(workdir / 'files' / 'mine.safetensors')
    path = storing.store(make_config(), name, workdir=workdir, command=RUN_IN)
    return workdir, rows, path


def known(rows):
    return [{name: row.get(name) for name in COSTS} for row in rows]


def test_a_run_of_the_file_has_the_rows_of_the_run_that_pretrained(finished, tmp_path, capsys):
    _, rows, path = finished
    cfg = make_config(victim__source=f'stored("{path}")', victim__encoder='')
    again = compute(cfg, tmp_path)
    assert known(again) == known(rows)
    (one,) = {row['seconds'] for row in rows if row['role'] == 'victim'}
    (other,) = {row['seconds'] for row in again if row['role'] == 'victim'}
    assert round(one, 2) == other > 0
    assert not (tmp_path / 'victim').exists()  # nothing was pretrained
    assert f'note: the victim is stored("{path}"), 420 par' in capsys.readouterr().err


def test_the_file_tells_what_made_it(finished):
    workdir, rows, path = finished
    about = stored.read(str(path)).about
    trained = about['trained']
    assert (trained['data'], trained['inputs'], trained['epochs']) == ('digits/train[:64]', 64, 1)
    assert about['command'] == "python launch.py '--config=my config.py' --workdir=runs"
    probes = [r for r in about['rows'] if r['metric'] == 'linear_probe']
    (row,) = (r for r in rows if (r['role'], r['metric']) == ('victim', 'linear_probe'))
    assert probes == [{name: row[name] for name in probes[0]}]
    assert about['evaluation']['labels'] == 200
    sample = files.read_npz(path.parent / about['sample']['file'])
    assert len(sample['labels']) == about['sample']['n'] == 100  # the whole test set
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        ['mine.safetensors', about['sample']['file']]
    )


def noted(path, **fields):
    cfg = make_config(victim__source=f'stored("{path}")', **fields)
    (one,) = config.expand(cfg)
    made = make_run(one, 'nowhere', parallel.data_mesh())
    return victim.notes_of(made, load_sets(made))[1:]


def test_what_the_victim_has_seen_and_another_recipe_are_said(finished):
    _, _, path = finished
    overlapping = ('digits(train="train[200:400]", test="train[:80]")',)
    assert noted(path) == []
    (note,) = noted(path, attack__split='train[80:200]', evaluation__tasks=overlapping)
    assert note.startswith('64 of the 80 inputs of digits/train[:80] are among those of digits/tr')
    (note,) = noted(path, victim__split='train[:63]')
    assert note.startswith('the victim was trained on digits/train[:64], and data.name with victim')
    recipe = {'victim__method': 'simsiam', 'victim__learning_rate': 0.1, 'victim__epochs': 9}
    assert noted(path, **recipe) == []
    (note,) = noted(path, baselines__scratch_epochs=1, **recipe)
    assert 'another victim.learning_rate, victim.method than the victim was trained' in note


def refused(workdir, cfg, name='mine'):
    with pytest.raises(UserError) as caught:
        storing.store(cfg, name, workdir=workdir)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_stored_is_refused_in_one_line(finished, tmp_path):
    workdir, _, path = finished
    message = refused(workdir, make_config(victim__seed=5))
    assert 'there is no finished victim of this config (victim/' in message
    assert 'no finished victim' in refused(tmp_path, make_config())
    seeds = make_config(runs=config.grid(victim__seed=(0, 1)))
    assert 'the runs have 2 victims: name one by --run_index=' in refused(workdir, seeds)
    loaded = make_config(victim__source=f'stored("{path}")')
    assert 'only a victim that its workdir pretrained is stored' in refused(workdir, loaded)
    assert 'write a name of letters' in refused(workdir, make_config(), 'no/name')


def test_a_large_victim_is_stored_in_half_the_bytes_or_elsewhere():
    large = Encoder(SPEC, {'params': {'w': np.zeros((1501, 1000))}, 'batch_stats': {}}, (8, 8, 3))
    large.variables['params']['w'] = large.variables['params']['w'].astype(np.float32)
    with pytest.raises(UserError, match='take 6.0 MB as float32, and .* 6 MB at most: write --int'):
        storing.check_size('mine', large, 'float32')
    storing.check_size('mine', large, 'int16')


def test_whole_numbers_that_move_answers_are_refused():
    encoder = untrained.victim(SPEC).encoder
    inputs = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    inputs[..., 0] = 0
    sample = storing.Sample('digits', data.checked(data.Dataset(inputs)))
    _, moved = storing.as_stored(encoder, 'int16', sample)
    assert 0 < moved < 1e-3
    (stem,) = (v for k, v in encoder.variables['params'].items() if 'kernel' in v and k != 'head')
    stem['kernel'] = np.asarray(stem['kernel']).copy()
    stem['kernel'][..., 0, :] = 1e4  # of the channel that is black in all inputs
    with pytest.raises(UserError, match='--int16 moves an answer by .* of its size, and 1e-03 is'):
        storing.as_stored(encoder, 'int16', sample)
