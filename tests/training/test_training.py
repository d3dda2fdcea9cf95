"""The step, the loop, metrics and checkpoints; schedules and optimizers against closed forms."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_extract import augment, checks, encoders, losses, training, victims
from ssl_extract.errors import UserError
from ssl_extract.runtime import checkpoint, files, loggers, parallel
from ssl_extract.training import loop

MESH = parallel.data_mesh()
ENCODER = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
SIMCLR = victims.VICTIMS.make(
    'simclr(hidden=8, dim=8)', encoder=ENCODER, augmentation=augment.make('flip')
)


def linear(slope=1.0):
    """A recipe with a closed form: one parameter w, loss = slope * w."""
    return training.Recipe(
        init=lambda key, images: {'params': {'w': jnp.ones([])}, 'batch_stats': {}},
        prepare=lambda batch, key, oracle, oracle_state: (batch, oracle_state, None),
        objective=lambda params, batch_stats, batch: (slope * params['w'], (batch_stats, {})),
    )


def fit(recipe, folder, data=IMAGES, mesh=MESH, **kwargs):
    given = dict(num_steps=10, batch_size=8, learning_rate=1e-3, checkpoint_every=4, log_every=3)
    return training.fit(recipe, {'inputs': data}, folder=folder, mesh=mesh, **given | kwargs)


def weights(state):
    return jax.tree.map(np.asarray, (state.params, state.batch_stats))


@pytest.mark.parametrize('warmup', [0.0, 0.25])
def test_cosine_schedule_steps_as_written(tmp_path, warmup):
    fit(linear(), tmp_path, num_steps=8, learning_rate=0.1, schedule=f'cosine(warmup={warmup})')
    rates = [row['learning_rate'] for row in loggers.read_parts(tmp_path / 'metrics')]
    progress = np.arange(8) / 8
    expected = 0.1 * 0.5 * (1 + np.cos(np.pi * (progress - warmup) / (1 - warmup)))
    if warmup:
        expected = np.where(progress < warmup, 0.1 * progress / warmup, expected)
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)


def test_sgd_with_momentum_and_decay_is_the_textbooks(tmp_path):
    spec = 'sgd(momentum=0.9, weight_decay=0.5)'
    state = fit(linear(2.0), tmp_path, num_steps=3, optimizer=spec, schedule='constant').state
    w, velocity = 1.0, 0.0
    for _ in range(3):
        velocity = 0.9 * velocity + 2.0 + 0.5 * w
        w -= 1e-3 * velocity
    assert float(state.params['w']) == pytest.approx(w, rel=1e-6)


@pytest.mark.parametrize(
    ('spec', 'reference'),
    [
        ('adam', optax.adam(1e-3)),
        ('lars(weight_decay=0.1)', optax.lars(1e-3, 0.1, momentum=0.9)),
    ],
)
def test_optimizers_are_optaxs_at_a_constant_rate(tmp_path, spec, reference):
    state = fit(linear(), tmp_path, num_steps=3, optimizer=spec, schedule='constant').state
    params = {'w': jnp.ones([])}
    opt_state = reference.init(params)
    for _ in range(3):
        updates, opt_state = reference.update({'w': jnp.ones([])}, opt_state, params)
        params = optax.apply_updates(params, updates)
    assert float(state.params['w']) == pytest.approx(float(params['w']), rel=1e-6)


def regression(inputs):
    """A linear recipe without BatchNorm: the mean squared error of `inputs` to their mean."""
    shape = (inputs[0].size, 3)

    def objective(params, batch_stats, batch):
        rows = batch['inputs'].reshape(len(batch['inputs']), -1)
        loss = losses.mse()(rows @ params['w'], rows @ jnp.full(shape, 1 / len(rows[0])))
        return loss, (batch_stats, {})

    initial = {'params': {'w': jnp.ones(shape)}, 'batch_stats': {}}
    return linear()._replace(init=lambda key, images: initial, objective=objective)


@pytest.mark.parametrize('spec', ['adam', 'sgd(weight_decay=0.1)'])
def test_accumulated_microbatches_are_one_large_batch(tmp_path, spec):
    """40 inputs: 5 batches of 8, or 10 of 4; in the second epoch as in the first."""
    recipe = regression(IMAGES)
    large = fit(recipe, tmp_path / '1', optimizer=spec, learning_rate=0.01, checkpoint_every=3)
    how = dict(optimizer=f'accumulate(steps=2) | {spec}', learning_rate=0.01, checkpoint_every=3)
    small = fit(recipe, tmp_path / '2', batch_size=4, num_steps=20, **how)
    w_small, w_large = (weights(fitted.state)[0]['w'] for fitted in (small, large))
    np.testing.assert_allclose(w_small, w_large, rtol=0, atol=2e-6)
    assert np.max(np.abs(w_large - 1)) > 0.05
    rates = [
        np.array([row['learning_rate'] for row in loggers.read_parts(tmp_path / name / 'metrics')])
        for name in '12'
    ]
    np.testing.assert_allclose(rates[1], np.repeat(rates[0], 2), rtol=1e-6)


def test_the_last_incomplete_group_has_an_update_of_its_own(tmp_path):
    how = dict(schedule='constant', learning_rate=0.1)
    spec = 'accumulate(steps=4) | sgd(momentum=0.0)'
    for num_steps, updates in ((3, 1), (4, 1), (6, 2), (9, 3)):
        folder = tmp_path / str(num_steps)
        state = fit(linear(), folder, optimizer=spec, num_steps=num_steps, **how).state
        assert float(state.params['w']) == pytest.approx(1 - 0.1 * updates, rel=1e-6)


@pytest.mark.parametrize(
    'spec', ['accumulate(steps=2)', 'adam | sgd', 'adam | accumulate(steps=2)', 'accumulate | adam']
)
def test_wrong_chains_of_optimizers_are_refused_in_one_line(spec):
    with pytest.raises(UserError, match='accumulate') as caught:
        training.make_optimizer(spec)
    assert '\n' not in str(caught.value)


def test_bfloat16_trains_and_everything_that_is_kept_is_float32(tmp_path):
    network = encoders.make('resnet18(stem="patch", width=4, stages=(1,), dtype="bfloat16")')
    dtypes = []

    def objective(params, batch_stats, batch):
        variables = {'params': params, 'batch_stats': batch_stats}
        outputs, batch_stats = network.train(variables, batch['inputs'])
        dtypes.append(outputs.dtype.name)
        return losses.mse()(outputs, jnp.full_like(outputs, 2.0)), (batch_stats, {})

    recipe = linear()._replace(init=network.init, objective=objective)
    state = fit(recipe, tmp_path, num_steps=20, learning_rate=1e-2).state
    kept = (state.params, state.batch_stats, state.opt_state)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(kept)} == {'float32', 'int32'}
    assert set(dtypes) == {'float32'}
    values = [row['loss'] for row in loggers.read_parts(tmp_path / 'metrics')]
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def test_a_finished_fit_is_not_trained_again(tmp_path):
    whole = fit(SIMCLR, tmp_path)
    again = fit(SIMCLR, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, weights(whole.state), weights(again.state))
    rows = loggers.read_parts(tmp_path / 'metrics')
    assert [row['step'] for row in rows] == list(range(10))


def test_a_training_that_differs_in_seed_rate_and_steps_compiles_nothing(tmp_path):
    compiled = []

    def listen(event, seconds, **_):
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.append(event)

    recipe = linear(3.0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    fit(recipe, tmp_path / 'one')
    assert compiled
    compiled.clear()
    fit(recipe, tmp_path / 'two', seed=2, learning_rate=0.5, num_steps=20)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []


EXPLODES = linear()._replace(  # w falls from 1 below 0.995 in four steps
    objective=lambda params, stats, batch: (jnp.log(params['w'] - 0.995), (stats, {}))
)
EXPLODING = dict(optimizer='sgd(momentum=0.0)', learning_rate=5e-6, schedule='constant')


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_checkpoint(tmp_path):
    for _ in range(2):  # the second time it goes on from the checkpoint, to the same end
        with pytest.raises(FloatingPointError, match='train: the loss is nan at step 4;'):
            fit(EXPLODES, tmp_path, **EXPLODING)
        rows = loggers.read_parts(tmp_path / 'metrics')
        assert [row['step'] for row in rows] == list(range(4))


def steep(params, batch_stats, batch):
    """A finite loss whose gradient is NaN: the slope of a root at 0."""
    zero = jnp.nan_to_num(params['w'] - params['w'])
    return 1.0 + jnp.sqrt(zero), (batch_stats, {})


def broken_statistics(params, batch_stats, batch):
    """A finite loss beside statistics that are not, as BatchNorm's in a network that diverges."""
    return params['w'], ({'norm': {'var': jnp.full(3, jnp.inf)}}, {})


