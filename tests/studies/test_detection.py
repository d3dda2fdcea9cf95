"""Rates and ROC against closed forms and scikit-learn, and the study's command from end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from ssl_extract import data
from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import roc
from ssl_extract.evaluation.intervals import student, wilson
from ssl_extract.runtime import parallel
from ssl_extract.studies import detection as study


def test_nearest_before_looks_back_no_further_than_the_history():
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(roc.nearest_before(rows, 'l2', 10), [np.nan, 5, 1, 0])
    np.testing.assert_allclose(roc.nearest_before(rows, 'l2', 1), [np.nan, 5, np.sqrt(18), 1])
    cosines = roc.nearest_before(np.array([[1.0, 0], [2, 2], [0, 3]]), 'cosine', 2)
    np.testing.assert_allclose(cosines[1:], [0.5**0.5, 0.5**0.5])


def test_thresholds_flag_the_shares_they_were_chosen_for():
    nearest = np.random.default_rng(0).normal(size=10_001)
    nearest[0] = np.nan
    for metric, flagged in (('cosine', np.greater), ('l2', np.less)):
        for share, threshold in zip(
            (0.01, 0.2), roc.thresholds(nearest, (0.01, 0.2), metric), strict=True
        ):
            assert flagged(nearest[1:], threshold).mean() == pytest.approx(share, abs=2e-4)


@pytest.mark.parametrize(('num_images', 'history'), [(6, 1), (6, 3), (8, 8)])
def test_a_second_view_comes_exactly_the_history_after_the_first(num_images, history):
    image, second = roc.repeated_order(num_images, history)
    for i in range(num_images):
        first, again = np.flatnonzero(image == i)
        assert again - first == history and not second[first] and second[again]


def test_rates_and_their_intervals():
    one = np.array([True] * 3 + [False] * 7)
    assert roc.rate([one]) == (0.3, *wilson(3, 10), 10)
    two = roc.rate([one, ~one])
    assert two.value == pytest.approx(0.5) and two.n == 20
    assert (two.ci_low, two.ci_high) == (0, 1)  # Student's interval is wider than that
    same = roc.rate([one, np.roll(one, 1)])  # Student's has no width
    assert (same.ci_low, same.ci_high) == pytest.approx(wilson(6, 20))
    near = roc.rate([one, np.roll(np.append(one, True), 1)])
    low, high = student([0.3, 4 / 11])
    assert (near.ci_low, near.ci_high) == pytest.approx((max(low, 0), high))


def test_roc_is_scikit_learns():
    rng = np.random.default_rng(0)
    attackers, users = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 60).round(1)  # with ties
    found = roc.roc(attackers, users)
    labels, scores = np.repeat([1, 0], [40, 60]), np.concatenate([attackers, users])
    assert found.auc.value == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    assert found.auc.ci_low < found.auc.value < found.auc.ci_high and found.auc.n == 100
    # Hanley and McNeil 1982, for the standard error of an area.
    a = found.auc.value
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 39 * (q1 - a * a) + 59 * (q2 - a * a)) / (40 * 60))
    assert found.auc.ci_high - found.auc.ci_low == pytest.approx(2 * 1.96 * error, rel=0.25)
    caught = max(np.mean(attackers >= t) for t in scores if np.mean(users >= t) <= 0.1)
    assert roc.power(found, 0.1) == pytest.approx(caught)


def test_roc_of_scores_that_separate_and_that_tell_nothing():
    assert roc.roc(np.ones(5), np.zeros(5)).auc[:3] == (1, 1, 1)
    flat = roc.roc(np.ones(5), np.ones(7))
    assert flat.auc.value == 0.5 and roc.power(flat, 0.1) == 0


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: roc.nearest_before(np.eye(2), 'l1', 1), "metric='l1'"),
        (lambda: roc.nearest_before(np.eye(2), 'l2', 0), 'history=0'),
        (lambda: roc.thresholds(np.ones(3), [0.0], 'l2'), 'between 0 and 1'),
        (lambda: roc.repeated_order(5, 2), 'a multiple of the history of 2'),
        (lambda: roc.rate([]), 'at least one flag'),
        (lambda: roc.roc(np.ones(2), np.ones(0)), 'accounts of both kinds'),
        (lambda: roc.roc(np.ones(2), np.array([np.nan])), 'finite scores'),
    ],
)
def test_wrong_arguments_say_what_to_write(call, message):
    with pytest.raises(UserError, match=message):
        call()


def save_victim(folder, shape=(8, 8, 3)):
    """Saves an untrained victim with a head."""
    spec, heads = 'resnet18(stem="patch", width=4, stages=(1,))', (('head', 'simclr(8, 6)'),)
    network, head = trained.make(spec), trained.make_head('simclr(8, 6)')
    images = jnp.zeros((1, *shape))
    variables = network.init(jax.random.key(0), images)
    of_head = head.init(jax.random.key(1), network.apply(variables, images))
    trained.save(folder, Encoder(spec, variables, shape, heads, {'head': of_head}))
    return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return save_victim(tmp_path_factory.mktemp('victim'))


def test_a_rectangular_victim_is_sent_whole_images(tmp_path, capsys):
    folder, digits = save_victim(tmp_path / 'wide', (8, 12, 3)), data.load('digits', 'train[:300]')
    assert command(f'--victim={folder}', '--data=digits') == 2
    assert 'holds uint8[8, 8, 3] and the victim takes images of uint8[8, 12, 3]: prep' in (
        capsys.readouterr().err
    )
    images = np.pad(digits.inputs, ((0, 0), (0, 0), (2, 2), (0, 0)))
    labels = np.where(digits.labels < 5, digits.labels, 20)  # of 21 classes, six occur
    np.savez(tmp_path / 'wide.npz', inputs=images, labels=labels)
    victim = study.load_victim(str(folder), parallel.data_mesh(1))
    spec = f'npz(path="{tmp_path / "wide.npz"}")'
    loaded = study.load_images(victim, spec, 'all', '')
    np.testing.assert_array_equal(loaded.inputs, images)
    for kind in study.kinds(victim, loaded, None, 'random_crop(padding=1)', 'flip', 40):
        assert kind.ask(np.random.default_rng(0)).shape == (40, 4)


def test_a_victim_of_gray_images_is_refused(tmp_path):
    folder = save_victim(tmp_path / 'gray', (8, 8, 1))
    with pytest.raises(UserError, match=r'it takes inputs \[8, 8, 1\], and accounts send images'):
        study.load_victim(str(folder), parallel.data_mesh(1))


def test_a_stored_victim_is_found_by_its_name():
    victim = study.load_victim('digits_simclr', parallel.data_mesh(1))
    images = np.zeros((2, *victim.input_shape), np.uint8)
    assert victim.represent(images).shape == (2, 64)
    with pytest.raises(
        UserError, match='with its meta.json, or one of cifar10_simclr, cifar10_simsiam, digits_s'
    ):
        study.load_victim('digits', parallel.data_mesh(1))


def command(*arguments):
    study.FLAGS.unparse_flags()
    for name in study.FLAGS:
        study.FLAGS[name].unparse()
    study.FLAGS(['detection', *arguments])
    return study.main(['detection'])


def test_the_guard_flags_what_numpy_finds(folder):
    victim = study.load_victim(str(folder), parallel.data_mesh(1))
    answers = np.random.default_rng(0).gamma(2, size=(3, 30, 4)).astype(np.float32)
    projected = np.asarray(victim.head(answers.reshape(90, 4))).reshape(3, 30, 6)
    nearest = np.stack([roc.nearest_before(rows, 'cosine', 5) for rows in projected])
    (threshold,) = roc.thresholds(nearest.ravel(), (0.3,), 'cosine')
    spec = study.guard(threshold, 'cosine', 'projection', 5, 'refuse')
    granted, state = study.send(spec, victim, answers)
    np.testing.assert_array_equal(granted, ~(nearest > threshold))
    counted = state['0_similarity_guard'].num_flagged
    np.testing.assert_array_equal(counted, (nearest > threshold).sum(axis=1))


@pytest.mark.wide  # its parts are above; what it refuses, below
def test_command_writes_its_page(folder, tmp_path):
    out = tmp_path / 'page.md'
    given = [f'--victim={folder}', '--data=digits', '--split=train', '--seeds=2', '--queries=40']
    given += ['--accounts=2', '--window=20', '--histories=8', '--rates=0.2', f'--out={out}']
    given += ['--view=random_crop(padding=1)']
    assert command(*given) == 0
    text = out.read_text()
    rows = [line.split(' | ') for line in text.splitlines() if line.startswith('| cosine | ')]
    rows += [line.split(' | ') for line in text.splitlines() if line.startswith('| l2 | ')]
    assert len(rows) == 2 * 2
    assert {row[-1] for row in rows} == {'16 / 16 |'}  # 2 seeds x 8
    assert text.count('| attacker, ') == 3 and text.count('| user, ') == 3
    for score in ('guard: share flagged', 'prada: 1 - lowest W', 'bucket coverage'):
        table = text.split(f'| AUC of {score} |')[1].splitlines()[2:5]
        assert [line.split(' | ')[0].removeprefix('| ') for line in table] == [
            'direct: each image once',
            'contrastive: 2 views',
            'noise images',
        ]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], '--victim=: write the folder of a victim'),
        (['--histories=3,8'], 'whole numbers that divide the largest'),
        (['--rates=0.1,one'], 'write numbers between 0 and 1'),
        (['--window=50', '--queries=40'], 'write less than --queries=40'),
        (['--queries=1000', '--split=train'], 'two classes of digits/train have only'),
        (['--queries=40', '--window=20', '--histories=500'], 'are needed'),
    ],
)
def test_command_says_what_to_write(folder, tmp_path, capsys, arguments, message):
    given = [f'--out={tmp_path / "page.md"}', '--data=digits', '--split=test']
    given += [f'--victim={folder}'] if arguments else []
    assert command(*given, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'page.md').exists()
