"""An adapter behind a secret map undoes it where theory says so, for one account or several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import untrained

from ssl_extract import attacks, augment, config, defenses, encoders, losses
from ssl_extract.pipeline import surrogate
from ssl_extract.pipeline.context import make_run
from ssl_extract.recovery import Received, sybils
from ssl_extract.runtime import parallel

SHAPE = (8, 8, 3)
VICTIM = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
VARIABLES = VICTIM.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))
IMAGES = jax.random.uniform(jax.random.key(6), (24, *SHAPE))
CLEAN = np.asarray(VICTIM.train(VARIABLES, IMAGES)[0])  # as a student with these weights says it
ACCOUNT = np.arange(24, dtype=np.int32) % 2


def build(answer_dim, accounts=1, loss='mse'):
    return attacks.make(
        'direct(adapter=True)',
        encoder=VICTIM,
        answer_dim=answer_dim,
        accounts=accounts,
        plan=attacks.PLANS.make('once'),
        loss=losses.make(loss),
        student_augmentation=augment.make(''),
    )


def loss_at_the_victims_weights(attack, answers, kernel, bias, **account):
    """The loss of a student that is the victim, behind an adapter that is given."""
    variables = attack.recipe.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    layer = {'Dense_0': {'kernel': jnp.asarray(kernel), 'bias': jnp.asarray(bias)}}
    shapes = jax.tree.map(jnp.shape, variables['params']['adapter'])
    assert jax.tree.map(jnp.shape, layer) == shapes
    params = {'encoder': VARIABLES['params'], 'adapter': layer}
    stats = variables['batch_stats'] | {'encoder': VARIABLES['batch_stats']}
    batch = {'inputs': IMAGES, 'answers': jnp.asarray(answers), 'where': jnp.ones(24, bool)}
    return float(attack.recipe.objective(params, stats, batch | account)[0])


def best_adapter(answers):
    """The affine map from the victim's features to the answers with the least squared error."""
    design = np.concatenate([CLEAN, np.ones((len(CLEAN), 1))], axis=1)
    solution = np.linalg.lstsq(design, np.asarray(answers, np.float64), rcond=None)[0]
    return solution[:-1].astype(np.float32), solution[-1].astype(np.float32)


@pytest.mark.parametrize(
    ('spec', 'undone'),
    [
        ('orthogonal', True),
        ('affine', True),
        ('diagonal', True),
        ('pad_shuffle(pad=3)', True),
        ('binarize(bits=6)', False),
        ('gaussian_noise(stddev=0.1)', False),
    ],
)
def test_one_adapter_undoes_the_map_of_one_account(spec, undone):
    answers = np.asarray(defenses.apply_once(spec, CLEAN)[0])
    attack = build(answers.shape[1])
    left = loss_at_the_victims_weights(attack, answers, *best_adapter(answers))
    assert (left < 1e-6 * answers.var()) == undone


@pytest.mark.parametrize('spec', ['orthogonal', 'affine', 'diagonal'])
def test_an_adapter_for_each_account_undoes_the_maps_of_all(spec):
    """Without one image in common; one adapter for all accounts cannot."""
    own = [np.asarray(defenses.apply_once(spec, CLEAN, seed=seed)[0]) for seed in (0, 1)]
    answers = np.where(ACCOUNT[:, None] == 0, *own)
    (first, second), biases = zip(*map(best_adapter, own), strict=True)
    kernel, bias = np.concatenate([first, second], axis=1), np.concatenate(biases)
    attack = build(4, accounts=2)

    def loss(account):
        account = jnp.asarray(account)
        return loss_at_the_victims_weights(attack, answers, kernel, bias, account=account)

    alone = loss_at_the_victims_weights(build(4), answers, *best_adapter(answers))
    assert loss(ACCOUNT) < 1e-6 * answers.var()
    assert alone > 0.05 * answers.var() and loss(1 - ACCOUNT) > 0.05 * answers.var()


def test_the_output_of_a_rows_account_under_several_views():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(6, 12)).astype(np.float32)  # two views of three, three accounts
    account = np.array([2, 0, 1])
    found = attacks.own_outputs(jnp.asarray(outputs), jnp.asarray(account), 4)
    want = [outputs[i, 4 * account[i % 3] :][:4] for i in range(6)]
    np.testing.assert_array_equal(found, want)


def test_without_an_overlap_the_answers_stay_as_they_are():
    rng = np.random.default_rng(0)
    number, accounts = 11, 3
    assert sybils.num_images(number, accounts, 0) == number
    dealt = sybils.deal(number, accounts, 0)
    answers = rng.normal(size=(number, 1, 4)).astype(np.float32)
    inputs, answered = np.arange(number), rng.random((number, 1)) < 0.7
    merged = sybils.merge([Received(inputs[d], answers[d], answered[d]) for d in dealt], 0)
    np.testing.assert_array_equal(merged.inputs, inputs)
    np.testing.assert_array_equal(merged.answers, answers)
    np.testing.assert_array_equal(merged.answered, answered)
    owner = np.zeros(number, int)
    for account, rows in enumerate(dealt):
        owner[rows] = account
    np.testing.assert_array_equal(owner, np.arange(number) % accounts)  # as `pipeline.ask` has it


def test_a_run_with_an_adapter_per_account_pays_for_different_images_alone(tmp_path):
    base = tiny.get_config()
    base.attack.name, base.defense = 'direct(adapter=True)', 'orthogonal'
    base.attack.accounts, base.attack.overlap, base.attack.epochs = 2, 0, 1
    base.runs = ()
    (cfg,) = config.expand(base)
    victim = untrained.victim(cfg.victim.encoder)
    run = make_run(cfg, tmp_path, parallel.data_mesh())
    stolen = surrogate.steal(run.workspace, untrained.extraction(run, victim))
    assert stolen.record.bill == (41, 41, 0, 0)
    assert stolen.encoder.heads == (('adapter', f'linear(dim={2 * victim.dim})'),)
    parts = [np.load(path)['representations'] for path in tmp_path.glob('answers/*/part-*.npz')]
    assert sorted(len(part) for part in parts) == [20, 21]
