"""The facade as users type it: any function as a victim, folders, and errors in one line."""

import os
import signal
import subprocess
import sys

import damages
import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import sklearn.datasets
import sklearn.decomposition
from etils import epath
from finished_runs import write_run

import ssl_extract
from ssl_extract import UserError, defenses, losses
from ssl_extract.api import training
from ssl_extract.api.inputs import view_of
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import loggers

ENCODER = 'resnet18(stem="patch", width=8, stages=(1,))'
DIGITS, LABELS = sklearn.datasets.load_digits(return_X_y=True)
IMAGES = np.repeat(DIGITS.reshape(-1, 8, 8, 1) * 15, 3, axis=-1).astype(np.uint8)
INPUTS = IMAGES[:200]
TRAIN, TEST = (IMAGES[200:300], LABELS[200:300]), (IMAGES[300:360], LABELS[300:360])
MEASURE = dict(train=TRAIN, test=TEST, shots=0, neighbors=5)
STEAL = dict(encoder=ENCODER, epochs=1, batch_size=40)
MAP = np.random.default_rng(0).normal(size=(192, 16)).astype(np.float32)


class Service:
    """A function that is not JAX; it writes down what it saw and fails in a call of its choice."""

    def __init__(self, fails_in=None):
        self.pca = sklearn.decomposition.PCA(16).fit(IMAGES[500:].reshape(-1, 192) / 255)
        self.rows, self.calls, self.fails_in = [], 0, fails_in

    def __call__(self, images):
        self.calls += 1
        if self.calls == self.fails_in:
            raise ConnectionError('the service is away')
        self.rows += list(images)
        return self.pca.transform(images.reshape(len(images), -1))


def oracle_of(fn, budget=200, defense='gaussian_noise(stddev=0.1)'):
    victim = ssl_extract.victims.from_function(fn, dim=16, address='pca')
    return ssl_extract.make_oracle(victim, defense, budget=budget)


@pytest.fixture(scope='module')
def service():
    return Service()


@pytest.fixture(scope='module')
def answers(service, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('account') / 'store')
    return ssl_extract.collect(oracle_of(service), INPUTS, folder=folder, batch_size=64)


@pytest.fixture(scope='module')
def stolen(answers, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('stolen') / 'encoder')
    return ssl_extract.steal(answers, folder=folder, loss='mse', **STEAL), folder


# A victim that is not JAX


def test_the_function_sees_exactly_the_budget(service, answers):
    np.testing.assert_allclose(np.stack(service.rows), INPUTS / np.float32(255), rtol=1e-6)
    assert answers.bill == (200, 200, 0, 0) and answers.granted.all()
    noise = answers.representations - service.pca.transform(INPUTS.reshape(200, -1) / 255)
    assert noise.std() == pytest.approx(0.1, rel=0.05)


def test_beyond_the_budget_nothing_is_sent_and_after_an_exception_nothing_twice(tmp_path):
    failing = Service(fails_in=3)
    with pytest.raises(UserError, match='300 different queries .* 200 of the budget of 200 are'):
        ssl_extract.collect(oracle_of(failing), IMAGES[:300], folder=tmp_path)
    assert failing.calls == 0
    with pytest.raises(ConnectionError):
        ssl_extract.collect(oracle_of(failing), INPUTS, folder=tmp_path)
    ssl_extract.collect(oracle_of(failing), INPUTS, folder=tmp_path)
    np.testing.assert_allclose(np.stack(failing.rows), INPUTS / np.float32(255), rtol=1e-6)
    with pytest.raises(UserError, match='1 different queries .* 0 of the budget of 200 are left'):
        ssl_extract.collect(oracle_of(failing), IMAGES[:201], folder=tmp_path)
    assert len(failing.rows) == 200


