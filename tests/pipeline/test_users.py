"""Legitimate users: their own account, what they are tested on, and what a defense costs them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import untrained
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ssl_extract import config, defenses, users
from ssl_extract.defenses import Defense
from ssl_extract.errors import UserError
from ssl_extract.evaluation import PROBES, features
from ssl_extract.evaluation.probe import predict
from ssl_extract.oracle import store
from ssl_extract.pipeline import ask, services, stage, visits
from ssl_extract.pipeline import users as legitimate
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.runtime import files, parallel

MESH = parallel.data_mesh()
ENCODER = 'resnet18(stem="patch", width=16, stages=(1,))'
NOISE = 'gaussian_noise(stddev=0.1)'
AUGMENTING = 'augmenting(views=2, augmentation="random_crop(padding=1)")'
USERS = ('broad', 'narrow(classes=3)', AUGMENTING)
IMAGES = 60


@pytest.fixture(scope='module')
def victim():
    """An untrained victim: its features of digits are good enough to tell some classes apart."""
    return untrained.victim(ENCODER)


def run_of(workdir='nowhere', probe='lbfgs(l2_grid=(0.01,))', **fields):
    base = tiny.get_config()
    base.legitimate.users = USERS
    base.legitimate.images = IMAGES
    base.legitimate.test_images = 0
    base.defense = NOISE
    base.attack.batch_size = 32
    base.evaluation.probe = probe
    base.cost.dollars_per_1000_queries = 2.0
    base.runs = ({name.replace('__', '.'): value for name, value in fields.items()},)
    (cfg,) = config.expand(base)
    return make_run(cfg, workdir, MESH)


def settings_of(**fields):
    run = run_of(**fields)
    return legitimate.settings_of(run, load_sets(run))


def rows_of(run, victim):
    return legitimate.user_rows(run, load_sets(run), untrained.owner(run, victim))


def ask_as(kind, run, victim, endpoint='representation'):
    """The answers to all that a user of this kind sends."""
    owner, workspace = untrained.owner(run, victim), run.workspace
    service = services.serve(workspace, owner, endpoint, run.config.defense)
    settings = legitimate.settings_of(run, load_sets(run))
    return legitimate.ask_service(workspace, owner, settings, kind, service)


@pytest.fixture(scope='module')
def measured(victim, tmp_path_factory):
    """`(**fields) -> rows by (user, defense, metric)`, each made once."""

    @functools.cache
    def make(fields):
        run = run_of(tmp_path_factory.mktemp('run'), **dict(fields))
        return by_metric(rows_of(run, victim))

    return lambda **fields: make(tuple(fields.items()))


def check(run):
    legitimate.check_users(run, load_sets(run))


def by_metric(groups):
    return {
        (row['user'], row['defense'], row['metric']): row
        for group in groups.values()
        for row in group
    }


def own_and_test(settings, victim):
    """Features and labels of a broad user's training images and of the test images."""
    visit = legitimate.visit_of(settings, 'broad')
    own = extract(victim, visit.queries.inputs[:IMAGES]), visit.labels
    test = settings.task.test
    return *own, extract(victim, test.inputs), test.labels


def extract(victim, images):
    return features.extract(victim.encoder.network.apply, victim.encoder.variables, images)


def right(row):
    return round(row['value'] * row['n'])


def test_every_user_is_measured_with_the_defense_and_without(measured):
    found = measured()
    metrics = {
        (user, defense, metric)
        for user in USERS
        for defense, metric in [
            ('', 'user_accuracy'),
            (NOISE, 'user_accuracy'),
            (NOISE, 'user_accuracy_clean'),
        ]
    }
    assert set(found) == metrics
    task = settings_of().task
    for (user, _, _), row in found.items():
        sent = {'broad': IMAGES + 100, AUGMENTING: 2 * IMAGES + 100}.get(
            user, min(IMAGES, row['budget'] - row['n']) + row['n']
        )
        assert row['role'] == 'legitimate' and row['task'] == task.name
        assert row['endpoint'] == 'representation' and row['encoder'] == ENCODER
        assert row['budget'] == row['queries_billed'] == row['queries_unique'] == sent
        assert row['queries_repeated'] == row['queries_refused'] == 0
        assert row['dollars'] == pytest.approx(sent * 2.0 / 1000)
        assert 0 <= row['ci_low'] <= row['value'] <= row['ci_high'] <= 1


