"""Finished runs written by hand, as the pipeline leaves them in a workdir."""

import copy
import json
import zlib

import numpy as np

from ssl_extract.runtime import files

CONFIG = {
    'seed': 1,
    'modules': [],
    'defense': '',
    'data': {'name': 'digits', 'size': 8},
    'victim': {'seed': 0, 'encoder': 'small', 'epochs': 10},
    'attack': {
        'name': 'direct',
        'data': '',
        'encoder': '',
        'loss': 'mse',
        'plan': 'once',
        'query_augmentation': 'none',
        'student_augmentation': 'none',
        'strategy': 'random',
        'recover': '',
        'accounts': 1,
        'budget': 100,
        'epochs': 5,
        'learning_rate': 0.001,
    },
    'legitimate': {'users': ['broad']},
    'cost': {'dollars_per_1000_queries': 1.0, 'dollars_per_hour': 1.0},
    'baselines': {'scratch_epochs': 5},
    'evaluation': {'tasks': ['digits'], 'neighbors': 5},
}


def make_config(**fields):
    """CONFIG with other fields; `__` stands for the dot."""
    config = copy.deepcopy(CONFIG)
    for name, value in fields.items():
        *parents, last = name.split('__')
        part = config
        for parent in parents:
            part = part[parent]
        part[last] = value
    return config


def address(role, config):
    """Stands for the hash of all that a stage depends on."""
    c = config
    depends = {
        'victim': [c['victim'], c['data']],
        'surrogate': [c['victim'], c['data'], c['attack'], c['defense'], c['seed']],
        'scratch': [c['data'], c['attack']['budget'], c['baselines'], c['seed']],
        'random': [c['seed'], c['victim']['encoder']],
    }[role]
    return f'{role}-{zlib.crc32(json.dumps(depends).encode()):x}'


def make_rows(config, value, run, victim_value=0.9):
    """Rows of a victim, a surrogate, an encoder from scratch and an untrained one."""
    attack, encoder = config['attack'], config['victim']['encoder']
    measure = {'task': 'digits', 'metric': 'linear_probe', 'n': 100}
    shared = {'encoder': encoder, 'seed': config['seed'], 'run': run, **measure}
    price = config['cost']['dollars_per_1000_queries']
    surrogate = {
        **{name: attack[name] for name in ('loss', 'plan', 'strategy', 'budget')},
        'attack': attack['name'],
        'views': '',
        'data': attack['data'] or config['data']['name'],
        'endpoint': 'representation',
        'defense': config['defense'],
        'adaptive': attack['recover'],
        'is_adaptive': bool(attack['recover']),
        'encoder': attack['encoder'] or encoder,
        'queries_billed': attack['budget'],
        'dollars': attack['budget'] * price / 1000,
        'seconds': 20.0,
    }
    own = {'budget': attack['budget'], 'data': surrogate['data'], 'seconds': 10.0}
    values = {
        'victim': {'value': victim_value, 'seed': config['victim']['seed'], 'seconds': 100.0},
        'surrogate': surrogate | {'value': value},
        'scratch': own | {'value': 0.6 + config['seed'] / 100},
        'random': {'value': 0.3 + config['seed'] / 100},
    }
    return [
        {'role': role, 'stage': address(role, config), **shared, **row}
        for role, row in values.items()
    ]


def write_run(workdir, id, value=0.8, victim_value=0.9, *, started='0', **fields):
    """Writes a run's folder and the folders of its curves and views; returns the run's folder."""
    config = make_config(**fields)
    folder = workdir / 'runs' / id
    folder.mkdir(parents=True)
    rows = make_rows(config, value, id, victim_value)
    (folder / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    roles = ('victim', 'surrogate')
    names = {'victim': 'victim', 'surrogate': f'direct: mse, seed {config["seed"]}'}
    places = {role: f'{role}/{address(role, config)}' for role in roles}
    for role in roles:
        curve = workdir / places[role] / 'metrics'
        curve.mkdir(parents=True, exist_ok=True)
        losses = [{'step': 1, 'loss': 2.0}, {'step': 2, 'loss': 1.0}]
        files.write_jsonl(curve / 'part-0000000002.jsonl', losses)
        arrays = {'projection': np.eye(4)[:, :2], 'labels': np.arange(4)}
        files.write_npz(workdir / places[role] / 'arrays.npz', **arrays)
    curves = [
        {'name': names[role], 'role': role, 'stage': address(role, config)}
        | {'folder': f'{places[role]}/metrics'}
        for role in roles
    ]
    counts = dict.fromkeys(('billed', 'unique', 'budget'), config['attack']['budget'])
    bill = {'account': 'a', 'run': id, 'plan': 'once', **counts, 'repeated': 0, 'refused': 0}
    about = {'id': id, 'name': f'run {id}', 'title': 'By hand', 'command': f'launch {id}'}
    about |= {'started': started, 'commit': 'c', 'versions': {'jax': '1'}, 'devices': ['cpu']}
    views = [{'title': role, 'folder': places[role]} for role in roles]
    for name, content in (('bills', [bill]), ('curves', curves), ('views', views)):
        (folder / f'{name}.json').write_text(json.dumps(content))
    (folder / 'run.json').write_text(json.dumps({**about, 'config': config}))
    return folder