PROGRAM = """
import os, signal, sys
import numpy as np
import ssl_extract

folder, kill_in = sys.argv[1], int(sys.argv[2])
calls = 0

def fn(inputs):
    global calls
    calls += 1
    if calls == kill_in:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(folder + '/seen.txt', 'a') as log:
        log.writelines(f'{row[0]}\\n' for row in inputs)
    return inputs[:, :3]

oracle = ssl_extract.make_oracle(ssl_extract.victims.from_function(fn, dim=3), budget=200)
inputs = np.arange(1200, dtype=np.float32).reshape(200, 6)
print(ssl_extract.collect(oracle, inputs, folder=folder + '/store', batch_size=64).bill.billed)
"""


def test_killed_it_goes_on_and_the_function_sees_the_budget(tmp_path):
    def run(kill_in):
        command = [sys.executable, '-c', PROGRAM, str(tmp_path), str(kill_in)]
        env = os.environ | {'JAX_PLATFORMS': 'cpu'}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)

    assert run(3).returncode == -signal.SIGKILL
    finished = run(0)
    assert finished.stdout.split() == ['200'], finished.stderr
    seen = [float(line) for line in (tmp_path / 'seen.txt').read_text().split()]
    assert seen == [6.0 * row for row in range(200)]


def test_inputs_of_one_content_are_sent_once_and_billed_once():
    service = Service()
    twice = np.concatenate([INPUTS[:20], INPUTS[:20]])
    answers = ssl_extract.collect(oracle_of(service, budget=20), twice)
    assert len(service.rows) == 20 and answers.bill == (20, 20, 0, 0)
    np.testing.assert_array_equal(answers.representations[:20], answers.representations[20:])


def test_evaluating_a_function_says_what_it_costs_and_pays_once(stolen, answers, tmp_path):
    service = Service()
    victim = ssl_extract.victims.from_function(service, dim=16, address='pca')
    rows = [
        ssl_extract.evaluate(
            stolen[0], victim=victim, answers=answers, folder=str(tmp_path), **MEASURE
        )
        for _ in range(2)
    ]
    assert rows[0] == rows[1] and len(service.rows) == 160
    assert {(row['role'], row['queries_billed']) for row in rows[0]} == {
        ('victim', 160),
        ('surrogate', 200),
    }
    by_name = {(row['role'], row['metric']): row['value'] for row in rows[0]}
    assert by_name['victim', 'linear_probe'] > 0.7
    assert by_name['surrogate', 'agreement'] > 0.1


# Victims in JAX


def project(matrix, images):
    return images.reshape(len(images), -1) @ matrix


def test_every_kind_of_jax_victim_answers(stolen):
    encoder = stolen[0]
    flax = ssl_extract.victims.from_flax(project, jnp.asarray(MAP), input_shape=(8, 8, 3))
    network = ssl_extract.encoders.make(ENCODER)
    own = ssl_extract.victims.from_flax(network.apply, encoder.variables, input_shape=(8, 8, 3))
    plain = lambda images: project(MAP, images)  # noqa: E731
    for victim, expected in [
        (flax, project(MAP, INPUTS / 255)),
        (plain, project(MAP, INPUTS / 255)),
        (encoder, encoder.apply(INPUTS / np.float32(255))),
        (own, encoder.apply(INPUTS / np.float32(255))),
    ]:
        answers = ssl_extract.collect(ssl_extract.make_oracle(victim, budget=200), INPUTS)
        np.testing.assert_allclose(answers.representations, expected, rtol=1e-3, atol=1e-3)
    for victim in (plain, encoder):
        rows = ssl_extract.evaluate(encoder, victim=victim, metrics=('linear_probe',), **MEASURE)
        assert [row['role'] for row in rows] == ['victim', 'surrogate']
        assert not any('queries_billed' in row for row in rows)


def test_a_pretrained_encoder_is_a_victim(tmp_path):
    how = dict(encoder=ENCODER, epochs=1, batch_size=40, augmentation='flip')
    how['method'] = 'simclr(hidden=8, dim=8)'
    encoder = ssl_extract.pretrain(INPUTS, folder=tmp_path, **how)
    assert encoder.heads == (('head', 'simclr(hidden=8, dim=8)'),)
    loaded = ssl_extract.load(str(tmp_path))
    images = INPUTS / np.float32(255)
    np.testing.assert_array_equal(loaded.apply(images), encoder.apply(images))
    with pytest.raises(UserError, match='another call \\(method differs\\)'):
        ssl_extract.pretrain(INPUTS, folder=tmp_path, **how | {'method': 'simclr(hidden=8, dim=4)'})
    oracle = ssl_extract.make_oracle(encoder, budget=200)
    assert ssl_extract.collect(oracle, INPUTS).representations.shape == (200, 8)