def test_without_a_defense_there_are_no_users(victim, tmp_path):
    assert rows_of(run_of(tmp_path, defense=''), victim) == {}
    assert not list(tmp_path.iterdir())


def test_undefended_it_is_the_probe_on_clean_features(measured, victim):
    settings = settings_of()
    own, known, test, truth = own_and_test(settings, victim)
    probe = PROBES.make(settings.probe)(own, known, 10)
    expected = np.sum(predict(probe, test) == truth)
    assert right(measured()['broad', '', 'user_accuracy']) == expected
    centered, scale = own.mean(axis=0), own.std(axis=0)
    model = LogisticRegression(C=1 / (IMAGES * 0.01), tol=1e-6, max_iter=1000)
    model.fit((own - centered) / scale, known)
    other = np.sum(model.predict((test - centered) / scale) == truth)
    assert abs(expected - other) <= 2


def test_it_sends_the_first_test_images_of_its_classes(victim):
    whole = legitimate.visit_of(settings_of(), 'narrow')
    some = legitimate.visit_of(settings_of(legitimate__test_images=7), 'narrow')
    np.testing.assert_array_equal(some.test_labels, whole.test_labels[:7])
    assert len(some.queries.index) == len(some.labels) + 7 == IMAGES + 7


def test_noise_costs_accuracy(measured):
    found = measured()
    assert found['broad', '', 'user_accuracy']['value'] > 0.3
    for user in USERS:
        plain = found[user, '', 'user_accuracy']
        noisy = found[user, NOISE, 'user_accuracy']
        assert noisy['value'] < plain['value'] - 0.1 and noisy['n'] == plain['n']
    weak = 'gaussian_noise(stddev=0.0)'
    same = measured(defense=weak)
    assert right(same['broad', weak, 'user_accuracy']) == right(found['broad', '', 'user_accuracy'])


def test_a_narrow_user_has_to_do_with_its_classes_only(measured):
    visit = legitimate.visit_of(settings_of(), 'narrow(classes=3)')
    assert set(visit.labels) == set(visit.test_labels) and len(set(visit.test_labels)) == 3
    assert len(visit.labels) <= IMAGES
    task = settings_of().task
    classes = np.isin(task.test.labels, visit.test_labels)
    np.testing.assert_array_equal(
        visit.queries.inputs[len(visit.labels) :], task.test.inputs[classes]
    )
    found = measured()
    assert found['narrow(classes=3)', '', 'user_accuracy']['n'] == classes.sum()
    other = legitimate.visit_of(settings_of(seed=2), 'narrow(classes=3)')
    assert set(other.test_labels) != set(visit.test_labels)


def test_images_and_labels_belong_together():
    settings = settings_of()
    train = settings.task.train
    lookup = {
        image.tobytes(): label for image, label in zip(train.inputs, train.labels, strict=True)
    }
    for user in USERS:
        visit = legitimate.visit_of(settings, user)
        sent = visit.queries.inputs[visit.queries.index[: len(visit.labels)]]
        assert [lookup[image.tobytes()] for image in sent] == visit.labels.tolist()
    again = legitimate.visit_of(settings, 'broad').queries.inputs
    np.testing.assert_array_equal(again, legitimate.visit_of(settings, 'broad').queries.inputs)
    assert np.any(again != legitimate.visit_of(settings_of(seed=2), 'broad').queries.inputs)


def test_an_augmenting_user_sends_different_views_of_its_images_and_plain_test_images():
    settings = settings_of(legitimate__images=4)
    queries = legitimate.visit_of(settings, 'augmenting(views=3)').queries
    assert len(queries.index) == 4 * 3 + 100
    np.testing.assert_array_equal(queries.index[:12], np.repeat(np.arange(4), 3))
    images = jnp.asarray(queries.inputs[queries.index] / np.float32(255))
    sent = jax.jit(queries.view)(images, queries.seeds)
    np.testing.assert_array_equal(sent[12:], images[12:])
    assert all(np.abs(sent[i] - images[i]).max() > 0.01 for i in range(12))
    assert all(np.abs(sent[i] - sent[i + 1]).max() > 0.01 for i in (0, 1, 3, 4))
    assert queries.view is legitimate.visit_of(settings, 'augmenting(views=3)').queries.view


