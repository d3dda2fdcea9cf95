"""Every experiment file loads and expands; the paper's setting is built and stepped once."""

import hashlib
import importlib
import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest
from pretrained import efficientnet_lite0 as lite0
from pretrained import kept, openwakeword, wordllama
from triggers_cpu import study as search

from ssl_extract import attacks, config, defenses, encoders, evaluation, training
from ssl_extract.encoders import trained
from ssl_extract.pipeline import comparisons, surrogate, victim
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.validate import check_fields
from ssl_extract.registry import parse_call, split_chain
from ssl_extract.runtime import files, parallel
from ssl_extract.victims import SOURCES, backdoors

FOLDER = pathlib.Path(__file__).parent.parent / 'experiments'
FILES = sorted(FOLDER.glob('*.py'))
DIMS = (lite0.DIM, openwakeword.DIM, wordllama.DIM)  # of victims that are functions
STUDIES = [('cifar10_cpu', where) for where in ('', 'simsiam')]
STUDIES += [('attacks_cpu', where) for where in ('', 'few')]
STUDIES += [('defenses_cpu', where) for where in ('', 'added', 'strengths', 'marks', 'elsewhere')]


def study(name, where=''):
    return load(FOLDER / f'{name}.py').get_config(*filter(None, [where]))


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
            if load_victim and not run.victim.source.startswith('torch('):  # a file of the reader
                answers = load_victim(parallel.data_mesh(1))
                assert answers.origin or answers.dim in DIMS
        trained.make(run.victim.encoder)


def test_the_study_of_text_trains_alike_at_every_budget():
    for run in config.expand(study('text_cpu')):
        steps = run.attack.epochs * run.attack.budget // run.attack.batch_size
        assert steps == 200 if 'transformer' in run.attack.encoder else steps == 100


def test_the_papers_setting_is_the_papers():
    runs = list(config.expand(load(FOLDER / 'cifar10.py').get_config()))
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


@pytest.mark.parametrize('steps', [0, pytest.param(1, marks=pytest.mark.wide)])
def test_the_papers_setting_is_built_and_stepped(steps):
    run = next(config.expand(load(FOLDER / 'cifar10.py').get_config()))
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
        if steps:
            step = training.make_step(recipe, fields.optimizer, fields.schedule, mesh)
            state = init(jax.random.key(0), (), None)
            before = jax.tree.map(np.array, state.params['encoder'])
            state, metrics, _ = step(state, data, None, fields.learning_rate, 1000)
            assert np.isfinite(metrics['loss']) and int(state.step) == steps
            moved = jax.tree.map(lambda a, b: np.any(a != b), before, state.params['encoder'])
            assert all(jax.tree.leaves(moved))


# Of extraction from several layers no settings for images are published.
PUBLISHED = sorted(set(attacks.ATTACKS) - {'several_layers'})


@pytest.mark.parametrize('name', PUBLISHED)
def test_every_attack_has_its_authors_settings(name):
    runs = list(config.expand(load(FOLDER / 'paper.py').get_config(name)))
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
    cost = {name: attacks.preset(name)['budget'] for name in PUBLISHED}
    assert cost['cont_steal'] == 50_000 * 100  # every image anew in every epoch
    assert cost['rda'] == 2_500 * 10
    assert cost['stolen_encoder'] == 2_500
    assert cost['symmetrized'] == 4_500 * 2