# Choices of the attacker


def test_a_preset_works_on_stored_views(service):
    answers = ssl_extract.collect(oracle_of(service), INPUTS[:80], plan='views(m=2)')
    assert answers.representations.shape == (80, 2, 16) and answers.bill.billed == 160
    encoder = ssl_extract.steal(answers, attack='rda(views=2)', **STEAL)
    assert encoder.apply(np.ones((2, 8, 8, 3))).shape == (2, 8)


def test_near_duplicates_are_views_that_no_augmentation_makes(service):
    answers = ssl_extract.collect(oracle_of(service), INPUTS[:20], plan='near_duplicates(m=2)')
    assert answers.representations.shape == (20, 2, 16) and answers.bill == (40, 40, 0, 0)
    with pytest.raises(UserError, match='asks each input as it is'):
        plan = dict(plan='near_duplicates(m=2)', query_augmentation='flip')
        ssl_extract.collect(oracle_of(service), INPUTS[:20], **plan)


def test_a_first_phase_is_trained_before(service, tmp_path):
    answers = ssl_extract.collect(
        oracle_of(service), INPUTS[:40], plan='views(m=2)', query_augmentation='flip'
    )
    attack = (
        'recreate_head(head="simclr(hidden=8, dim=8)", head_epochs=3.0, head_learning_rate=0.25)'
    )
    ssl_extract.steal(answers, attack=attack, folder=tmp_path, learning_rate=0.5, **STEAL)
    assert sorted(int(p.name) for p in (tmp_path / 'before/checkpoints').iterdir()) == [3]
    head, surrogate = (
        loggers.read_parts(epath.Path(tmp_path) / phase / 'metrics')[0] for phase in ('before', '')
    )
    assert (head['learning_rate'], surrogate['learning_rate']) == (0.25, 0.5)


def test_functions_are_accepted_for_loss_and_defense(answers):
    def halved(student, teacher, *, labels=None, where=None):
        return losses.mse()(student, teacher, labels=labels, where=where) / 2

    encoder = ssl_extract.steal(answers, loss=halved, **STEAL)
    assert np.isfinite(encoder.apply(np.ones((2, 8, 8, 3)))).all()
    first = defenses.stateless(lambda outputs, keys: outputs[:, :1])
    oracle = ssl_extract.make_oracle(lambda x: x[:, :3], first, budget=9)
    plain = ssl_extract.make_oracle(lambda x: x[:, :3], lambda y, keys: y[:, :1], budget=9)
    given = [ssl_extract.collect(o, np.eye(5)).representations for o in (oracle, plain)]
    np.testing.assert_array_equal(*given)
    assert ssl_extract.collect(oracle, np.ones((9, 4))).representations.shape == (9, 1)


def test_a_surrogate_that_diverges_is_no_surrogate(answers, tmp_path):
    given = STEAL | dict(optimizer='sgd', schedule='constant', learning_rate=1e15)
    with pytest.raises(FloatingPointError, match='not finite.*; lower learning_rate'):
        ssl_extract.steal(answers, loss=_pulls, folder=tmp_path, **given)
    assert not (tmp_path / 'meta.json').exists() and not list(tmp_path.glob('checkpoints/[0-9]*'))


def _pulls(student, teacher, *, labels=None, where=None):
    """A loss that stays finite whatever the surrogate answers."""
    return jnp.mean(jnp.tanh(jnp.nan_to_num(student - teacher)), dtype=jnp.float32)