def hidden_by_relu(params, batch_stats, batch):
    """A compiled ReLU may turn NaN into 0: the loss is finite, whatever the parameters are."""
    return 1.0 + jnp.clip(jnp.nan_to_num(params['w']), 0.0, 1.0), (batch_stats, {})


@pytest.mark.parametrize(
    ('objective', 'given'),
    [
        (steep, {}),
        (broken_statistics, {}),
        (hidden_by_relu, {'optimizer': 'sgd(weight_decay=1e15)', 'learning_rate': 1e20}),
    ],
)
def test_parameters_that_are_not_finite_stop_at_the_next_log_and_are_never_saved(
    tmp_path, objective, given
):
    recipe = linear()._replace(
        init=lambda key, images: {
            'params': {'w': jnp.ones([])},
            'batch_stats': {'norm': {'var': jnp.ones(3)}},
        },
        objective=objective,
    )
    message = 'train: parameters or statistics are not finite after 3 steps; lower attack.rate'
    with pytest.raises(FloatingPointError, match=message) as caught:
        fit(recipe, tmp_path, field='attack.rate', **given)
    assert '\n' not in str(caught.value)
    assert not list((tmp_path / 'checkpoints').glob('[0-9]*'))
    assert loggers.read_parts(tmp_path / 'metrics') == []


