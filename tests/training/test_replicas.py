"""Trainings together: the same as one by one, after a stop too; one that fails stops no other."""

import jax
import numpy as np
import pytest

from ssl_extract import augment, encoders, training, victims
from ssl_extract.errors import UserError
from ssl_extract.runtime import loggers, parallel
from ssl_extract.training import Replica

pytestmark = pytest.mark.devices

ENCODER = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
SIMCLR = victims.VICTIMS.make(
    'simclr(hidden=8, dim=8)', encoder=ENCODER, augmentation=augment.make('flip')
)
GIVEN = dict(num_steps=10, batch_size=8, checkpoint_every=4, log_every=3)
RATES = (1e-3, 3e-3, 1e-3, 1e-3)


def arrays(seed):
    images = np.random.default_rng(seed).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    return {'inputs': images}


def replicas(folder, rates=RATES):
    return [
        Replica(arrays(seed % 2), seed, rate, folder / str(seed)) for seed, rate in enumerate(rates)
    ]


def together(recipe, given, devices=4, **kwargs):
    training.fit_together(recipe, given, mesh=parallel.data_mesh(devices), **GIVEN | kwargs)


def alone(recipe, replica, devices=1, **kwargs):
    """`fit` in the folder of a replica."""
    return training.fit(
        recipe,
        replica.data,
        seed=replica.seed,
        learning_rate=replica.learning_rate,
        folder=replica.folder,
        mesh=parallel.data_mesh(devices),
        **GIVEN | kwargs,
    )


def weights(fit):
    return jax.tree.map(np.asarray, (fit.state.params, fit.state.batch_stats))


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, other)


@pytest.mark.parametrize('devices', [1, 4])
def test_replicas_end_where_each_ends_alone(tmp_path, devices):
    given = replicas(tmp_path / 'together')
    together(SIMCLR, given, devices)
    ends = []
    for replica, apart in zip(given, replicas(tmp_path / 'apart'), strict=True):
        before = {p: p.stat().st_mtime_ns for p in replica.folder.rglob('*') if p.is_file()}
        found, expected = alone(SIMCLR, replica), alone(SIMCLR, apart)
        assert {p: p.stat().st_mtime_ns for p in before} == before  # nothing was left to do
        close(weights(found), weights(expected))
        rows = [loggers.read_parts(each.folder / 'metrics') for each in (replica, apart)]
        assert [row['step'] for row in rows[0]] == list(range(10))
        np.testing.assert_allclose(*([row['loss'] for row in each] for each in rows), rtol=1e-4)
        assert found.flops == pytest.approx(expected.flops, rel=0.2)
        ends.append(rows[0][-1]['loss'])
    assert len(set(ends)) == len(ends)  # four trainings, and not one four times


def test_replicas_go_on_from_their_own_checkpoints(tmp_path):
    given = replicas(tmp_path / 'stopped')
    for replica in given[:2]:  # two of four came as far as the first checkpoint, then all stopped
        alone(SIMCLR, replica, num_steps=4, schedule='constant')
    together(SIMCLR, given, devices=2, schedule='constant')
    for replica, apart in zip(given, replicas(tmp_path / 'apart'), strict=True):
        expected = alone(SIMCLR, apart, schedule='constant')
        close(weights(alone(SIMCLR, replica, schedule='constant')), weights(expected))
        rows = loggers.read_parts(replica.folder / 'metrics')
        assert [row['step'] for row in rows] == list(range(10))


def test_what_devices_cannot_share_out_after_a_stop_is_left_to_fit(tmp_path):
    given = replicas(tmp_path)
    alone(SIMCLR, given[0], num_steps=4, schedule='constant')
    together(SIMCLR, given, devices=2, schedule='constant')  # groups of one and of three
    ends = [4, 10, 10, 0]
    for replica, end in zip(given, ends, strict=True):
        assert [r['step'] for r in loggers.read_parts(replica.folder / 'metrics')] == [*range(end)]


def test_a_replica_that_is_not_finite_is_left_and_stops_no_other(tmp_path):
    given = replicas(tmp_path, rates=(1e-3, 1e30, 1e-3, 1e-3))
    together(SIMCLR, given, optimizer='sgd(momentum=0.0)', schedule='constant')
    for index in (0, 2, 3):
        alone(SIMCLR, given[index], optimizer='sgd(momentum=0.0)', schedule='constant')
    with pytest.raises(FloatingPointError, match='not finite|the loss is'):
        alone(SIMCLR, given[1], optimizer='sgd(momentum=0.0)', schedule='constant')


def test_replicas_of_other_shapes_or_too_few_are_refused(tmp_path):
    given = replicas(tmp_path)
    with pytest.raises(UserError, match='3 replicas cannot be shared out over 2 devices'):
        together(SIMCLR, given[:3], devices=2)
    other = given[1]._replace(data={'inputs': given[1].data['inputs'][:24]})
    with pytest.raises(UserError, match='replica 1 has arrays .*: train it apart'):
        together(SIMCLR, [given[0], other], devices=2)
    assert not list(tmp_path.rglob('metrics'))