def test_a_batch_of_one_teaches_a_loss_that_compares_rows_nothing(answers):
    for given in (dict(loss='infonce'), dict(attack='cont_steal')):
        with pytest.raises(UserError, match="batch_size=1: loss '.*' compares"):
            ssl_extract.steal(answers, **STEAL | {'batch_size': 1} | given)
    for method in ('simclr', 'simsiam'):
        with pytest.raises(UserError, match=f"batch_size=1: victim method '{method}' compares"):
            ssl_extract.pretrain(INPUTS, encoder=ENCODER, method=method, batch_size=1)


def test_answers_that_are_not_finite_teach_nothing():
    oracle = ssl_extract.make_oracle(lambda x: x[:, 0, 0] / jnp.zeros(()), budget=40)
    answers = ssl_extract.collect(oracle, INPUTS[:40])
    with pytest.raises(UserError, match='40 of 40 answers hold NaN or infinity'):
        ssl_extract.steal(answers, **STEAL)
    with pytest.raises(UserError, match='victim: its variables hold NaN'):
        ssl_extract.victims.from_flax(
            lambda v, x: x @ v, jnp.full((3, 2), jnp.nan), input_shape=(3,)
        )


def test_a_budget_that_runs_out_behind_a_defense_leaves_rows_without_answer():
    answers = ssl_extract.collect(oracle_of(Service(), defense='rate_limit(total=150)'), INPUTS)
    assert answers.granted.sum() == 150 and answers.bill == (150, 150, 0, 50)
    ssl_extract.steal(answers, **STEAL)


# Folders


def test_a_folder_gives_what_the_same_call_trained(stolen, answers):
    encoder, folder = stolen
    again = ssl_extract.steal(answers, folder=folder, loss='mse', **STEAL)
    jax.tree.map(np.testing.assert_array_equal, again.variables, encoder.variables)
    images = np.ones((2, 8, 8, 3))
    np.testing.assert_array_equal(ssl_extract.load(folder).apply(images), encoder.apply(images))


def scaled(factor):
    return lambda student, teacher, *, labels=None, where=None: (
        factor * losses.mse()(student, teacher, labels=labels, where=where)
    )


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        (dict(seed=2), 'seed'),
        (dict(loss='l2'), 'loss'),
        (dict(loss=scaled(2.0)), 'loss'),
        (dict(epochs=2, batch_size=20), 'batch_size, epochs'),
        (dict(labels=LABELS[:200]), 'arrays'),
        (dict(attack='direct(adapter=True)'), 'attack'),
    ],
)
def test_a_folder_of_another_call_is_refused(stolen, answers, changed, named):
    with pytest.raises(UserError, match=f'another call \\({named} differs\\): name another'):
        ssl_extract.steal(answers, folder=stolen[1], **{'loss': 'mse', **STEAL, **changed})


def test_an_own_loss_that_was_edited_is_another(answers, tmp_path, registries_restored):
    losses.register('mine')(lambda: scaled(2.0))
    ssl_extract.steal(answers, folder=tmp_path, loss='mine', **STEAL)
    ssl_extract.steal(answers, folder=tmp_path, loss='mine', **STEAL)
    del losses.LOSSES.entries['mine']
    losses.register('mine')(lambda: scaled(3.0))
    with pytest.raises(UserError, match='another call \\(loss differs\\)'):
        ssl_extract.steal(answers, folder=tmp_path, loss='mine', **STEAL)


def test_an_edited_part_of_one_name_is_trained_anew_without_a_folder(answers, registries_restored):
    """What was made of a spec is kept in the process, by the content of the parts."""
    trained = []
    for factor in (2.0, 2.0, 3.0):
        losses.register('mine')(lambda factor=factor: scaled(factor))
        encoder = ssl_extract.steal(answers, loss='mine', **STEAL)
        trained.append(encoder.apply(IMAGES[:4] / 255))
        del losses.LOSSES.entries['mine']
    np.testing.assert_array_equal(trained[0], trained[1])
    assert np.abs(trained[2] - trained[0]).max() > 1e-6


