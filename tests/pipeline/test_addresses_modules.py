"""An edit of an own module changes the stages that use what it registers, and no others."""

import importlib

import pytest
from addresses import (
    AFTER_VICTIM,
    ALL,
    ASKING,
    ASSESSED,
    ENCODER,
    LOADED,
    SET,
    STOLEN,
    addresses,
    changed,
    forget_modules,
    save_encoder,
    write_set,
)

from ssl_extract.errors import UserError
from ssl_extract.pipeline import victim
from ssl_extract.pipeline.modules import import_modules

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


def test_an_edited_network_of_a_loaded_victim(folder):
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