def test_a_checkpoint_that_is_not_finite_is_no_result(tmp_path):
    """As an earlier version of the package may have left it after the last step."""
    state = fit(linear(), tmp_path).state
    broken = state._replace(params={'w': jnp.array(jnp.nan)})
    with contextlib.closing(checkpoint.manager(tmp_path / 'new/checkpoints')) as manager:
        checkpoint.save(manager, 10, broken, {'step': 10, 'seconds': 1.0, 'flops': 1.0})
    with pytest.raises(FloatingPointError, match='not finite after 10 steps; lower learning_rate'):
        fit(linear(), tmp_path / 'new')


def test_a_truncated_checkpoint_is_named_and_nothing_is_trained_anew(tmp_path):
    with pytest.raises(FloatingPointError):
        fit(EXPLODES, tmp_path, **EXPLODING)
    cut = [path for path in (tmp_path / 'checkpoints/4/state').rglob('d/*') if path.is_file()]
    for path in cut:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert cut
    with pytest.raises(UserError, match=r'checkpoint .*checkpoints/4 cannot be read') as caught:
        fit(EXPLODES, tmp_path, **EXPLODING)
    assert '\n' not in str(caught.value)
    assert len(loggers.read_parts(tmp_path / 'metrics')) == 4


def test_resident_and_travelling_data_train_alike(tmp_path, monkeypatch):
    resident = fit(SIMCLR, tmp_path / 'resident', num_steps=4)
    monkeypatch.setattr(training.loop, 'RESIDENT_BYTES', 0)
    travelling = fit(SIMCLR, tmp_path / 'travelling', num_steps=4)
    jax.tree.map(np.testing.assert_array_equal, weights(resident.state), weights(travelling.state))


@pytest.mark.devices
@pytest.mark.parametrize('devices', [1, 2])
def test_fewer_devices_train_like_all(tmp_path, devices):
    every = fit(SIMCLR, tmp_path / 'all', num_steps=4)
    fewer = fit(SIMCLR, tmp_path / 'fewer', num_steps=4, mesh=parallel.data_mesh(devices))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
    jax.tree.map(close, weights(every.state), weights(fewer.state))