def test_one_recipe_serves_all_thefts_of_one_kind_and_any_function_is_a_loss(answers):
    class Loss:  # compares by value, so that it has no hash
        __hash__ = None

        def __call__(self, student, teacher, *, labels=None, where=None):
            return scaled(1.0)(student, teacher, labels=labels, where=where)

    first, second = (ssl_extract.steal(answers, loss='mse', **STEAL | {'seed': s}) for s in (1, 2))
    assert training._make_attack.cache_info().hits > 0
    assert ssl_extract.steal(answers, loss=Loss(), **STEAL).dim == first.dim == second.dim


@pytest.mark.parametrize('file', ['meta.json', 'call.json', 'variables/manifest.ocdbt'])
def test_a_damaged_encoder_is_trained_again_where_its_folder_was_moved(answers, tmp_path, file):
    folder = tmp_path / 'stolen [1]*?'
    first = ssl_extract.steal(answers, folder=folder, **STEAL)
    damages.flipped(folder / file)
    with pytest.raises(UserError, match='cannot (be )?read.*: move .* away and call again'):
        ssl_extract.steal(answers, folder=folder, **STEAL)
    folder.rename(tmp_path / 'elsewhere')
    again = ssl_extract.steal(answers, folder=folder, **STEAL)
    np.testing.assert_array_equal(first.apply(IMAGES[:4] / 255), again.apply(IMAGES[:4] / 255))


def test_a_call_that_failed_before_it_trained_leaves_its_folder_free(answers, tmp_path):
    with pytest.raises(UserError, match='optimizer'):
        ssl_extract.steal(answers, folder=tmp_path, optimizer='adma', **STEAL)
    assert ssl_extract.steal(answers, folder=tmp_path, **STEAL)


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        (dict(address='another'), 'victim'),
        (dict(dim=8), 'dim'),
        (dict(defense='round'), 'defense'),
        (dict(seed=2), 'seed'),
    ],
)
def test_a_folder_of_another_account_is_refused(tmp_path, changed, named):
    def ask(address='one', dim=16, defense='', seed=1):
        fn = lambda images: images.reshape(len(images), -1)[:, :dim]  # noqa: E731
        victim = ssl_extract.victims.from_function(fn, dim=dim, address=address)
        oracle = ssl_extract.make_oracle(victim, defense, budget=9)
        return ssl_extract.collect(oracle, INPUTS[:4], folder=tmp_path, seed=seed)

    ask()
    with pytest.raises(UserError, match=f'of another account \\({named} differs\\)'):
        ask(**changed)


@pytest.mark.parametrize('damage', ['flipped', 'deleted'])
def test_an_account_whose_description_is_damaged_is_asked_nothing(tmp_path, damage):
    service, folder = Service(), tmp_path / 'account [1]*?'
    first = ssl_extract.collect(oracle_of(service), INPUTS[:8], folder=folder)
    again = ssl_extract.collect(oracle_of(service), INPUTS[:8], folder=folder)
    assert again.bill == first.bill and service.calls == 1
    getattr(damages, damage)(folder / 'account.json')
    with pytest.raises(UserError, match='account.json .*put it back from a copy, or move'):
        ssl_extract.collect(oracle_of(service), INPUTS[:8], folder=folder)
    assert service.calls == 1


def test_functions_are_known_by_what_they_hold(tmp_path):
    def ask(factor, add):
        defense = defenses.stateless(lambda outputs, keys: outputs + add)
        oracle = ssl_extract.make_oracle(lambda x: factor * x, defense, budget=9)
        return ssl_extract.collect(oracle, np.ones((4, 3)), folder=tmp_path).representations

    np.testing.assert_array_equal(ask(2.0, 0.0), ask(2.0, 0.0))
    with pytest.raises(UserError, match='victim differs'):
        ask(3.0, 0.0)
    with pytest.raises(UserError, match='defense differs'):
        ask(2.0, 1.0)


def test_views_of_another_kind_are_other_queries(tmp_path):
    def ask(view):
        oracle = oracle_of(Service(), budget=400)
        return ssl_extract.collect(
            oracle, INPUTS[:9], folder=tmp_path, plan='views(m=2)', query_augmentation=view
        )

    seeds = [ask(view).view_seeds for view in ('flip', 'random_resized_crop')]
    assert not np.intersect1d(*seeds).size
    assert len(np.load(next(tmp_path.glob('part-*18.npz')))['granted']) == 18


