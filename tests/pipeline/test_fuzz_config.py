"""A few hundred generated wrong values of every field: one line each, and nothing starts."""

import math
import random

import ml_collections
import pytest
import tiny

from ssl_extract import (
    attacks,
    augment,
    checks,
    config,
    data,
    defenses,
    encoders,
    evaluation,
    losses,
    ranges,
    recovery,
    strategies,
    training,
    users,
    victims,
)
from ssl_extract.errors import UserError
from ssl_extract.pipeline.run import prepare
from ssl_extract.victims.sources import SOURCES

PARTS = {  # the registry of each field that names a part
    'defense': defenses.DEFENSES,
    'data.name': data.DATASETS,
    'victim.source': SOURCES,
    'victim.method': victims.VICTIMS,
    'victim.encoder': encoders.ENCODERS,
    'victim.augmentation': augment.AUGMENTATIONS,
    'victim.optimizer': training.OPTIMIZERS,
    'victim.schedule': training.SCHEDULES,
    'attack.name': attacks.ATTACKS,
    'attack.data': data.DATASETS,
    'attack.encoder': encoders.ENCODERS,
    'attack.loss': losses.LOSSES,
    'attack.plan': attacks.PLANS,
    'attack.query_augmentation': augment.AUGMENTATIONS,
    'attack.student_augmentation': augment.AUGMENTATIONS,
    'attack.strategy': strategies.STRATEGIES,
    'attack.recover': recovery.RECOVERIES,
    'attack.optimizer': training.OPTIMIZERS,
    'attack.schedule': training.SCHEDULES,
    'legitimate.users': users.USERS,
    'legitimate.model': users.MODELS,
    'evaluation.tasks': data.DATASETS,
    'evaluation.probe': evaluation.PROBES,
}
WRONG_TEXTS = {  # of the other fields of texts
    'victim.split': (
        '',
        'tra in',
        'train[',
        'train[:0]',
        'train[300%:]',
        'x' * 300,
        '\ud800',
        '\0',
    ),
    'attack.split': (
        '',
        'valid',
        'train[5:2]',
        'train[:-9999]',
        '[]',
        'train+',
        '测试',
        'train\ntest',
    ),
    'evaluation.victim': ('', 'yes', 'IF_FREE', 'ask ', '\0'),
    'modules': ('', ' ', '.', 'a..b', '.a', 'a b', 'a/b', 'no_such_module', '\ud800', 'x' * 300),
}
HUGE = (10**30, -(10**30), 10**5000, 2**31, -(2**31), 1e308, -1e308, 1e-320)
OTHERS = (math.nan, math.inf, -math.inf, 1.5, 1j, None, True, b'1', 'one', '٣', '', (), (1,), [[]])
NO_TEXTS = (None, 3, 1.5, math.nan, True, b'mse', ('mse',), [], {'mse': 1}, 10**5000, object())
FIELDS = config._flat(config.base())


def wrong_numbers(annotation):
    values = [value for value in (-1, *HUGE, *OTHERS) if not ranges.accepts(annotation, value)]
    if ranges.accepts(annotation, 0.5):  # a ConfigDict makes floats of the field's numbers
        values = [value for value in values if value is not True and value != 10**5000]
    return values


def wrong_arguments(registry, name):
    """Specs of a registered name with a number that is out of range or none."""
    for parameter in checks.parameters_of(registry[name]).values():
        for value in (-(10**30), 1e300, 'x', [], {}, math.inf):
            if not ranges.accepts(parameter.annotation, value):
                yield f'{name}({parameter.name}={repr(value).replace("inf", "1e999")})'


