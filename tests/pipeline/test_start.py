"""Starts of the surrogate: what it starts from, what that costs, and what is refused."""

import json

import jax
import numpy as np
import pytest
import small

import ssl_extract
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.pipeline import run

STILL = {'attack__learning_rate': 1e-12, 'attack__optimizer': 'sgd'}  # it stays where it starts
OWN = {'attack__init': 'scratch', 'baselines__scratch_epochs': 2}


def run_small(workdir, **fields):
    c = small.get_config()
    c.update_from_flattened_dict({name.replace('__', '.'): v for name, v in fields.items()})
    return run.run(c, workdir=workdir)


def params(encoder):
    return jax.tree.map(np.asarray, encoder.variables['params'])


def close(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.allclose(x, y, atol=1e-6) for x, y in pairs)


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    """A workdir of a surrogate that starts from the attacker's own encoder, and the rows."""
    workdir = tmp_path_factory.mktemp('begun')
    return workdir, run_small(workdir, **STILL, **OWN, baselines__scratch_inputs=100)


def encoder_of(workdir, kind):
    (folder,) = (path.parent for path in workdir.glob(f'{kind}/*/meta.json'))
    return trained.load(folder), json.loads((folder / 'meta.json').read_text())


def test_the_surrogate_starts_from_the_attackers_own_encoder_and_pays_for_it(begun):
    workdir, rows = begun
    (own, own_meta), (stolen, meta) = (encoder_of(workdir, k) for k in ('scratch', 'surrogate'))
    assert close(params(own), params(stolen))
    assert meta['flops'] > own_meta['flops'] > 0 and meta['seconds'] > own_meta['seconds']
    values = {row['role']: row for row in rows if row['metric'] == 'linear_probe'}
    assert values['scratch']['budget'] == 100 and values['surrogate']['budget'] == 32
    assert values['surrogate']['queries_billed'] == 32


def test_a_saved_encoder_is_a_start_too_and_is_another_stage(begun, tmp_path):
    (folder,) = (path.parent for path in begun[0].glob('scratch/*/meta.json'))
    saved = f'checkpoint(path="{folder}")'
    run_small(tmp_path, **STILL, attack__init=saved)
    stolen, _ = encoder_of(tmp_path, 'surrogate')
    assert close(params(trained.load(folder)), params(stolen))
    (address,) = (path.parent.name for path in tmp_path.glob('surrogate/*/meta.json'))
    assert not (begun[0] / 'surrogate' / address).exists()


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'attack__init': 'scrach'}, "unknown start 'scrach': did you mean 'scratch'"),
        ({'attack__init': 'scratch'}, 'is the attacker.s own encoder: set baselines.scratch_epoch'),
        ({'attack__init': 'checkpoint(path="nowhere")'}, 'nowhere'),
        (
            {**OWN, 'baselines__scratch_inputs': 137},
            'digits.* has 13. different inputs; write at m',
        ),
    ],
)
def test_a_start_that_is_not_there_is_refused_before_any_work(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_small(tmp_path, **fields)
    assert not list(tmp_path.glob('victim/*'))


def test_a_start_of_another_network_is_refused(begun, tmp_path):
    (folder,) = (path.parent for path in begun[0].glob('scratch/*/meta.json'))
    other = {'attack__encoder': 'resnet18(stem="patch", width=8, stages=(1,))'}
    with pytest.raises(UserError, match='write attack.encoder=.*width=4'):
        run_small(tmp_path, attack__init=f'checkpoint(path="{folder}")', **other)


def test_in_a_notebook_an_encoder_or_its_folder_is_the_start(begun):
    (folder,) = (path.parent for path in begun[0].glob('scratch/*/meta.json'))
    own = ssl_extract.load(folder)
    inputs = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    answers = ssl_extract.collect(ssl_extract.make_oracle(own, budget=40), inputs)
    call = dict(encoder=own.spec, epochs=1, batch_size=40, learning_rate=1e-12, optimizer='sgd')
    for init in (own, folder):
        assert close(params(ssl_extract.steal(answers, init=init, **call)), params(own))
    assert not close(params(ssl_extract.steal(answers, **call)), params(own))
    assert np.isfinite(own.apply(inputs / np.float32(255))).all()  # it was copied, not taken
    with pytest.raises(UserError, match='init: resnet18.* is not the surrogate'):
        ssl_extract.steal(answers, init=own, **{**call, 'encoder': 'vit(depth=1, width=12)'})