def test_results_are_a_frame_where_pandas_is_there(tmp_path, monkeypatch):
    write_run(tmp_path, 'a')
    frame = ssl_extract.results(str(tmp_path))
    assert isinstance(frame, pandas.DataFrame) and {'role', 'value'} <= set(frame.columns)
    monkeypatch.setitem(sys.modules, 'pandas', None)
    rows = ssl_extract.results(tmp_path)
    assert [row['role'] for row in rows] == list(frame['role'])
    with pytest.raises(UserError, match='no run is finished in'):
        ssl_extract.results(tmp_path / 'runs')


# What users get wrong


def collected(inputs=INPUTS[:8], victim=None, defense=None, budget=99, **how):
    victim = ssl_extract.victims.from_function(Service(), dim=16) if victim is None else victim
    return ssl_extract.collect(
        ssl_extract.make_oracle(victim, defense, budget=budget), inputs, **how
    )


def never_asked(images):
    raise AssertionError('a query was paid before the arguments were checked')


PAID = ssl_extract.victims.from_function(never_asked, dim=16, address='paid')
NAN = np.where(np.arange(192).reshape(8, 8, 3) == 7, np.nan, INPUTS[:8] / 255)
SMALL = ssl_extract.victims.from_flax(project, jnp.asarray(MAP), input_shape=(8, 8, 3))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (dict(inputs=INPUTS[:0]), r'inputs: inputs must be \[N, ...\] with N >= 1'),
        (dict(inputs=NAN), r'8 of 8 inputs hold NaN or infinity \(first: row 0\)'),
        (dict(inputs=INPUTS.astype(np.int64)), 'int32 has no decoder of its own: write decode='),
        (dict(inputs=[[1.0], [1.0, 2.0]]), 'inputs must be one array'),
        (dict(inputs=np.array(['a', 'b'])), 'inputs are integers or floats, got <U1'),
        (dict(batch_size=0), 'batch_size must be a whole number of at least 1, got 0'),
        pytest.param(
            dict(batch_size=6, victim=SMALL),
            'batch_size=6 must be a multiple of the 4 devices',
            marks=pytest.mark.devices,
        ),
        (dict(inputs=np.ones((4, 16, 16, 3)), victim=SMALL), r'\[16, 16, 3\], and victim .* \[8,'),
        (dict(victim=Service().pca.transform), r'it does not take inputs|is no JAX function'),
        (dict(victim=lambda x: np.asarray(x)[:, 0]), 'is no JAX function; give victims.from_fun'),
        (dict(victim=lambda x: x.mean()), r'answers 64 inputs with \[\]; it must give \[64, D\]'),
        (dict(victim=lambda x: x @ MAP), r'does not take inputs \[64, 8, 8, 3\]: dot_general'),
        (dict(victim=3), 'victim: 3 is no Victim, Encoder or JAX function'),
        (dict(defense=lambda y: y), 'is neither a spec, nor a Defense, nor a function'),
        (dict(defense='rond'), "did you mean 'round'"),
        (dict(defense='dynamarks'), 'changes posteriors'),
        (dict(budget=0), 'budget must be a whole number'),
        (dict(plan='online'), "asks while it trains: write 'once'"),
        (dict(plan='views(m=2)', query_augmentation='none'), "or plan='repeat\\(m=2\\)'"),
        (dict(query_augmentation='flip'), "asks each input as it is; write plan='views\\(m=1\\)'"),
        (dict(inputs=np.ones((4, 9)), plan='views(m=2)'), r"'simclr' does not fit inputs \[9\]"),
        (
            dict(inputs=INPUTS[:8] * 1.0, plan='views(m=2)'),
            r"values of 0 to 240, and query_augmentation='simclr' takes images in \[0, 1\]",
        ),
        (
            dict(inputs=INPUTS[:8, ..., :1], plan='views(m=2)'),
            r"'simclr' does not fit inputs \[8, 8, 1\]: color_jitter takes an image \[H, W, 3\]",
        ),
        (
            dict(victim=ssl_extract.victims.from_function(lambda x: x[:, 0, 0], dim=4)),
            r'answered 8 inputs with float32 \[8, 3\]; it must answer real numbers \[8, 4\]',
        ),
    ],
)
def test_wrong_questions_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        collected(**call)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (dict(encoder='resnet19'), "did you mean 'resnet18'"),
        (dict(encoder='vit(patch=3, width=8, heads=2, depth=1)'), 'patch=3'),
        (dict(attack='drect'), "did you mean 'direct'"),
        (dict(attack='recreate_head'), 'two views of an input'),
        (dict(attack='posteriors'), 'the answers: representation; write another'),
        (dict(loss='msee'), "did you mean 'mse'"),
        (dict(loss='supcon'), 'supcon needs the labels'),
        (dict(loss=lambda s, t: 0.0), 'loss: .*; write loss\\(student'),
        (dict(loss=lambda s, t, *, labels, where: jnp.square(s - t)), 'and not one number'),
        (dict(labels=LABELS[:200] / 2), 'labels must be 200 integers, .* got float64'),
        (dict(labels=LABELS[:9]), r'labels must be 200 integers, .* \[9\]'),
        (dict(student_augmentation='blurr'), 'blurr'),
        (dict(batch_size=256), 'batch_size=256 is more than the 200 inputs'),
        pytest.param(
            dict(batch_size=6),
            'batch_size=6 must be a multiple of the 4 devices',
            marks=pytest.mark.devices,
        ),
        (dict(epochs=0), 'epochs must be a whole number of at least 1'),
        (dict(learning_rate='1e-3'), 'learning_rate must be a finite number above 0'),
        (dict(seed=-1), 'seed must be a whole number of at least 0'),
        (dict(schedule='cos'), "did you mean 'cosine'"),
    ],
)
def test_wrong_trainings_are_refused_in_one_line(answers, call, message):
    with pytest.raises(UserError, match=message) as error:
        ssl_extract.steal(answers, **{**STEAL, **call})
    assert '\n' not in str(error.value)


