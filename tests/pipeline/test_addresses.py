"""For every stage: what its result depends on changes its address, and nothing else does."""

import importlib
import json
import pathlib
import sys

import numpy as np
import pytest
from addresses import ENCODER, STAGES, addresses, save_encoder

from ssl_extract import config
from ssl_extract.errors import UserError
from ssl_extract.pipeline import sets, victim
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.registry import REGISTRIES
from ssl_extract.report.results import flatten

WIDE = 'resnet18(stem="patch", width=8, stages=(1,))'

# x: the stage (see `addresses.STAGES`) depends on the field; a new field needs a row.
TABLE = """
                              vic cla sha scr ran ans def poi sur den sco ask use eva mar run
seed                           .   .   .   x   x   x   x   x   x   x   x   x   x   x   x   x
modules                        x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x
defense                        .   .   .   .   .   x   x   x   x   x   x   x   x   x   x   x
data.name                      x   x   x   x   .   x   x   x   x   x   x   x   x   x   x   x
data.dir                       .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
data.size                      x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x
victim.seed                    x   x   x   .   .   x   x   x   x   x   x   x   x   x   x   x
victim.source                  x   x   x   .   .   x   x   x   x   x   x   x   x   x   x   x
victim.split                   x   x   x   .   .   x   x   x   x   x   x   x   x   x   x   x
victim.method                  x   x   x   x   .   x   x   x   x   x   x   x   x   x   x   x
victim.encoder                 x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x
victim.augmentation            x   x   x   x   .   x   x   x   x   x   x   x   x   x   x   x
victim.epochs                  x   x   x   .   .   x   x   x   x   x   x   x   x   x   x   x
victim.batch_size              x   x   x   .   .   x   x   x   x   x   x   x   x   x   x   x
victim.optimizer               x   x   x   x   .   x   x   x   x   x   x   x   x   x   x   x
victim.schedule                x   x   x   x   .   x   x   x   x   x   x   x   x   x   x   x
victim.learning_rate           x   x   x   x   .   x   x   x   x   x   x   x   x   x   x   x
attack.name                    .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.data                    .   .   .   x   .   x   x   x   x   x   x   .   .   x   x   x
attack.split                   .   .   .   x   .   x   x   x   x   x   x   .   .   x   x   x
attack.encoder                 .   .   .   x   x   .   .   .   x   x   x   .   .   x   x   x
attack.loss                    .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.plan                    .   .   .   .   .   x   x   x   x   x   x   .   .   x   x   x
attack.query_augmentation      .   .   .   .   .   x   x   x   x   x   x   .   .   x   x   x
attack.student_augmentation    .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.strategy                .   .   .   .   .   x   x   x   x   x   x   .   .   x   x   x
attack.recover                 .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.accounts                .   .   .   .   .   x   x   x   x   x   x   .   .   x   x   x
attack.overlap                 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
attack.budget                  .   .   .   x   .   .   x   x   x   x   x   .   .   x   x   x
attack.epochs                  .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.batch_size              .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.optimizer               .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.schedule                .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
attack.learning_rate           .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
legitimate.users               .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
legitimate.images              .   .   .   .   .   .   .   .   .   .   .   x   x   .   .   x
legitimate.test_images         .   .   .   .   .   .   .   .   .   .   .   x   x   .   .   x
legitimate.model               .   .   .   .   .   .   .   .   .   .   .   .   x   .   .   x
cost.dollars_per_1000_queries  .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
cost.dollars_per_hour          .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
baselines.random               .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
baselines.scratch_epochs       .   .   .   x   .   .   .   .   .   x   .   .   .   .   .   x
baselines.scratch_batch_size   .   .   .   x   .   .   .   .   .   x   .   .   .   .   .   x
evaluation.tasks               .   x   .   .   .   .   .   .   .   .   .   x   x   x   x   x
evaluation.probe               .   x   .   .   .   .   .   .   .   .   .   .   x   x   x   x
evaluation.neighbors           .   .   .   .   .   .   .   .   .   .   .   .   .   x   .   x
evaluation.shots               .   .   .   .   .   .   .   .   .   .   .   .   .   x   .   x
evaluation.victim              .   .   .   .   .   .   .   .   .   .   .   .   .   x   .   x
training.checkpoint_every      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
training.log_every             .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
"""
OTHER = {  # another value of every field
    'seed': 2,
    'modules': ('own_effects',),
    'defense': 'round(decimals=1)',
    'data.name': 'noise',
    'data.dir': '/elsewhere',
    'data.size': 16,
    'victim.seed': 1,
    'victim.source': 'checkpoint(path="saved")',
    'victim.split': 'train[:63]',
    'victim.method': 'simsiam',
    'victim.encoder': WIDE,
    'victim.augmentation': 'simclr',
    'victim.epochs': 4,
    'victim.batch_size': 32,
    'victim.optimizer': 'sgd',
    'victim.schedule': 'constant',
    'victim.learning_rate': 0.5,
    'attack.name': 'cont_steal',
    'attack.data': 'noise',
    'attack.split': 'train[64:199]',
    'attack.encoder': WIDE,
    'attack.loss': 'cosine',
    'attack.plan': 'repeat(m=2)',
    'attack.query_augmentation': 'simclr',
    'attack.student_augmentation': 'simclr',
    'attack.strategy': 'stay_close',
    'attack.recover': 'harden',
    'attack.accounts': 2,
    'attack.overlap': 10,
    'attack.budget': 40,
    'attack.epochs': 5,
    'attack.batch_size': 8,
    'attack.optimizer': 'sgd',
    'attack.schedule': 'constant',
    'attack.learning_rate': 0.5,
    'legitimate.users': ('narrow',),
    'legitimate.images': 50,
    'legitimate.test_images': 30,
    'legitimate.model': 'mlp',
    'cost.dollars_per_1000_queries': 2.0,
    'cost.dollars_per_hour': 2.0,
    'baselines.random': False,
    'baselines.scratch_epochs': 3,
    'baselines.scratch_batch_size': 8,
    'evaluation.tasks': ('digits(train="train[:100]", test="test[:100]")',),
    'evaluation.probe': 'lbfgs',
    'evaluation.neighbors': 3,
    'evaluation.shots': 2,
    'evaluation.victim': 'no',
    'training.checkpoint_every': 5,
    'training.log_every': 3,
}