def test_it_has_its_own_account_and_the_test_queries_go_on_in_it(victim, tmp_path):
    """The noise of query n is what the user's own key gives for number n, test images last."""
    run, settings = run_of(tmp_path, legitimate__images=20), settings_of(legitimate__images=20)
    noisy = ask_as('broad', run, victim).representations
    clean = extract(victim, legitimate.visit_of(settings, 'broad').queries.inputs)

    def draw(key, numbers):
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.fold_in(key, n), 0))(numbers)
        return 0.1 * jax.vmap(lambda k: jax.random.normal(k, clean.shape[1:]))(keys)

    numbers = jnp.arange(120)
    key = visits.account_key(settings, 'broad')
    np.testing.assert_allclose(noisy - clean, draw(key, numbers), atol=1e-5)
    keys = [visits.account_key(settings, user) for user in USERS]
    keys += [visits.account_key(settings_of(seed=2), 'broad')]
    keys += [untrained.extraction(run, victim).attacker.key()]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == 5


def test_the_attackers_account_does_not_notice(victim, tmp_path):
    run = run_of(tmp_path, legitimate__images=20, attack__budget=32)
    attacker, workspace = untrained.extraction(run, victim).attacker, run.workspace
    before, bill, _ = ask.ask(workspace, attacker, np.arange(32))
    folder = tmp_path / 'answers' / stage.address(workspace, attacker.spec)
    contents = {path: path.read_bytes() for path in folder.iterdir()}
    assert bill.billed == 32 and contents
    ask_as('broad', run, victim)
    assert {path: path.read_bytes() for path in folder.iterdir()} == contents
    again, _, _ = ask.ask(workspace, attacker, np.arange(32))
    np.testing.assert_array_equal(again['answers'], before['answers'])
    assert len(list((tmp_path / 'answers').iterdir())) == 2


def stops_after(limit):
    """Answers plainly, and from query `limit` on not at all."""

    def apply(outputs, state, *, inputs, where, keys):
        number = state['asked'] + jnp.cumsum(where) - 1
        asked = state['asked'] + jnp.sum(where, dtype=jnp.int32)
        return outputs, where & (number < limit), {'asked': asked}

    return Defense(lambda key, outputs, inputs: {'asked': jnp.zeros([], jnp.int32)}, apply)


@pytest.fixture
def stopping(registries_restored, victim, tmp_path):
    """`(limit) -> (accuracy, clean accuracy, noticed)` of a broad user who is refused after it."""
    defenses.register('stops_after')(stops_after)
    defenses.make.cache_clear()

    def measure(limit):
        spec = f'stops_after(limit={limit})'
        run = run_of(tmp_path, defense=spec, legitimate__users=('broad',))
        found = by_metric(rows_of(run, victim))
        names = 'user_accuracy', 'user_accuracy_clean', 'noticed.stops_after.asked'
        return [found['broad', spec, name] for name in names]

    yield measure
    defenses.make.cache_clear()


def test_a_refused_test_query_is_wrong(stopping, victim):
    settings = settings_of()
    own, known, test, truth = own_and_test(settings, victim)
    predictions = predict(PROBES.make(settings.probe)(own, known, 10), test)
    accuracy, clean, noticed = stopping(IMAGES + 30)
    assert right(accuracy) == np.sum(predictions[:30] == truth[:30]) > 0
    assert right(clean) == np.sum(predictions == truth)
    assert accuracy['n'] == clean['n'] == 100
    assert accuracy['queries_billed'] == IMAGES + 30 and accuracy['queries_refused'] == 70
    assert accuracy['dollars'] == pytest.approx((IMAGES + 30) * 2.0 / 1000)
    assert noticed['value'] == IMAGES + 100
    assert noticed.get('task') is None and noticed.get('n') is None


@pytest.mark.parametrize('limit', [0, 1])
def test_who_gets_no_answers_guesses_its_commonest_class(stopping, victim, limit):
    _, known, _, truth = own_and_test(settings_of(), victim)
    accuracy, _, _ = stopping(limit)
    values, counts = np.unique(known, return_counts=True)
    assert right(accuracy) == np.sum(truth == values[counts.argmax()]) > 0