def test_only_images_in_the_unit_interval_are_augmented(service):
    images, message = INPUTS[:40].astype(np.float32), 'values of 0 to 240'
    view_of('simclr', ssl_extract.data.Dataset(images / 255), 'augmentation')
    with pytest.raises(UserError, match=f"inputs has {message}, and augmentation='flip' takes"):
        ssl_extract.pretrain(images, augmentation='flip', **STEAL)
    collected = ssl_extract.collect(oracle_of(service), images)  # its range is the victim's matter
    with pytest.raises(UserError, match=f"{message}, and student_augmentation='simclr' takes"):
        ssl_extract.steal(collected, student_augmentation='simclr', **STEAL)


def test_what_is_given_in_a_wrong_place_is_refused_in_one_line(answers):
    with pytest.raises(UserError, match='oracle: Victim is none: write ssl_extract.make_oracle'):
        ssl_extract.collect(SMALL, INPUTS)
    with pytest.raises(UserError, match='answers: ndarray is none: give what collect returned'):
        ssl_extract.steal(INPUTS, **STEAL)
    with pytest.raises(UserError, match='encoder: Answers is none: give what steal'):
        ssl_extract.evaluate(answers, **MEASURE)


def test_answers_of_an_oracle_that_does_not_say_what_it_is_are_not_kept(tmp_path):
    oracle = make_oracle(lambda images: project(MAP, images), budget=9)
    assert ssl_extract.collect(oracle, INPUTS[:8]).bill.billed == 8
    with pytest.raises(UserError, match='make it with ssl_extract.make_oracle'):
        ssl_extract.collect(oracle, INPUTS[:8], folder=tmp_path)


def test_an_evaluation_does_not_spend_the_attackers_account(stolen, tmp_path):
    victim = ssl_extract.victims.from_function(Service(), dim=16, address='pca')
    oracle = ssl_extract.make_oracle(victim, budget=8)
    ssl_extract.collect(oracle, INPUTS[:4], folder=tmp_path)
    ssl_extract.evaluate(stolen[0], victim=victim, folder=tmp_path, **MEASURE)
    assert ssl_extract.collect(oracle, INPUTS[:8], folder=tmp_path).bill.billed == 8


