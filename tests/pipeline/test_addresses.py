"""For every stage: what its result depends on changes its address, and nothing else does."""

import json

import pytest
from addresses import (
    AFTER_VICTIM,
    ASKING,
    ASSESSED,
    ENCODER,
    LOADED,
    SET,
    STAGES,
    STOLEN,
    addresses,
    changed,
    save_encoder,
    write_set,
)

from ssl_extract import config
from ssl_extract.encoders import trained
from ssl_extract.pipeline import sets, victim
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.report.results import flatten
from ssl_extract.victims import stored
from ssl_extract.victims.stored import Stored

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
attack.init                    .   .   .   .   .   .   .   .   x   x   x   .   .   x   x   x
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
legitimate.recover             .   .   .   .   .   .   .   .   .   .   .   .   x   .   .   x
legitimate.repeats             .   .   .   .   .   .   .   .   .   .   .   .   x   .   .   x
legitimate.model               .   .   .   .   .   .   .   .   .   .   .   .   x   .   .   x
cost.dollars_per_1000_queries  .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
cost.dollars_per_hour          .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
baselines.random               .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   x
baselines.scratch_epochs       .   .   .   x   .   .   .   .   .   x   .   .   .   .   .   x
baselines.scratch_batch_size   .   .   .   x   .   .   .   .   .   x   .   .   .   .   .   x
baselines.scratch_inputs       .   .   .   x   .   .   .   .   .   x   .   .   .   .   .   x
evaluation.tasks               .   x   .   .   .   .   .   .   .   .   .   x   x   x   x   x
evaluation.probe               .   x   .   .   .   .   .   .   .   .   .   .   x   x   x   x
evaluation.neighbors           .   .   .   .   .   .   .   .   .   .   .   .   .   x   .   x
evaluation.shots               .   .   .   .   .   .   .   .   .   .   .   .   .   x   .   x
evaluation.victim              .   .   .   .   .   .   .   .   .   .   .   .   .   x   .   x
training.checkpoint_every      .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
training.log_every             .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
training.steps_per_dispatch    .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
training.replicas              .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
training.log_to                .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
report.comparisons             .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
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
    'attack.init': 'scratch',
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
    'legitimate.recover': ('', 'shrink'),
    'legitimate.repeats': (1, 2),
    'legitimate.model': 'mlp',
    'cost.dollars_per_1000_queries': 2.0,
    'cost.dollars_per_hour': 2.0,
    'baselines.random': False,
    'baselines.scratch_epochs': 3,
    'baselines.scratch_batch_size': 8,
    'baselines.scratch_inputs': 50,
    'evaluation.tasks': ('digits(train="train[:100]", test="test[:100]")',),
    'evaluation.probe': 'lbfgs',
    'evaluation.neighbors': 3,
    'evaluation.shots': 2,
    'evaluation.victim': 'no',
    'training.checkpoint_every': 5,
    'training.log_every': 3,
    'training.steps_per_dispatch': 4,
    'training.replicas': 4,
    'training.log_to': 'tensorboard',
    'report.comparisons': ({'name': 'to itself', 'new': {}, 'old': {}},),
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
    'start: epochs': (
        'surrogate',
        {'attack.init': 'scratch'},
        {'baselines.scratch_epochs': 3},
        True,
    ),
    'start: the answers are the same': ('answers', {}, {'attack.init': 'scratch'}, False),
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


def test_a_user_of_a_loaded_victim_follows_its_augmentation(folder):
    save_encoder(folder / 'saved')
    before, after = (
        addresses(LOADED | {'victim.augmentation': augmentation}, user='augmenting')
        for augmentation in ('simclr', 'none')
    )
    assert {'asks', 'user'} <= changed(before, after)
    own = 'augmenting(augmentation="flip")'
    before, after = (
        addresses(LOADED | {'victim.augmentation': augmentation}, user=own)
        for augmentation in ('simclr', 'none')
    )
    assert not {'asks', 'user'} & changed(before, after)


# The content of data and of loaded victims.
CONTENT = {  # field -> its value, what changes with the content
    'data.name': (SET.format('own'), AFTER_VICTIM),
    'attack.data': (SET.format('own'), ASKING | STOLEN | {'scratch'}),
    'evaluation.tasks': ((SET.format('own')[:-1] + ', train="train", test="test")',), ASSESSED),
}


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


def test_another_victim_in_the_same_file_is_another_victim(folder):
    fields = {'victim.source': 'stored("mine.safetensors")'}
    found = []
    for weights, head_weights in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)):
        save_encoder(folder / 'saved', weights=weights, head_weights=head_weights)
        encoder = trained.load(folder / 'saved')
        stored.write('mine.safetensors', Stored(encoder, {}, {'dtype': 'float32'}))
        victim.forget()
        found.append(addresses(fields))
    assert changed(found[0], found[1]) == changed(found[0], found[2]) == AFTER_VICTIM
    assert changed(found[2], addresses(LOADED)) == {'run'}  # the same victim from elsewhere


def test_other_head_weights_in_a_checkpoint_are_another_victim_under_access_head(folder):
    fields = LOADED | {'attack.name': 'access_head(hidden=8)'}
    save_encoder(folder / 'saved')
    before = addresses(fields)
    save_encoder(folder / 'saved', head_weights=0.5)
    victim.forget()
    assert changed(before, addresses(fields)) == AFTER_VICTIM
