"""The addresses of all stages of a run under six conditions, computed without training."""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from ssl_extract import config, defenses
from ssl_extract.encoders import trained
from ssl_extract.pipeline import (
    baselines,
    evaluate,
    owner,
    ownership,
    run,
    sets,
    stage,
    surrogate,
    users,
    victim,
)
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.modules import NO_MODULES
from ssl_extract.registry import REGISTRIES
from ssl_extract.runtime import parallel

MESH = parallel.data_mesh()
ENCODER = 'resnet18(stem="patch", width=4, stages=(1,))'
HEAD = 'simclr(hidden=8, dim=8)'

CONDITIONS = {  # fields of `tiny` that differ
    'plain': {},
    'defended': {'defense': 'gaussian_noise(stddev=1.0)'},
    'adaptive': {'attack.recover': 'denoise'},
    'rounds': {'attack.strategy': 'kcenter(rounds=2)'},
    'shadowed': {'defense': 'prediction_poisoning'},
    'marked': {'attack.name': 'posteriors', 'defense': 'dynamarks'},
}
STAGES = {  # the stage and the condition in which its address is taken
    'victim': ('victim', 'plain'),
    'classifier': ('classifier', 'plain'),
    'shadow': ('shadow', 'plain'),
    'scratch': ('scratch', 'plain'),
    'random': ('random', 'plain'),
    'answers': ('answers', 'plain'),
    'defended': ('answers', 'defended'),
    'poisoned': ('answers', 'shadowed'),
    'surrogate': ('surrogate', 'plain'),
    'denoised': ('surrogate', 'adaptive'),
    'scout': ('scout', 'rounds'),
    'asks': ('asks', 'defended'),  # the answers to a legitimate user
    'user': ('user', 'defended'),
    'evaluation': ('evaluation', 'plain'),
    'mark': ('mark', 'marked'),
    'run': ('run', 'plain'),
}
LOCKED = {  # written out, for an attack left alone brings its own
    'attack.loss': 'mse',
    'attack.plan': 'once',
    'attack.query_augmentation': 'none',
    'attack.student_augmentation': 'none',
}

LOADED = {'victim.source': 'checkpoint(path="saved")'}
ALL = set(STAGES)
AFTER_VICTIM = ALL - {'scratch', 'random'}
ASKING = {'answers', 'defended', 'poisoned'}
STOLEN = {'surrogate', 'denoised', 'scout', 'evaluation', 'mark', 'run'}
ASSESSED = {'classifier', 'asks', 'user', 'evaluation', 'mark', 'run'}
SET = 'npz(path="{}.npz")'


def addresses(fields, modules=NO_MODULES, user='broad'):
    """Address by stage, of `tiny` with some fields changed."""
    found = {
        condition: _addresses({**LOCKED, **own, **fields}, modules, user)
        for condition, own in CONDITIONS.items()
    }
    return {name: found[condition][stage] for name, (stage, condition) in STAGES.items()}


def make_config(fields):
    c = tiny.get_config()
    c.runs = ()
    c.update_from_flattened_dict(fields)
    (one,) = config.expand(c)
    return one


def _addresses(fields, modules, user):
    one = make_run(make_config(fields), 'workdir', MESH, modules)
    c, workspace, loaded = one.config, one.workspace, sets.load_sets(one)
    sketch = victim.sketch_of(one, loaded)
    where = sketch.address or victim.address_of(one, loaded)
    example = _example(sketch)._replace(address=where)
    victims_owner = owner.owner_of(one, loaded, example)
    spec, account = surrogate.specs_of(one, loaded, sketch, victims_owner)
    service = {k: spec[k] for k in ('victim', 'endpoint', 'defense', 'classifier') if k in spec}
    settings = users.settings_of(one, loaded)
    asks = users.account_spec(workspace, victims_owner, settings, user, spec['endpoint'], c.defense)
    encoder, seed = c.attack.encoder or sketch.encoder, c.seed
    stolen = stage.address(workspace, spec)
    subject, _ = evaluate.victim_subject(one, loaded, example)
    beside = subject and stage.address(
        workspace, evaluate.spec_of(one, loaded, subject.address, None)
    )
    specs = {
        'classifier': owner.classifier_spec(victims_owner),
        'shadow': owner.shadow_spec(workspace, victims_owner, 10),
        'scratch': baselines.scratch_of(one, loaded, sketch.encoder).spec,
        'random': baselines.untrained_spec(encoder, sketch.input_shape, seed),
        'answers': account,
        'surrogate': spec,
        'evaluation': evaluate.spec_of(one, loaded, stolen, beside),
        'asks': asks,
        'user': users.result_spec(settings, asks),
        'scout': surrogate.scout_spec(spec, 0),
    }
    if defenses.mark_of(c.defense):
        specs['mark'] = ownership.mark_spec(victims_owner, stolen, service)
    found = {name: stage.address(workspace, spec) for name, spec in specs.items()}
    return {'victim': where, 'run': run.id_of(one, loaded, sketch), 'mark': None, **found}


@functools.cache
def _example(sketch):
    return victim.example_victim(sketch)


def save_encoder(folder, *, weights=0.0, head_weights=0.0, encoder=ENCODER):
    """Writes an encoder with a head, of any weights."""
    network, head = trained.make(encoder), trained.make_head(HEAD)
    variables, heads = _variables(network, head)
    encoded = trained.Encoder(
        encoder,
        _shifted(variables, weights),
        (8, 8, 3),
        (('head', HEAD),),
        {'head': _shifted(heads, head_weights)},
    )
    trained.save(folder, encoded)


@functools.cache
def _variables(network, head):
    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    outputs = network.apply(variables, jnp.zeros((1, 8, 8, 3)))
    return variables, head.init(jax.random.key(0), outputs)


def _shifted(variables, by):
    leaves, treedef = jax.tree.flatten(variables)
    return jax.tree.unflatten(treedef, [np.asarray(leaves[0]) + by, *leaves[1:]])


def changed(before, after):
    return {name for name in STAGES if before[name] != after[name]}


def forget_modules():
    """Forgets what was imported from the working directory, as a new process would."""
    for name, module in list(sys.modules.items()):
        if pathlib.Path(getattr(module, '__file__', None) or '/').parent == pathlib.Path.cwd():
            del sys.modules[name]
            for registry in REGISTRIES.values():
                for entry in [k for k, e in registry.entries.items() if e.module == name]:
                    del registry.entries[entry]


def write_set(path, value=0, label=0):
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 255, (300, 8, 8, 3)).astype(np.uint8)
    labels = rng.integers(10, size=300)
    inputs[0, 0, 0, 0], labels[0] = value, label
    np.savez(
        path, inputs=inputs, labels=labels, split=np.array(['train', 'test']).repeat([200, 100])
    )