def wrong_specs(registry, rng, count):
    """Specs that no part of a registry has: broken, of unknown names, of wrong arguments."""
    names = sorted(name for name in registry if registry.module_of(name).startswith('ssl_extract.'))
    makers = (
        lambda name: f'{name}_x{rng.randrange(99)}',
        lambda name: name.upper() + 'ß',
        lambda name: (
            name + rng.choice(('(', ')', '(1', '()()', '(a b)', '(=1)', '(x=)', '[0]', '.a'))
        ),
        lambda name: f'{name}({rng.choice(("nope=1", "*[1]", "**{}", "x=y", "f()", "1, 1" * 40))})',
        lambda name: f'{name}(nope=1, nope=2)',
        lambda name: f'{name} | | {name}',
        lambda name: f'{name}; {name}',
        lambda name: ' | '.join([f'{name}(nope=1)'] * 3000),
        lambda name: f'{name}({"[" * 150}{"]" * 150}, {"-" * 9000}1)',
        lambda name: name + rng.choice(('\0', '\ud800', '\n(', ' x', '\u202e')),
        lambda name: rng.choice(
            ('(' * 300, '-' * 9000 + '1', '"', "'''", '{', '1e999', '测试', '\\')
        ),
        lambda name: rng.choice([*wrong_arguments(registry, name), f'{name}(nope="")']),
    )
    return [makers[i % len(makers)](rng.choice(names)) for i in range(count)]


def wrong_values(field, rng):
    """The wrong values of a field, by its type and range."""
    if field in config.RANGES:
        return wrong_numbers(config.RANGES[field])
    if field == 'runs':
        runs = (1, None, 'attack', {3: 4}, {'attack.nope': 3}, {'': 1}, {'.': 1}, {'attack': 3})
        fields = (
            {'seed': None},
            {'attack.learning_rate': 10**5000},
            {'attack.budget': 'x'},
            {'attack.budget': -1},
            {'runs': ()},
        )
        return [3, None, 'seed', *((run,) for run in (*runs, *fields)), ({}, {'attack.loss': 'no'})]
    if isinstance(FIELDS[field], bool):
        return ['yes', '', 1, 0, None, 1.0, (), math.nan]
    several = isinstance(FIELDS[field], tuple)
    texts = list(WRONG_TEXTS.get(field, ()))
    if field in PARTS:
        texts += wrong_specs(PARTS[field], rng, 24)
    if not several:
        return [*NO_TEXTS, *texts]
    return [3, None, 'one', {}, *((value,) for value in (*NO_TEXTS, *texts)), ((),), (('a',),)]


def experiment(field, value):
    cfg = tiny.get_config()
    with cfg.unlocked(), cfg.ignore_type():
        cfg.runs = ()
        *sections, name = field.split('.')
        section = cfg
        for part in sections:
            section = section[part]
        with section.unlocked(), section.ignore_type():
            section[name] = value
    return cfg


def refusal(cfg):
    """The line that a config is refused with before anything starts."""
    try:
        prepare(cfg, 'workdir')
    except UserError as error:
        return str(error)
    return ''


@pytest.mark.parametrize('field', FIELDS)
def test_wrong_values_are_refused_in_one_line(field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in wrong_values(field, random.Random(field)):
        line = refusal(experiment(field, value))
        shown = checks.shown(value)
        assert line, f'{field}={shown} was accepted'
        assert len(line.splitlines()) == 1 and len(line) < 1000, (shown, line)
    assert list(tmp_path.iterdir()) == []


def test_there_are_a_few_hundred_of_them():
    assert sum(len(wrong_values(field, random.Random(field))) for field in FIELDS) > 800


@pytest.mark.parametrize('name', ['nope', 'Seed', '', '测试', 'x' * 300])
def test_unknown_and_missing_fields(name):
    cfg = experiment('seed', 1)
    with cfg.unlocked():
        cfg.attack[name] = 3
    assert 'there is no such field' in refusal(cfg)
    cfg = tiny.get_config()
    with cfg.unlocked():
        del cfg.attack.budget
    assert refusal(cfg) == 'attack.budget is missing: start the config from config.base()'
    with cfg.unlocked(), cfg.ignore_type():
        cfg.attack = name
    assert 'attack' in refusal(cfg)
    assert 'is missing' in refusal(ml_collections.ConfigDict())