@pytest.mark.parametrize('probe', ['lbfgs', 'sgd(epochs=2)'])
def test_classes_with_one_answer_or_none_are_no_obstacle(probe):
    rng = np.random.default_rng(0)
    labels = np.array([7, 7, 7, 2, 2, 9])
    points = (5 * np.eye(10)[labels] + rng.normal(size=(6, 10))).astype(np.float32)
    predictions = legitimate.fit_model(settings_of(probe=probe), points, labels)(points)
    assert set(predictions) <= {2, 7, 9}
    if probe == 'lbfgs':
        np.testing.assert_array_equal(predictions, labels)


def test_finished_users_are_only_read_and_interrupted_ones_go_on(
    victim, tmp_path, monkeypatch, measured
):
    run = run_of(tmp_path, legitimate__users=('broad',))
    monkeypatch.setattr(store, 'PART_BYTES', 32 * victim.dim * 4)
    monkeypatch.setattr(store, 'PART_WRITES', 0)
    write, parts = files.write_npz, []

    def killed(path, **arrays):
        write(path, **arrays)
        if path.name.startswith('part-'):
            parts.append(path)
            if len(parts) == 7:  # five parts without the defense, two with it
                raise KeyboardInterrupt

    monkeypatch.setattr(files, 'write_npz', killed)
    with pytest.raises(KeyboardInterrupt):
        rows_of(run, victim)
    first = rows_of(run, victim)
    assert len(parts) == len(set(parts)) == 10
    whole = measured()
    for key, row in by_metric(first).items():
        for name in ('value', 'ci_low', 'ci_high', 'n', 'queries_billed', 'dollars'):
            assert row[name] == whole[key][name]

    monkeypatch.setattr(legitimate, 'ask_service', None)
    assert rows_of(run, victim) == first
    fields = {'legitimate__users': ('broad',), 'attack__loss': 'infonce', 'attack__budget': 7}
    assert rows_of(run_of(tmp_path, **fields), victim) == first  # another attack, same defense


def test_another_defense_shares_the_undefended_user(victim, tmp_path):
    found = {}
    for defense in ('round(decimals=1)', 'gaussian_noise(stddev=0.1)'):
        found |= rows_of(run_of(tmp_path, defense=defense, legitimate__users=('broad',)), victim)
    assert len(found) == 3
    assert [group[0]['defense'] for group in found.values()].count('') == 1


@pytest.mark.parametrize('name', ['posteriors', 'labels'])
def test_who_is_answered_with_classes_fits_nothing(victim, tmp_path, name):
    fields = {
        'attack__name': name,
        'defense': 'round(decimals=3)',
        'legitimate__users': ('broad', 'narrow'),
    }
    found, settings = by_metric(rows_of(run_of(tmp_path, **fields), victim)), settings_of(**fields)
    train, test = settings.task.train, settings.task.test
    theirs = PROBES.make(settings.probe)(extract(victim, train.inputs), train.labels, 10)
    correct = predict(theirs, extract(victim, test.inputs)) == test.labels
    row = found['broad', '', 'user_accuracy']
    assert right(row) == correct.sum() and row['budget'] == row['queries_billed'] == 100
    row = found['narrow', '', 'user_accuracy']
    narrow = np.isin(test.labels, legitimate.visit_of(settings, 'narrow').test_labels)
    assert right(row) == correct[narrow].sum() and row['budget'] == row['n'] == narrow.sum()


def test_behind_a_projection_it_fits_on_that(victim, tmp_path):
    run = run_of(tmp_path, attack__name='access_head(hidden=8)', legitimate__users=('broad',))
    got = ask_as('broad', run, victim, 'projection')
    assert got.representations.shape == (IMAGES + 100, 8)
    found = by_metric(rows_of(run, victim))
    assert found['broad', NOISE, 'user_accuracy']['endpoint'] == 'projection'


def test_the_mlp_learns_what_no_linear_probe_can(victim):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (400, 2)).astype(np.float32)
    labels = (points.prod(axis=1) > 0).astype(int)  # exclusive or
    classify = users.MODELS.make('mlp(width=32, epochs=30, learning_rate=3e-2)')
    predictions = classify(points[:300], labels[:300], 2)(points[300:])
    assert np.mean(predictions == labels[300:]) > 0.9
    linear = users.MODELS.make('probe', probe='lbfgs')(points[:300], labels[:300], 2)
    assert np.mean(linear(points[300:]) == labels[300:]) < 0.75


