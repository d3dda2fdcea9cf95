"""Every experiment file loads and expands; the paper's setting is built and stepped once."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from ssl_extract import attacks, config, encoders, training
from ssl_extract.encoders import trained
from ssl_extract.pipeline import surrogate, victim
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.validate import check_fields
from ssl_extract.runtime import parallel
from ssl_extract.victims import SOURCES

FILES = sorted((pathlib.Path(__file__).parent.parent / 'experiments').glob('*.py'))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(cfg):
    check_fields(make_run(cfg, 'nowhere', parallel.data_mesh(1)))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_experiment_expands_to_runs_with_known_names(path):
    module = load(path)
    assert f'--config=experiments/{path.name}' in module.__doc__ or path.stem == 'quickstart'
    runs = list(config.expand(module.get_config()))
    assert len(runs) == len(module.get_config().runs)
    for run in runs:
        if run.seed == 1:  # the others differ in the seed alone
            check(run)
            load_victim = SOURCES.make(run.victim.source)  # None where the run pretrains
            assert load_victim is None or load_victim(parallel.data_mesh(1)).origin
        trained.make(run.victim.encoder)


def test_the_papers_setting_is_the_papers():
    runs = list(config.expand(load(FILES[0].parent / 'cifar10.py').get_config()))
    by_loss = {run.attack.loss.split('(')[0]: run for run in runs}
    losses = {'mse', 'infonce', 'softnn', 'wasserstein', 'supcon', 'barlow'}
    assert set(by_loss) == losses and len(runs) == 18
    for run in runs:
        assert run.victim.epochs == 200 and run.victim.batch_size == 256
        assert run.victim.learning_rate == 3e-4 and 'temperature=0.07' in run.victim.method
        assert run.attack.budget == 9_000 and run.attack.epochs == 100
    assert by_loss['infonce'].attack.batch_size == 256
    assert by_loss['infonce'].attack.learning_rate == 3e-4
    assert by_loss['supcon'].attack.plan == 'views(m=2)'  # 4,500 images, two views of each
    assert by_loss['mse'].attack.batch_size == 64 and by_loss['mse'].attack.learning_rate == 1e-3


def test_the_papers_setting_is_built_and_stepped_once():
    run = next(config.expand(load(FILES[0].parent / 'cifar10.py').get_config()))
    network = trained.make(run.victim.encoder)
    shape = (run.data.size, run.data.size, 3)
    mesh = parallel.data_mesh(1)
    batch = {'inputs': np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)}
    answers = np.random.default_rng(1).random((4, 1, encoders.dim(network, shape)), np.float32)
    answered = np.ones((4, 1), bool)
    pretraining = victim.make_recipe(run.victim.method, run.victim.encoder, run.victim.augmentation)
    attack = surrogate.make_attack(
        run.attack.name,
        run.attack.loss,
        run.victim.encoder,
        run.attack.plan,
        run.attack.query_augmentation,
        run.attack.student_augmentation,
        answers.shape[-1],
    ).recipe
    parts = [
        (pretraining, run.victim, batch),
        (attack, run.attack, batch | {'answers': answers, 'answered': answered}),
    ]
    for recipe, fields, data in parts:
        init = training.make_init(recipe, fields.optimizer, shape, mesh)
        state = jax.eval_shape(init, jax.random.key(0), (), None)
        assert encoders.num_params({'params': state.params['encoder']}) == 21_276_992
        step = training.make_step(recipe, fields.optimizer, fields.schedule, mesh)
        jax.eval_shape(step, state, data, None, fields.learning_rate, 1000)  # compiles nothing
    state = init(jax.random.key(0), (), None)
    before = jax.tree.map(np.array, state.params['encoder'])
    state, metrics, _ = step(state, data, None, fields.learning_rate, 1000)
    assert np.isfinite(metrics['loss']) and int(state.step) == 1
    moved = jax.tree.map(lambda a, b: np.any(a != b), before, state.params['encoder'])
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('name', attacks.ATTACKS)
def test_every_attack_has_its_authors_settings(name):
    runs = list(config.expand(load(FILES[0].parent / 'paper.py').get_config(name)))
    assert len(runs) == 3
    for run in runs:
        check(run)
        for field, value in attacks.preset(name).items():
            assert run.attack[field] == value
        assert {'budget', 'batch_size', 'optimizer', 'schedule', 'learning_rate', 'loss'} <= set(
            attacks.preset(name)
        )


def test_what_published_settings_really_cost():
    """One view asked is one query, whatever their authors count."""
    cost = {name: attacks.preset(name)['budget'] for name in attacks.ATTACKS}
    assert cost['cont_steal'] == 50_000 * 100  # every image anew in every epoch
    assert cost['rda'] == 2_500 * 10
    assert cost['stolen_encoder'] == 2_500
    assert cost['symmetrized'] == 4_500 * 2


def test_every_attack_of_the_comparison_pays_the_same_and_trains_alike():
    runs = list(config.expand(load(FILES[0].parent / 'attacks_cpu.py').get_config()))
    assert {run.seed for run in runs} == {1, 2, 3}
    names = {run.attack.name.split('(')[0] for run in runs}
    assert names == set(attacks.ATTACKS)
    assert {run.attack.budget for run in runs} == {500, 2_000}
    for run in runs:
        stored = surrogate.make_plan(run.attack.plan, run.attack.query_augmentation).stored
        if stored:
            steps = run.attack.epochs * (run.attack.budget // stored // run.attack.batch_size)
            assert steps == pytest.approx({500: 210, 2_000: 372}[run.attack.budget], rel=0.05)


def test_the_quickstart_compares_means_of_three_seeds_at_one_budget():
    runs = list(config.expand(load(FILES[0].parent / 'quickstart.py').get_config()))
    conditions = {}
    for run in runs:
        conditions.setdefault((run.defense, run.attack.name), set()).add(run.seed)
        assert run.attack.budget == 128 and run.evaluation.shots == 3
        # an augmenting user mirrors no digit, for the victim's pretraining mirrors none
        assert 'augmenting(views=2)' in run.legitimate.users
        assert 'flip=0.0' in run.victim.augmentation
    assert all(seeds == {1, 2, 3} for seeds in conditions.values())
    assert {defense for defense, _ in conditions} == {
        '',
        'gaussian_noise(stddev=0.2)',  # 0.8 of a standard deviation
        'orthogonal',
    }


@pytest.mark.parametrize('name', ['quickstart', 'defenses_cpu', 'elsewhere', 'paper_defenses'])
def test_the_same_attackers_stand_with_and_without_a_defense(name):
    """Best of ten against best of three would flatter the defense; a map of one width is the one
    exception: what knows the width of answers cannot meet padded ones."""
    file = 'defenses_cpu' if name == 'elsewhere' else name
    where = [name] if name == 'elsewhere' else []
    runs = load(FILES[0].parent / f'{file}.py').get_config(*where).runs
    met = {}
    for run in runs:
        fields = {field: value for field, value in run.items() if field != 'defense'}
        attacker = frozenset(fields.items())
        classes = run.get('attack.name') == 'posteriors'
        met.setdefault((classes, run['defense']), set()).add(attacker)
    assert len(met) > 2
    for (classes, defense), attackers in met.items():
        missing = met[classes, ''] - attackers
        assert not attackers - met[classes, '']
        assert all(dict(a)['attack.recover'] == 'denoise' for a in missing)
        assert not missing or 'pad_shuffle' in defense


def test_the_obvious_attackers_meet_what_they_are_made_for():
    runs = load(FILES[0].parent / 'defenses_cpu.py').get_config().runs
    by_defense = {}
    for run in runs:
        by_defense.setdefault(run['defense'], []).append(run)

    def tried(defense, **fields):
        wanted = {f'attack.{name}': value for name, value in fields.items()}
        return any(wanted.items() <= run.items() for run in by_defense[defense])

    for secret in ('orthogonal', 'affine', 'diagonal', 'pad_shuffle', 'binarize(bits=96)'):
        assert tried(secret, name='direct(adapter=True)')
        assert tried(secret, name='direct(adapter=True)', accounts=3, overlap=0)
    keyed = 'gaussian_noise(stddev=2.0, keyed_by="image")'
    assert tried(keyed, plan='near_duplicates(m=4)')
    assert tried('prediction_poisoning(radius=1.0)', recover='project_out')
    assert 'prediction_poisoning(radius=1.0, epochs=0)' in by_defense
    shifted, control = 'gaussian_noise(mean=10.0, stddev=1.0)', 'gaussian_noise(stddev=1.0)'
    assert tried(shifted, recover='subtract_shift') and tried(control, loss='mse')
    overlaps = {run['attack.overlap'] for run in runs if run.get('attack.overlap')}
    widths = {encoders.dim(trained.make(attacks_encoder()), (32, 32, 3))}
    assert widths == {96} and min(overlaps) >= 5 * 96


def attacks_encoder():
    return load(FILES[0].parent / 'attacks_cpu.py').get_config().victim.encoder