def test_the_step_is_compiled_once_for_every_set_size_rate_and_length(tmp_path):
    traced = []

    def objective(params, batch_stats, batch):
        traced.append(1)
        return params['w'] ** 2, (batch_stats, {})

    recipe = linear()._replace(objective=objective)
    fit(recipe, tmp_path / 'a')
    once = len(traced)
    fit(recipe, tmp_path / 'b', data=IMAGES[:24], num_steps=7, learning_rate=1e-2)
    assert len(traced) == once == 1


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own():
    orders = [training.epoch_order(3, epoch, 17) for epoch in range(3)]
    assert all(sorted(order) == list(range(17)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    np.testing.assert_array_equal(orders[1], training.epoch_order(3, 1, 17))


def test_simclr_is_nt_xent_between_the_two_views():
    variables = SIMCLR.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    views = tuple(jax.random.uniform(jax.random.key(i), (8, 8, 8, 3)) for i in (1, 2))
    loss, (stats, _) = SIMCLR.objective(*variables.values(), {'views': views})
    network = encoders.make_head('simclr(hidden=8, dim=8)')
    part = lambda name: {kind: tree[name] for kind, tree in variables.items()}  # noqa: E731
    hidden, stats_by_hand = ENCODER.train(part('encoder'), jnp.concatenate(views))
    z = np.asarray(network.train(part('head'), hidden)[0], np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similar = np.exp(z @ z.T / 0.07) * (1 - np.eye(16))
    positive = similar[np.arange(16), (np.arange(16) + 8) % 16]
    assert float(loss) == pytest.approx(-np.mean(np.log(positive / similar.sum(1))), rel=1e-4)
    jax.tree.map(np.testing.assert_array_equal, stats['encoder'], stats_by_hand)


def test_simsiam_predicts_the_other_view_and_stops_its_gradient():
    recipe = victims.VICTIMS.make(
        'simsiam(hidden=8, dim=8, bottleneck=4)', encoder=ENCODER, augmentation=augment.make('')
    )
    variables = recipe.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    view = jax.random.uniform(jax.random.key(1), (8, 8, 8, 3))
    other = jax.random.uniform(jax.random.key(2), (8, 8, 8, 3))
    value = lambda views: recipe.objective(*variables.values(), {'views': views})[0]  # noqa: E731
    assert -1 <= float(value((view, other))) <= 1
    assert float(value((view, other))) == pytest.approx(float(value((other, view))), rel=1e-4)

    def through(params, name):
        used = variables['params'] | {name: params}
        return recipe.objective(used, variables['batch_stats'], {'views': (view, other)})[0]

    # A constant predictor output: the projector could only learn through its target, which is held.
    flat = jax.tree.map(jnp.zeros_like, variables['params']['predictor'])
    variables['params']['predictor'] = flat
    grads = jax.grad(through)(variables['params']['projector'], 'projector')
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), grads)


@pytest.mark.parametrize(
    'method',
    [
        'simclr(hidden=16, dim=8)',
        pytest.param('simsiam(hidden=16, dim=8, bottleneck=4)', marks=pytest.mark.wide),
    ],
)
def test_pretraining_lowers_the_loss(tmp_path, method):
    recipe = victims.VICTIMS.make(method, encoder=ENCODER, augmentation=augment.make('flip'))
    fit(recipe, tmp_path, num_steps=60, learning_rate=1e-2, schedule='constant')
    rows = [row['loss'] for row in loggers.read_parts(tmp_path / 'metrics')]
    assert np.mean(rows[-10:]) < np.mean(rows[:10]) - 0.1


@pytest.mark.parametrize('spec', ['cosine(warmup=1.0)', 'cosine(warmup=-0.1)', 'cosin'])
def test_wrong_schedules_are_refused(spec):
    with pytest.raises(UserError, match='warmup must be a finite number|did you mean'):
        training.SCHEDULES.make(spec)


def test_paper_settings_name_things_that_exist():
    for method in (victims.simclr, victims.simsiam):
        preset = method.PAPER
        assert victims.VICTIMS.make(
            preset['method'], encoder=ENCODER, augmentation=augment.make(preset['augmentation'])
        )
        training.OPTIMIZERS.make(preset['optimizer'])(0.1)
        training.SCHEDULES.make(preset['schedule'])


def test_parts_of_a_checkpoint_never_completed_are_dropped(tmp_path):
    whole = fit(SIMCLR, tmp_path)
    loggers.write_part(tmp_path / 'metrics', 14, [{'step': 13, 'loss': 0.0}])
    files.write_npz(tmp_path / 'asked/part-0000000014.npz', fingerprints=np.ones((1, 2), np.uint32))
    again = fit(SIMCLR, tmp_path)
    assert len(loggers.read_parts(tmp_path / 'metrics')) == 10
    assert len(again.queries) == len(whole.queries) == 0


class TestCompiledAhead:
    """The step is compiled before the first one, once, and what it takes is said and checked."""

    @pytest.fixture
    def compilations(self):
        """Counts what is compiled from now on."""
        events = []

        def listen(event, _, **more):
            events.append(event)

        jax.monitoring.register_event_duration_secs_listener(listen)
        yield lambda: events.count('/jax/core/compile/backend_compile_duration')
        jax.monitoring.unregister_event_duration_listener(listen)

    def test_a_line_says_what_a_step_takes_and_only_where_it_was_compiled(
        self, tmp_path, capsys, monkeypatch, compilations
    ):
        monkeypatch.setattr(loop, 'SAID_SECONDS', 0.01)
        recipe = victims.VICTIMS.make(
            'simclr(hidden=8, dim=8)', encoder=ENCODER, augmentation=augment.make('grayscale')
        )
        fit(recipe, tmp_path / 'first', num_steps=2, description='victim')
        (line,) = [x for x in capsys.readouterr().err.splitlines() if 'compiled' in x]
        seconds, flops, memory = re.search(
            r'^  victim: compiled in ([\d.]+) s; a step takes ([\d.e-]+) GFLOP and (\d+) MiB', line
        ).groups()
        assert float(seconds) > 0 and 0 < float(flops) < 1 and int(memory) < 100
        before = compilations()
        assert before > 0
        fit(recipe, tmp_path / 'second', num_steps=5, description='victim')  # other numbers alone
        assert compilations() == before
        assert 'compiled' not in capsys.readouterr().err

    def test_a_step_that_needs_more_memory_than_there_is_is_refused_before_it(
        self, tmp_path, monkeypatch
    ):
        pages = {'SC_PHYS_PAGES': 5, 'SC_PAGE_SIZE': 4096}
        monkeypatch.setattr(checks.os, 'sysconf', pages.get)
        with pytest.raises(
            UserError, match=r'^train: a step takes 0\.0 GiB on each device, .*remat'
        ):
            fit(SIMCLR, tmp_path)
        assert not loggers.read_parts(tmp_path / 'metrics')