def test_the_mlp_decays_as_weight_decay_in_the_gradient():
    """Without anything to learn the weights' gradient is `weight_decay * W`, whatever the batch."""
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(128, 3)), np.arange(128) % 3
    classify = users.MODELS.make('mlp(width=4, epochs=3, weight_decay=0.5)', seed=3)
    network = classify(points, labels, 3).__self__
    by_hand = MLPClassifier((4,), alpha=32, batch_size=64, max_iter=3, random_state=3)
    with pytest.warns(ConvergenceWarning):
        by_hand.fit(points, labels)
    np.testing.assert_array_equal(network.coefs_[0], by_hand.coefs_[0])
    assert network.n_iter_ == 3


def test_an_mlp_that_diverges_is_one_line():
    classify = users.MODELS.make('mlp(width=4, epochs=5, learning_rate=1e15)')
    points = 1e14 * np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    with pytest.raises(UserError, match='has diverged: lower it') as e:
        classify(points, np.arange(40) % 2, 2)(points)
    assert '\n' not in str(e.value)


def test_users_can_train_an_mlp(measured):
    found = measured(
        legitimate__model='mlp(width=64, epochs=200, learning_rate=3e-2)',
        legitimate__users=('broad',),
    )
    plain = found['broad', '', 'user_accuracy']
    assert plain['value'] > 0.3
    assert found['broad', NOISE, 'user_accuracy']['value'] < plain['value']
    assert users.MODELS.make('mlp')  # the paper's


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'legitimate__users': ('brod',)}, "did you mean 'broad'"),
        ({'legitimate__users': ('narrow(classes=1)',)}, 'from 2 to'),
        ({'legitimate__users': ('narrow(classes=11)',)}, 'the first task has 10'),
        ({'legitimate__users': ('narrow(classes=True)',)}, 'from 2 to'),
        ({'legitimate__users': ('augmenting(views=0)',)}, 'from 1 to'),
        ({'legitimate__users': ('augmenting(augmentation="simclear")',)}, "did you mean 'simclr'"),
        ({'legitimate__model': 'knn'}, "legitimate user's model 'knn'"),
        ({'legitimate__recover': ('shrink',)}, "write '' first"),
        ({'legitimate__recover': ('', 'shrinc')}, "did you mean 'shrink'"),
        ({'legitimate__recover': ('', 'denoise')}, "encoder of the attacker's own"),
        ({'legitimate__repeats': (4,)}, r'repeats=\(4,\): write 1 first'),
        ({'legitimate__repeats': (1, 65)}, 'from 1 to 64'),
        ({'legitimate__repeats': (1, 0)}, 'from 1 to 64'),
        ({'legitimate__repeats': (1, 2.0)}, 'a whole number'),
        ({'legitimate__model': 'mlp(epochs=0)'}, 'epochs=0'),
        ({'legitimate__model': 'mlp(learning_rate=0.0)'}, 'learning_rate=0.0'),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(fields, message):
    with pytest.raises(UserError, match=message):
        check(run_of(**fields))


def test_classes_that_a_split_lacks_are_found_out():
    with pytest.raises(UserError, match='has no input of its classes'):
        for seed in range(5):
            run = run_of(seed=seed)
            run.config.evaluation.tasks = ('digits(train="train[:200]", test="test[:1]")',)
            check(run)


def test_a_user_that_nobody_asks_for_is_no_obstacle():
    """A task of two classes, and three classes of the default users."""
    run = run_of(defense='', legitimate__users=('narrow(classes=3)',))
    sets = load_sets(run)
    two = [
        part._replace(labels=part.labels % 2, num_classes=2)
        for part in (sets.tasks[0].train, sets.tasks[0].test)
    ]
    sets = sets._replace(tasks=(sets.tasks[0]._replace(train=two[0], test=two[1]),))
    legitimate.check_users(run, sets)
    with pytest.raises(UserError, match=r'classes=3: the first task has 2; write fewer'):
        legitimate.check_users(run_of(legitimate__users=('narrow(classes=3)',)), sets)
    with pytest.raises(UserError, match="did you mean 'narrow'"):
        legitimate.check_users(run_of(defense='', legitimate__users=('narow',)), sets)