def test_every_attack_of_the_comparison_pays_the_same_and_trains_alike():
    steps_of = {500: 210, 2_000: 372}
    for where, budget in {'': 2_000, 'few': 500}.items():
        runs = list(config.expand(study('attacks_cpu', where)))
        assert {run.attack.name.split('(')[0] for run in runs} == set(PUBLISHED)
        assert {run.attack.budget for run in runs} == {budget}
        for run in runs:
            stored = surrogate.make_plan(run.attack.plan, run.attack.query_augmentation).stored
            if stored:
                steps = run.attack.epochs * (budget // stored // run.attack.batch_size)
                assert steps == pytest.approx(steps_of[budget], rel=0.05)


OF_PRETRAINED = [('pretrained_cpu', ''), ('text_cpu', ''), ('text_cpu', 'minilm')]
OF_BACKDOORS = [('backdoors_cpu', where) for where in ('', 'survival', 'training')]
TASKS = {'text_cpu': ['news', 'questions'], 'backdoors_cpu': ['cifar10', 'patch', 'ctrl']}


@pytest.mark.parametrize(('name', 'where'), [*STUDIES, *OF_PRETRAINED, *OF_BACKDOORS])
def test_a_study_lists_a_family_of_comparisons_over_five_seeds(name, where):
    c = study(name, where)
    tasks = TASKS.get(name, ['cifar10', 'fashion_mnist'])
    runs = [make_run(run, 'nowhere', None) for run in config.expand(c)]
    assert len(runs) == len(c.runs) <= 500
    ids = [str(number) for number in range(len(runs))]
    family = comparisons.family_of(c, (), runs, ids, tasks)
    assert len(family) == len(c.report.comparisons) > 0
    for comparison in family:
        assert comparison.margin == 0.02
        for condition in (*comparison.new, *comparison.old):
            assert [runs[int(i)].config.seed for i in condition.runs] == [1, 2, 3, 4, 5]


@pytest.fixture
def speakers(registries_restored, monkeypatch):
    """The study's metric, registered anew: an earlier test may have left the module behind."""
    monkeypatch.delitem(sys.modules, 'measures.speakers', raising=False)
    yield importlib.import_module('measures.speakers')
    del sys.modules['measures.speakers']


def test_the_speech_study_asks_the_papers_questions_over_five_seeds(speakers):
    c = study('speech_cpu')
    runs = [make_run(run, 'nowhere', None) for run in config.expand(c)]
    assert len(runs) == len(c.runs) <= 500
    assert c.modules == (speakers.__name__,)
    tasks = ['speaker', 'digit', speakers.TASK]
    ids = [str(number) for number in range(len(runs))]
    family = comparisons.family_of(c, (), runs, ids, tasks)
    assert len(family) == 41 and all(comparison.margin == 0.02 for comparison in family)
    for comparison in family:
        for condition in (*comparison.new, *comparison.old):
            assert [runs[int(i)].config.seed for i in condition.runs] == [1, 2, 3, 4, 5]
    names = ' '.join(comparison.name for comparison in family)
    for claim in ('pretraining first', 'four layers', 'against random clips', 'queries against'):
        assert claim in names


def test_the_speech_study_measures_unseen_speakers_alone(speakers):
    rows = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    labels = np.array([0, 0, 0, 1, 1, 1])
    given = evaluation.Features(speakers.TASK, rows, rows, labels, labels, 2, labels)
    assert speakers.of_pairs(given).value == 0
    assert speakers.of_pairs(given._replace(task='digit')) is None


def test_the_studies_share_one_victim_and_its_attacker():
    configs = [study(name, where) for name, where in STUDIES]
    second = study('cifar10_cpu', 'simsiam')
    configs = [c for c in configs if c.victim.source != second.victim.source]
    assert len(configs) == len(STUDIES) - 1
    assert len({c.victim.to_json() for c in configs}) == 1
    first = configs[0].victim.to_dict()
    assert second.victim.to_dict() == first | {'source': second.victim.source}
    load_victim = SOURCES.make(configs[0].victim.source)
    shape = (32, 32, 3)
    dim = encoders.dim(trained.make(configs[0].victim.encoder), shape)
    if load_victim:
        dim = load_victim(parallel.data_mesh(1)).dim
    assert dim == load(FOLDER / 'cifar10_cpu.py').WIDTH


def test_the_quickstart_compares_means_of_three_seeds_at_one_budget():
    runs = list(config.expand(load(FOLDER / 'quickstart.py').get_config()))
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


@pytest.mark.parametrize('name', ['quickstart', 'paper_defenses'])
def test_the_same_attackers_stand_with_and_without_a_defense(name):
    """Best of ten against best of three would flatter the defense."""
    met = attackers_of(study(name))
    assert len(met) > 2
    assert all(attackers == met[''] for attackers in met.values())


@pytest.mark.parametrize('where', ['', 'added', 'strengths', 'marks', 'elsewhere'])
def test_every_attacker_behind_a_defense_stands_without_it_too(where):
    met = attackers_of(study('defenses_cpu', where))
    without = met.pop('')
    assert met and set.union(*met.values()) == without
    for defense, attackers in met.items():
        adaptive = [
            attacks.is_adaptive(
                attack=dict(a).get('attack.name', 'direct'),
                plan=dict(a).get('attack.plan', 'once'),
                strategy=dict(a).get('attack.strategy', 'random'),
                recover=dict(a).get('attack.recover', ''),
                accounts=dict(a).get('attack.accounts', 1),
            )
            for a in attackers
        ]
        assert any(adaptive) and not all(adaptive), defense


def attackers_of(c):
    """The attackers behind each defense, with their seeds."""
    met = {}
    for run in c.runs:
        fields = {field: value for field, value in run.items() if field != 'defense'}
        met.setdefault(run['defense'], set()).add(frozenset(fields.items()))
    return met


def test_the_obvious_attackers_meet_what_they_are_made_for():
    runs = [*study('defenses_cpu').runs, *study('defenses_cpu', 'strengths').runs]
    width = load(FOLDER / 'cifar10_cpu.py').WIDTH
    by_defense = {}
    for run in runs:
        by_defense.setdefault(run['defense'], []).append(run)

    def tried(defense, **fields):
        wanted = {f'attack.{name}': value for name, value in fields.items()}
        return any(wanted.items() <= run.items() for run in by_defense[defense])

    for secret in ('orthogonal', 'affine', 'diagonal', 'pad_shuffle', f'binarize(bits={width})'):
        assert tried(secret, name='direct(adapter=True)')
        assert tried(secret, name='direct(adapter=True)', accounts=3, overlap=0)
    for stddev in (0.5, 1.0, 2.0):
        assert tried(f'gaussian_noise(stddev={stddev})', plan='repeat(m=4)')
        assert tried(f'gaussian_noise(stddev={stddev})', recover='shrink')
        keyed = f'gaussian_noise(stddev={stddev}, keyed_by="image")'
        assert tried(keyed, plan='near_duplicates(m=4)')
    assert tried('prediction_poisoning(radius=1.0)', recover='project_out')
    assert 'prediction_poisoning(radius=1.0, epochs=0)' in by_defense
    shifted, control = 'gaussian_noise(mean=10.0, stddev=1.0)', 'gaussian_noise(stddev=1.0)'
    assert tried(shifted, recover='subtract_shift') and tried(control, loss='mse')
    overlaps = {run['attack.overlap'] for run in runs if run.get('attack.overlap')}
    assert min(overlaps) >= 5 * width


def test_the_pretrained_victim_computes_no_image_twice(tmp_path, monkeypatch):
    """Not even in another process: it answers from its folder, in which torch has no part."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    names = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    answers = np.arange(3 * lite0.DIM, dtype=np.float32).reshape(3, -1)
    files.write_npz(lite0.FOLDER / 'part.npz', names=names, answers=answers)
    kept._kept.cache_clear()
    order = [2, 0, 1, 2]
    np.testing.assert_array_equal(lite0.encode(images[order] / 255), answers[order])


def test_every_registered_defense_is_in_the_study_once():
    main = {run['defense'] for w in ('', 'marks') for run in study('defenses_cpu', w).runs}
    names = {parse_call(part)[0] for chain in main if chain for part in split_chain(chain)}
    conditional = {'refuse', 'replace'}  # what a detector turns to
    assert names | conditional >= {n for n, f in defenses.DEFENSES.items() if own(f)}


def own(factory):
    return factory.__module__.startswith('ssl_extract.')


def test_the_search_for_a_trigger_has_triggers_that_fit_its_images():
    images = np.full((2, 16, 16, 3), 128, np.uint8)
    assert len(set(search.SETTINGS)) == len(search.SETTINGS)
    for setting in search.SETTINGS:
        for spec in setting[:2]:
            assert (backdoors.triggered(spec, images) != images).any()
        assert 0 <= setting.rate < 0.1  # of ten classes