def test_vectors_need_an_encoder_of_vectors():
    answers = collected(inputs=np.ones((8, 5)), victim=lambda x: x)
    with pytest.raises(UserError, match=r'a network got inputs float32\[1, 5\]: give it'):
        ssl_extract.steal(answers, encoder=ENCODER, batch_size=8)
    refused = collected(defense='refuse')
    with pytest.raises(UserError, match='none of the queries was answered'):
        ssl_extract.steal(refused, **STEAL)


def test_a_loss_that_compares_inputs_needs_two_that_were_answered(answers):
    """The others do not count: of one alone the loss would be a constant."""
    alone = answers._replace(granted=np.arange(len(answers.granted)) == 3)
    with pytest.raises(UserError, match="answered inputs=1: loss 'infonce' compares .* at least 2"):
        ssl_extract.steal(alone, **STEAL | {'loss': 'infonce'})


def test_near_duplicates_of_test_images_are_counted(stolen, answers):
    darker = TRAIN[0][:9] // 2 + 3, TRAIN[1][:9]
    with pytest.warns(UserWarning, match='9 of the 9 inputs of task/test have a near-dup.*/train'):
        ssl_extract.evaluate(stolen[0], **MEASURE | {'test': darker, 'metrics': ('knn',)})
    asked = INPUTS[:200] // 2 + 3, LABELS[:200]
    train = IMAGES[400:800], LABELS[400:800]
    with pytest.warns(UserWarning, match='200 of the 200 inputs of .* have a near-dup.* answers'):
        ssl_extract.evaluate(
            stolen[0],
            **MEASURE | {'train': train, 'test': asked, 'answers': answers, 'metrics': ('knn',)},
        )


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (dict(train=TRAIN[0]), r'task/train must be a pair \(inputs, labels\)'),
        (dict(train=(TRAIN[0], TRAIN[1] / 2)), 'labels must be 100 integers, .* got float64'),
        (dict(train=(TRAIN[0], None)), 'task/train has no labels'),
        (dict(train=(TRAIN[0], -TRAIN[1])), 'task/train has no labels'),
        (dict(test=(TEST[0][:0], TEST[1][:0])), 'task/test: inputs must be'),
        (dict(test=(TEST[0] / 255, TEST[1])), 'cannot compare task/train, inputs uint8'),
        (dict(test=(TRAIN[0][:5], TRAIN[1][:5])), '5 of the 5 inputs of task/test are among'),
        (dict(train=(INPUTS, LABELS[:200]), test=TRAIN), None),
        (dict(train=(TRAIN[0][:4], TRAIN[1][:4])), 'task/train has no input of class'),
        (dict(test=(INPUTS, LABELS[:200])), '200 of the 200 inputs .* the queries answers'),
        (dict(metrics=('acuracy',)), 'acuracy'),
        (dict(metrics=('fewshot',), shots=99, victim=PAID), 'shots=99: task/train has . inputs of'),
        (dict(neighbors=101, victim=PAID), 'neighbors=101: task/train has only 100 inputs'),
        (dict(victim=3), 'victim: 3 is no Victim'),
        (
            dict(train=(IMAGES[200:300, :4], TRAIN[1]), test=(IMAGES[300:360, :4], TEST[1])),
            r'each input is \[4, 8, 3\], and the encoder takes \[8, 8, 3\]',
        ),
    ],
)
def test_wrong_evaluations_are_refused_in_one_line(stolen, answers, call, message):
    how = {**MEASURE, 'answers': answers, 'metrics': ('knn',), **call}
    if message is None:  # training inputs may be queries
        assert ssl_extract.evaluate(stolen[0], **how)
        return
    with pytest.raises(UserError, match=message) as error:
        ssl_extract.evaluate(stolen[0], **how)
    assert '\n' not in str(error.value)