def test_a_narrow_user_draws_among_the_classes_that_occur():
    settings = settings_of()
    train, test = (
        part._replace(labels=part.labels + 26, num_classes=62)
        for part in (settings.task.train, settings.task.test)
    )
    moved = settings._replace(task=settings.task._replace(train=train, test=test))
    for kind in ('broad', 'narrow(classes=3)'):
        dense, declared = (legitimate.visit_of(s, kind) for s in (settings, moved))
        np.testing.assert_array_equal(declared.labels, dense.labels + 26)
        np.testing.assert_array_equal(declared.test_labels, dense.test_labels + 26)
        np.testing.assert_array_equal(declared.queries.index, dense.queries.index)


def test_defaults_are_fine():
    (cfg,) = config.expand(config.base())
    check(make_run(cfg, 'nowhere', MESH))


def test_a_new_kind_of_user_is_a_few_lines(registries_restored, victim, tmp_path):
    @users.USERS.register('binary')
    def binary():
        return users.User(lambda rng, num_classes: np.array([0, 1]))

    run = run_of(tmp_path, legitimate__users=('binary',))
    check(run)
    found = by_metric(rows_of(run, victim))
    assert found['binary', '', 'user_accuracy']['value'] > 0.8


def test_a_view_is_drawn_as_in_the_victims_pretraining():
    """Mirrored digits are what a victim of digits never saw."""
    own = settings_of(victim__augmentation='random_crop(padding=1)')
    spec = 'augmenting(augmentation="random_crop(padding=1)")'
    views = [legitimate.visit_of(own, kind).queries.view for kind in ('augmenting', spec)]
    assert views[0] is views[1]
    queries = legitimate.visit_of(settings_of(victim__augmentation='none'), 'augmenting').queries
    images = jnp.asarray(queries.inputs[queries.index[:8]] / np.float32(255))
    np.testing.assert_array_equal(queries.view(images, queries.seeds[:8]), images)


@pytest.mark.parametrize('kind', ['broad', AUGMENTING])
def test_repeated_queries_are_the_same_views_and_queries_of_their_own(kind):
    settings = settings_of(legitimate__images=4)
    once, thrice = (legitimate.visit_of(settings, kind, repeats=m).queries for m in (1, 3))
    np.testing.assert_array_equal(thrice.index, np.repeat(once.index, 3))
    pairs = set(zip(thrice.index.tolist(), thrice.seeds.tolist(), strict=True))
    assert len(pairs) == len(thrice.index)
    if once.view:
        few = thrice.index[:12], thrice.seeds[:12]
        images = jnp.asarray(thrice.inputs[few[0]] / np.float32(255))
        sent = np.asarray(thrice.view(images, few[1]))
        np.testing.assert_array_equal(sent[::3], sent[2::3])
        assert np.any(sent[0] != sent[3])
        plain = thrice.view(images, np.arange(12, dtype=np.uint32) % 3)
        np.testing.assert_array_equal(plain, images)


def test_a_user_that_averages_pays_for_it_and_does_better(victim, tmp_path):
    fields = {
        'legitimate__users': ('broad',),
        'legitimate__images': 200,
        'legitimate__repeats': (1, 16),
        'defense': 'gaussian_noise(stddev=0.04)',
    }
    run = run_of(tmp_path, **fields)
    found = by_metric(rows_of(run, victim))
    best, plain = (
        found['broad', run.config.defense, name]
        for name in ('user_accuracy', 'user_accuracy_plain')
    )
    assert best['adaptation'] == 'mean of 16'
    assert best['value'] > plain['value'] + 0.1
    assert best['queries_billed'] == 16 * 300 and best['queries_unique'] == best['budget'] == 300
    undefended = found['broad', '', 'user_accuracy']
    assert undefended['queries_billed'] == 300 and undefended['adaptation'] == ''
    assert ('broad', '', 'user_accuracy_plain') not in found  # there was nothing to choose
    accounts = legitimate.accounts_of(run, load_sets(run), untrained.owner(run, victim))
    assert [count for *_, count in accounts] == [300, 300, 16 * 300]
