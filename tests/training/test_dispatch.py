"""Several steps as one program: the same training, cut anywhere, asked anything, on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_extract import attacks, augment, defenses, encoders, losses, training, victims
from ssl_extract.encoders import onednn
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle
from ssl_extract.pipeline.run import prepare
from ssl_extract.runtime import loggers, parallel
from ssl_extract.training import loop

VIT = 'vit(patch=4, width=8, depth=1, heads=2)'
RESNET = 'resnet18(stem="patch", width=4, stages=(1,))'
BFLOAT16 = 'resnet18(stem="patch", width=8, stages=(1,), dtype="bfloat16")'
ENCODER = encoders.make(VIT)
FLIP = augment.make('flip')
SIMCLR = victims.VICTIMS.make('simclr(hidden=8, dim=8)', encoder=ENCODER, augmentation=FLIP)
SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
# Plain descent: Adam makes as much of a gradient that is 0 but for rounding, as of any other.
GIVEN = dict(num_steps=10, batch_size=8, checkpoint_every=6, log_every=5, optimizer='sgd')


def fit(folder, most, recipe=SIMCLR, devices=1, **given):
    mesh = parallel.data_mesh(devices)
    given = {'data': {'inputs': IMAGES}, 'learning_rate': 0.1} | GIVEN | given
    return training.fit(recipe, folder=folder, mesh=mesh, steps_per_dispatch=most, **given)


def weights(fitted):
    return jax.tree.map(np.asarray, (fitted.state.params, fitted.state.batch_stats))


def same(one, other, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol), one, other)


def metrics(folder):
    return loggers.read_parts(folder / 'metrics')


def test_several_steps_are_the_steps_one_by_one(tmp_path):
    """Programs of four end at 4, 5, 6, 10: the loop serves the short ones too."""
    one, four = (fit(tmp_path / str(most), most) for most in (1, 4))
    mesh = parallel.data_mesh(1)
    assert loop.make_step(SIMCLR, 'sgd', 'cosine', mesh, augment.to_float, 4)._cache_size() == 1
    same(weights(one), weights(four))
    rows = [metrics(tmp_path / name) for name in '14']
    assert [row['step'] for row in rows[1]] == list(range(10))
    for name in ('loss', 'learning_rate'):
        np.testing.assert_allclose(*([row[name] for row in each] for each in rows), rtol=1e-4)
    assert len({row['loss'] for row in rows[1]}) == 10
    assert four.flops == pytest.approx(one.flops, rel=0.05)


@pytest.mark.parametrize('before', [pytest.param(1, marks=pytest.mark.wide), 4])
def test_a_stopped_training_goes_on_with_another_number_of_steps(tmp_path, before, monkeypatch):
    """It is stopped within a program, after the checkpoint of step 6."""
    whole = fit(tmp_path / 'whole', 1)
    fetch, calls = loop._fetch, []

    def stop(pending):
        calls.append(pending[-1][0].stop)
        if calls[-1] == 10:
            raise KeyboardInterrupt
        return fetch(pending)

    monkeypatch.setattr(loop, '_fetch', stop)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / 'stopped', before)
    monkeypatch.undo()
    assert calls == [5, 6, 10] and len(metrics(tmp_path / 'stopped')) == 6
    same(weights(whole), weights(fit(tmp_path / 'stopped', 5 - before)))
    assert [row['step'] for row in metrics(tmp_path / 'stopped')] == list(range(10))


def test_queries_within_a_program_are_paid_and_written_as_ever(tmp_path):
    """37 of the budget: the fifth of five batches is paid in part."""
    variables = ENCODER.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))
    encode = jax.tree_util.Partial(ENCODER.apply, variables)
    oracle = make_oracle(encode, defenses.make('gaussian_noise(stddev=0.1)'), budget=37)
    attack = attacks.make(
        'direct',
        encoder=ENCODER,
        answer_dim=encoders.dim(ENCODER, SHAPE),
        plan=attacks.PLANS.make('online', query_augmentation=FLIP),
        loss=losses.make('mse'),
        student_augmentation=augment.make(''),
    )
    account = oracle.init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
    given = dict(recipe=attack.recipe, num_steps=5, oracle=oracle)
    one, three = (
        fit(tmp_path / str(most), most, account=jax.tree.map(jnp.copy, account), **given)
        for most in (1, 3)
    )
    np.testing.assert_array_equal(one.queries, three.queries)
    assert len(three.queries) == int(three.state.oracle.num_queries) == 37
    assert int(three.state.oracle.num_refused) == 3
    same(weights(one), weights(three))


def test_batches_from_the_host_are_those_of_the_devices(tmp_path, monkeypatch):
    resident = fit(tmp_path / 'resident', 4)
    monkeypatch.setattr(loop, 'RESIDENT_BYTES', 0)
    same(weights(resident), weights(fit(tmp_path / 'sent', 4)), atol=0)


@pytest.mark.devices
def test_one_device_is_four(tmp_path):
    one, four = (fit(tmp_path / str(devices), 4, devices=devices) for devices in (1, 4))
    same(weights(one), weights(four))


@pytest.mark.parametrize(
    ('devices', 'resident'),
    [
        (1, True),
        pytest.param(1, False, marks=pytest.mark.wide),
        pytest.param(2, True, marks=[pytest.mark.devices, pytest.mark.wide]),
        pytest.param(2, False, marks=[pytest.mark.devices, pytest.mark.wide]),
    ],
)
def test_replicas_take_several_steps_too(tmp_path, monkeypatch, devices, resident):
    given = [
        training.Replica({'inputs': IMAGES[::step]}, seed, 0.1, tmp_path / 'both' / str(seed))
        for seed, step in enumerate((1, -1))
    ]
    mesh = parallel.data_mesh(devices)
    if not resident:
        monkeypatch.setattr(loop, 'RESIDENT_BYTES', 0)
    training.fit_together(SIMCLR, given, mesh=mesh, steps_per_dispatch=4, **GIVEN)
    for replica in given:
        apart = fit(tmp_path / f'apart{replica.seed}', 1, data=replica.data, seed=replica.seed)
        before = {path: path.stat().st_mtime_ns for path in replica.folder.rglob('*')}
        found = fit(replica.folder, 1, data=replica.data, seed=replica.seed)
        assert {path: path.stat().st_mtime_ns for path in before} == before  # it was finished
        same(weights(found), weights(apart))
        assert [row['step'] for row in metrics(replica.folder)] == list(range(10))


@pytest.mark.skipif(not onednn.is_here(), reason='needs oneDNN on one device')
def test_convolutions_of_onednn_may_stand_in_a_loop(tmp_path):
    recipe = victims.VICTIMS.make('simclr', encoder=encoders.make(RESNET), augmentation=FLIP)
    same(*(weights(fit(tmp_path / str(most), most, recipe=recipe)) for most in (1, 4)))


def test_those_of_xla_may_not_on_a_cpu(tmp_path):
    network = encoders.make(BFLOAT16)
    recipe = victims.VICTIMS.make('simclr', encoder=network, augmentation=FLIP)
    with pytest.raises(UserError, match='on a CPU a convolution .*; write 1') as caught:
        fit(tmp_path, 2, recipe=recipe)
    assert '\n' not in str(caught.value)
    traced = jax.make_jaxpr(network.init)(jax.random.key(0), jnp.ones((1, *SHAPE)))
    training.check_loop(traced, 'gpu')


@pytest.mark.parametrize('field', ['victim', 'attack'])
def test_they_are_refused_before_work_starts(tmp_path, field):
    c = tiny.get_config()
    c.runs = ()
    c.training.steps_per_dispatch = 4
    c.victim.encoder = c.attack.encoder = VIT
    c[field].encoder = BFLOAT16
    with pytest.raises(UserError, match='training.steps_per_dispatch'):
        prepare(c, tmp_path / 'workdir')
    assert not (tmp_path / 'workdir').exists()
