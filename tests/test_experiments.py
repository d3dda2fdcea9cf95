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
        check(run)
        trained.make(run.victim.encoder)
        assert SOURCES.make(run.victim.source) is None  # each pretrains its victim


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
        state = training.init_state(recipe, fields.optimizer, jax.random.key(0), shape)
        before = jax.tree.map(np.array, state.params['encoder'])
        assert encoders.num_params({'params': before}) == 21_276_992
        step = training.make_step(recipe, fields.optimizer, fields.schedule, mesh)
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