def cells():
    """{field: {stage: 'x' or '.'}}, as TABLE has them."""
    head, *lines = TABLE.strip('\n').splitlines()
    stages = [next(name for name in STAGES if name.startswith(word)) for word in head.split()]
    assert stages == list(STAGES)
    rows = [line.split() for line in lines]
    assert all(len(row) == len(stages) + 1 and set(row[1:]) <= {'x', '.'} for row in rows)
    return {row[0]: dict(zip(stages, row[1:], strict=True)) for row in rows}


def leaf_fields():
    fields = flatten(json.loads(config.base().to_json()))
    return [name for name in fields if name != 'runs']


def test_every_field_has_a_row():
    assert list(cells()) == leaf_fields() == list(OTHER)


@pytest.fixture(scope='module')
def plain():
    return addresses({})


@pytest.fixture
def folder(tmp_path, monkeypatch, registries_restored):
    """An empty working directory, from which own modules are imported and then forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)  # an edit within a second is seen
    victim.forget()
    yield tmp_path
    victim.forget()
    forget_modules()


def forget_modules():
    """Forgets what was imported from the working directory, as a new process would."""
    for name, module in list(sys.modules.items()):
        if pathlib.Path(getattr(module, '__file__', None) or '/').parent == pathlib.Path.cwd():
            del sys.modules[name]
            for registry in REGISTRIES.values():
                for entry in [k for k, e in registry.entries.items() if e.module == name]:
                    del registry.entries[entry]


def changed(before, after):
    return {name for name in STAGES if before[name] != after[name]}


@pytest.mark.parametrize('field', list(OTHER))
def test_a_stage_depends_on_what_the_table_says(field, plain, folder):
    (folder / 'own_effects.py').write_text('EFFECT = 1\n')
    if field == 'victim.source':
        save_encoder(folder / 'saved')
    fields = {field: OTHER[field]}
    modules = import_modules(fields.get('modules', ()))
    expected = {stage for stage, cell in cells()[field].items() if cell == 'x'}
    assert changed(plain, addresses(fields, modules)) == expected


def test_all_addresses_differ_and_are_the_same_again(plain):
    assert len(set(plain.values())) == len(STAGES) and None not in plain.values()
    sets.forget()
    assert addresses({}) == plain


# What the table's conditions do not show: (stage, fields in common, another value, depends).
POSTERIORS = {'attack.name': 'posteriors'}
LOADED = {'victim.source': 'checkpoint(path="saved")'}
POISONED = LOADED | {'defense': 'prediction_poisoning'}
ONLINE = {'attack.plan': 'online'}
OTHER_TASK = {'evaluation.tasks': OTHER['evaluation.tasks']}
RENAMED = {'evaluation.tasks': ('digits(name="few", train="train[:200]", test="test[:100]")',)}
CASES = {
    'a classifier answers: its task': ('answers', POSTERIORS, OTHER_TASK, True),
    'a classifier answers: its probe': ('answers', POSTERIORS, {'evaluation.probe': 'lbfgs'}, True),
    'its training set, not its test set': (
        'answers',
        POSTERIORS,
        {'evaluation.tasks': ('digits(train="train[:200]", test="test[:99]")',)},
        False,
    ),
    'the endpoint': ('answers', {}, POSTERIORS, True),
    'the endpoint that users see': ('asks', {}, POSTERIORS, True),
    'loaded: another split': ('answers', LOADED, {'victim.split': 'train[:63]'}, False),
    'loaded: another seed': ('answers', LOADED, {'victim.seed': 5}, False),
    'loaded: no pretraining': ('surrogate', LOADED, {'victim.epochs': 5}, False),
    'shadow: the split': ('answers', POISONED, {'victim.split': 'train[:63]'}, True),
    'shadow: the seed': ('answers', POISONED, {'victim.seed': 5}, True),
    'shadow: no pretraining': ('answers', POISONED, {'victim.epochs': 5}, False),
    'denoise: epochs': ('denoised', {}, {'baselines.scratch_epochs': 3}, True),
    'no shadow: epochs': ('surrogate', {}, {'baselines.scratch_epochs': 3}, False),
    'own scratch: method': ('denoised', LOADED, {'victim.method': 'simsiam'}, True),
    'scratch under online: all inputs': ('scratch', ONLINE, {'attack.budget': 60}, False),
    'scratch under online': ('scratch', {}, ONLINE, True),
    'online: the loss': ('answers', ONLINE, {'attack.loss': 'cosine'}, True),
    'in rounds: the loss': ('answers', {'attack.strategy': 'kcenter'}, {'attack.loss': 'l1'}, True),
    'in rounds: the budget': (
        'answers',
        {'attack.strategy': 'kcenter'},
        {'attack.budget': 50},
        True,
    ),
    'accounts: the overlap': ('answers', {'attack.accounts': 2}, {'attack.overlap': 10}, True),
    'the name of a task, in rows': ('evaluation', {}, RENAMED, True),
    'the name of a task, in users rows': ('user', {}, RENAMED, True),
    'the name of a task, in rows of marks': ('mark', {}, RENAMED, True),
    'the name of a task: no answer': ('asks', {}, RENAMED, False),
    'the name of a task: no classifier': ('classifier', {}, RENAMED, False),
    'the same set by its name': ('surrogate', {}, {'attack.data': 'digits'}, False),
    'the same encoder by its name': ('surrogate', {}, {'attack.encoder': ENCODER}, False),
}


@pytest.mark.parametrize('case', list(CASES))
def test_under_other_conditions(case, folder):
    stage, common, other, depends = CASES[case]
    if 'victim.source' in common:
        save_encoder(folder / 'saved')
    before, after = addresses(common), addresses(common | other)
    assert (before[stage] != after[stage]) == depends


def test_another_kind_of_user_asks_for_itself(plain):
    assert changed(plain, addresses({}, user='narrow')) == {'asks', 'user'}


# The content of data and of loaded victims.
ALL = set(STAGES)
AFTER_VICTIM = ALL - {'scratch', 'random'}
ASKING = {'answers', 'defended', 'poisoned'}
STOLEN = {'surrogate', 'denoised', 'scout', 'evaluation', 'mark', 'run'}
ASSESSED = {'classifier', 'asks', 'user', 'evaluation', 'mark', 'run'}
SET = 'npz(path="{}.npz")'
CONTENT = {  # field -> its value, what changes with the content
    'data.name': (SET.format('own'), AFTER_VICTIM),
    'attack.data': (SET.format('own'), ASKING | STOLEN | {'scratch'}),
    'evaluation.tasks': ((SET.format('own')[:-1] + ', train="train", test="test")',), ASSESSED),
}


def write_set(path, value=0, label=0):
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 255, (300, 8, 8, 3)).astype(np.uint8)
    labels = rng.integers(10, size=300)
    inputs[0, 0, 0, 0], labels[0] = value, label
    np.savez(
        path, inputs=inputs, labels=labels, split=np.array(['train', 'test']).repeat([200, 100])
    )


@pytest.mark.parametrize('edit', [{'value': 1}, {'label': 1}])
@pytest.mark.parametrize('field', list(CONTENT))
def test_other_data_under_the_same_name(field, edit, folder):
    value, expected = CONTENT[field]
    fields = {'attack.data': 'noise', 'attack.split': 'train[:150]', field: value, 'data.size': 0}
    fields |= {'victim.split': 'train[:64]'}
    write_set(folder / 'own.npz')
    if field != 'data.name':
        write_set(folder / 'victim.npz', value=9)
        fields['data.name'] = SET.format('victim')
    if field != 'evaluation.tasks':
        write_set(folder / 'task.npz', value=8)
        fields['evaluation.tasks'] = (SET.format('task'),)
    if field != 'attack.data':
        write_set(folder / 'pool.npz', value=7)
        fields['attack.data'] = SET.format('pool')
    sets.forget()
    before = addresses(fields)
    write_set(folder / 'own.npz', **edit)
    sets.forget()
    assert changed(before, addresses(fields)) == expected
    sets.forget()


def test_another_checkpoint_in_the_same_place_is_another_victim(folder):
    save_encoder(folder / 'saved')
    before = addresses(LOADED)
    save_encoder(folder / 'saved', weights=0.5)
    victim.forget()
    assert changed(before, addresses(LOADED)) == AFTER_VICTIM
    save_encoder(folder / 'elsewhere')
    elsewhere = addresses({'victim.source': 'checkpoint(path="elsewhere")'})
    assert changed(before, elsewhere) == {'run'}


def test_other_head_weights_in_a_checkpoint_are_another_victim_under_access_head(folder):
    fields = LOADED | {'attack.name': 'access_head(hidden=8)'}
    save_encoder(folder / 'saved')
    before = addresses(fields)
    save_encoder(folder / 'saved', head_weights=0.5)
    victim.forget()
    assert changed(before, addresses(fields)) == AFTER_VICTIM


# Own modules: (source, field that names what it registers, its value, what changes with an edit).
PREFIX = """
import numpy as np
from ssl_extract import attacks, augment, data, defenses, encoders, evaluation, losses, recovery
from ssl_extract import strategies, training, users, victims
"""
OWN = {
    'loss': ('losses.register', 'losses.LOSSES["mse"]', 'attack.loss', STOLEN),
    'attack': (
        'attacks.register',
        'attacks.ATTACKS["direct"]',
        'attack.name',
        STOLEN,
    ),
    'recovery': ('recovery.register', 'recovery.RECOVERIES["harden"]', 'attack.recover', STOLEN),
    'student': (
        'augment.register',
        'augment.AUGMENTATIONS["simclr"]',
        'attack.student_augmentation',
        STOLEN,
    ),
    'optimizer': (
        'training.register_optimizer',
        'training.OPTIMIZERS["sgd"]',
        'attack.optimizer',
        STOLEN,
    ),
    'query_view': (
        'augment.register',
        'augment.AUGMENTATIONS["simclr"]',
        'attack.query_augmentation',
        STOLEN | ASKING,
    ),
    'strategy': (
        'strategies.register',
        'strategies.STRATEGIES["random"]',
        'attack.strategy',
        STOLEN | ASKING,
    ),
    'plan': ('attacks.register_plan', 'attacks.PLANS["once"]', 'attack.plan', STOLEN | ASKING),
    'defense': (
        'defenses.register',
        'defenses.DEFENSES["round"]',
        'defense',
        STOLEN - {'mark'} | ASKING | {'asks', 'user'},
    ),
    'surrogates_encoder': (
        'encoders.register',
        f'lambda: encoders.make({ENCODER!r})',
        'attack.encoder',
        STOLEN | {'scratch', 'random'},
    ),
    'encoder': ('encoders.register', f'lambda: encoders.make({ENCODER!r})', 'victim.encoder', ALL),
    'method': ('victims.register', 'victims.VICTIMS["simclr"]', 'victim.method', ALL - {'random'}),
    'schedule': (
        'training.register_schedule',
        'training.SCHEDULES["cosine"]',
        'victim.schedule',
        ALL - {'random'},
    ),
    'view': (
        'augment.register',
        'augment.AUGMENTATIONS["simclr"]',
        'victim.augmentation',
        ALL - {'random'},
    ),
    'pool': (
        'data.register',
        'data.DATASETS["digits"]',
        'attack.data',
        STOLEN | ASKING | {'scratch'},
    ),
    'set': ('data.register', 'data.DATASETS["digits"]', 'data.name', ALL - {'random'}),
    'metric': ('evaluation.register_metric', 'lambda features: None', None, {'evaluation', 'run'}),
    'probe': (
        'evaluation.register_probe',
        'evaluation.PROBES["lbfgs"]',
        'evaluation.probe',
        ASSESSED - {'asks'},
    ),
    'task_set': ('data.register', 'data.DATASETS["digits"]', 'evaluation.tasks', ASSESSED),
    'task': (
        'evaluation.register_task',
        'lambda size: evaluation.make_tasks(["digits"], size=size)[0]',
        'evaluation.tasks',
        ASSESSED,
    ),
    'model': ('users.register_model', 'users.MODELS["mlp"]', 'legitimate.model', {'user', 'run'}),
    'user': ('users.register', 'users.USERS["broad"]', 'user', {'asks', 'user', 'run'}),
}


def edited(folder, source, fields, user='broad'):
    """What changes when the source of the module that registers names in `fields` is edited."""
    found = []
    for edit in ('', 'EDITED = True\n'):
        (folder / 'own.py').write_text(PREFIX + source + edit)
        forget_modules()
        victim.forget()
        found.append(addresses(fields, import_modules(('own',)), user))
    return changed(*found)


@pytest.mark.parametrize('kind', list(OWN))
def test_an_edited_own_module_changes_the_stages_that_use_it(kind, folder):
    register, factory, field, expected = OWN[kind]
    name = f'my_{kind}'
    source = f'{register}({name!r})({factory})\n'
    value = (name,) if field == 'evaluation.tasks' else name
    fields = {} if field in (None, 'user') else {field: value}
    assert edited(folder, source, fields, name if field == 'user' else 'broad') == expected


def test_an_edited_decoder_of_stored_sets(folder):
    source = 'data.register_decoder("my_decoder")(data.DECODERS["images"])\n'
    for name, value in (('pool', 1), ('task', 2)):
        write_set(folder / f'{name}.npz', value=value)
    own = SET.format('{}')[:-1] + ', decode="my_decoder"'
    pool = {'attack.data': own.format('pool') + ')', 'attack.split': 'all', 'data.size': 0}
    assert edited(folder, source, pool) == STOLEN | ASKING | {'scratch'}
    task = own.format('task') + ', train="train", test="test", name="task")'
    assert edited(folder, source, {'evaluation.tasks': (task,), 'data.size': 0}) == ASSESSED


def test_an_edited_network_of_a_loaded_victim(folder, plain):
    encoder = f'encoders.register("my_network")(lambda: encoders.make({ENCODER!r}))\n'
    (folder / 'own.py').write_text(PREFIX + encoder)
    import_modules(('own',))
    save_encoder(folder / 'saved', encoder='my_network')
    fields = LOADED | {'attack.encoder': ENCODER}
    assert edited(folder, encoder, fields) == AFTER_VICTIM


SOURCES = {  # how the own module makes a victim, as victim.source names it
    'my_source': (
        'victims.register_source("my_source")('
        'lambda: lambda mesh: victims.from_function(np.array, dim=4, address="mine"))\n'
    ),
    'function("own:answer", dim=4)': 'def answer(inputs):\n    return inputs[:, 0, 0]\n',
    'function("own:answer", dim=4, address="a")': (
        'def answer(inputs):\n    return inputs[:, 0, 0]\nlosses.register("my_loss")(answer)\n'
    ),
}


@pytest.mark.parametrize('value', list(SOURCES))
def test_an_edited_own_victim(value, folder):
    fields = {'victim.source': value, 'attack.encoder': ENCODER}
    used = edited(folder, SOURCES[value], fields)
    assert AFTER_VICTIM - {'evaluation'} <= used


def test_an_edited_module_that_no_stage_names_changes_the_run_only(folder):
    source = 'losses.register("my_loss")(losses.LOSSES["mse"])\n'
    assert edited(folder, source, {}) == {'run'}


def test_an_edited_module_that_registers_nothing_changes_everything(folder):
    assert edited(folder, 'losses.LOSSES\n', {}) == ALL


def test_a_module_edited_within_a_process_is_refused(folder):
    (folder / 'own.py').write_text(PREFIX)
    first = import_modules(('own',))
    assert import_modules(('own',)) == first
    (folder / 'own.py').write_text(PREFIX + 'EDITED = True\n')
    with pytest.raises(UserError, match="'own' was edited since this process imported it"):
        import_modules(('own',))


def test_a_neighbor_counts_before_it_is_imported_and_what_is_not_the_users_does_not(folder):
    loss = PREFIX + 'losses.register("my_loss")(lambda: __import__("late").LOSS)\n'
    (folder / 'own.py').write_text(loss + 'def later():\n    import late\n')
    (folder / 'late.py').write_text('LOSS = 1\n')
    for foreign in ('ssl_extract', '.venv/lib/site-packages/jax'):  # a checkout with both
        (folder / foreign).mkdir(parents=True)
        (folder / foreign / '__init__.py').write_text('FIRST = 1\n')
    before = import_modules(('own',))
    assert before.names == {'my_loss'}
    importlib.import_module('late')
    assert import_modules(('own',)) == before
    (folder / 'ssl_extract/__init__.py').write_text('SECOND = 2\n')
    (folder / '.venv/lib/site-packages/jax/__init__.py').write_text('SECOND = 2\n')
    assert import_modules(('own',)) == before
    forget_modules()
    (folder / 'late.py').write_text('LOSS = 2\n')
    assert import_modules(('own',)).sources != before.sources
