"""Loggers: metrics reach TensorBoard and a registered logger while a training runs."""

import jax.numpy as jnp
import numpy as np
import pytest
import small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_extract import training
from ssl_extract.errors import UserError
from ssl_extract.pipeline import run
from ssl_extract.runtime import loggers, parallel, progress

IMAGES = np.zeros((40, 8, 8, 3), np.uint8)
FALLING = training.Recipe(  # the loss is the parameter, which falls by the rate in every step
    init=lambda key, images: {'params': {'w': jnp.ones([])}, 'batch_stats': {}},
    prepare=lambda batch, key, oracle, account: (batch, account, None),
    objective=lambda params, batch_stats, batch: (params['w'], (batch_stats, {})),
)


def fit(folder, log_to, **kwargs):
    given = dict(num_steps=10, batch_size=8, learning_rate=0.25, checkpoint_every=4, log_every=3)
    given |= dict(optimizer='sgd(momentum=0.0)', schedule='constant', description='a test')
    data, mesh = {'inputs': IMAGES}, parallel.data_mesh()
    return training.fit(FALLING, data, folder=folder, mesh=mesh, log_to=log_to, **given | kwargs)


def read(folder):
    """The scalars of all event files below a folder, as TensorBoard's own reader has them."""
    (where,) = {path.parent for path in folder.rglob('events.out.tfevents.*')}
    events = EventAccumulator(str(where)).Reload()
    names = events.Tags()['scalars']
    return where, {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


@pytest.fixture
def spy(registries_restored):
    """What a logger of one's own was given, and what TensorBoard shows at that moment."""
    seen = []

    @loggers.register('spy')
    def spying(training: loggers.Training, fails_at: int = 99):
        def write(rows):
            _, scalars = read(training.folder)
            seen.append(([row['step'] for row in rows], [step for step, _ in scalars['loss']]))
            if fails_at in seen[-1][0]:
                raise RuntimeError('killed')

        return loggers.Logger(write, lambda: seen.append(training))

    return seen


def test_metrics_are_in_tensorboard_and_in_ones_own_logger_while_the_training_runs(tmp_path, spy):
    fit(tmp_path, 'tensorboard | spy')
    *logs, closed = spy
    steps = [[0, 1, 2], [3], [4, 5], [6, 7], [8], [9]]  # at every third step, and every checkpoint
    assert [given for given, _ in logs] == steps
    assert [shown for _, shown in logs] == [[*range(part[-1] + 1)] for part in steps]
    assert closed == loggers.Training('a test', tmp_path, 0, 10)
    where, scalars = read(tmp_path)
    assert where == tmp_path / 'tensorboard' / 'a_test'
    assert sorted(scalars) == ['learning_rate', 'loss']
    assert scalars['loss'] == [(step, pytest.approx(1 - 0.25 * step)) for step in range(10)]
    kept = loggers.read_parts(tmp_path / 'metrics')
    assert [row['loss'] for row in kept] == pytest.approx([v for _, v in scalars['loss']])


def test_a_killed_training_shows_every_step_once(tmp_path, spy, capsys):
    with pytest.raises(RuntimeError, match='killed'):
        fit(tmp_path, 'tensorboard | spy(fails_at=5)')  # after the checkpoint of step 4
    assert spy[-1].start == 0  # closed
    assert capsys.readouterr().err == ''
    progress._visited.clear()  # as in another process
    fit(tmp_path, 'tensorboard | spy')
    assert spy[-1].start == 4 and spy[-2][0] == [9]
    _, scalars = read(tmp_path)
    assert [step for step, _ in scalars['loss']] == list(range(10))
    assert capsys.readouterr().err == '  a test: goes on from step 4 of 10\n'


@pytest.mark.parametrize('wrong', ['tensorbord', 'tensorboard(every=3)', 'tensorboard |'])
def test_a_wrong_logger_is_refused_before_any_training(tmp_path, wrong):
    c = small.get_config()
    c.training.log_to = wrong
    with pytest.raises(UserError, match='logger .*tensorb') as error:
        run.prepare(c, tmp_path)
    assert '\n' not in str(error.value)
