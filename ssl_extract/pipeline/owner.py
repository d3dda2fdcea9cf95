"""What the victim's owner prepares beside the victim: a classifier, and what its defenses need.

None of it asks the oracle: the owner has the victim itself.
"""

import inspect
from typing import Any

import jax
import ml_collections
import numpy as np
import scipy.special
from etils import epath

from ssl_extract import attacks, data, defenses, losses
from ssl_extract.attacks.direct import imitate
from ssl_extract.defenses import dynamarks
from ssl_extract.defenses.poisoning import Shadow
from ssl_extract.evaluation import features
from ssl_extract.evaluation.assess import PROBES
from ssl_extract.pipeline import images as selection
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.stage import Trained
from ssl_extract.registry import parse_call, split_chain
from ssl_extract.runtime import files
from ssl_extract.victims import classifier, endpoints

SHADOW_IMAGES, SHADOW_EPOCHS, SHADOW_BATCH = 2_000, 10, 64
_made: dict[str, Any] = {}  # by address, so that one defense is made, and compiled, once


def endpoint_spec(cfg: ml_collections.ConfigDict, target: Trained) -> dict[str, Any]:
    """What the answers of an endpoint depend on."""
    endpoint = attacks.endpoint_of(cfg.attack.name)
    spec: dict[str, Any] = {'name': endpoint}
    if endpoints.needs_classifier(endpoint):
        task = selection.load_tasks(cfg)[0]
        spec |= {'task': data.digest(task.train), 'probe': cfg.evaluation.probe}
    return spec


def fit_classifier(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh
) -> dict[str, np.ndarray]:
    """The victim's classifier of the first task, fitted once: `evaluation.probe` on its labels."""
    spec = {
        'stage': 'classifier',
        'victim': target.address,
        'endpoint': endpoint_spec(cfg, target) | {'name': 'classifier'},
    }
    path = workdir / 'classifier' / stage.address(spec) / 'variables.npz'
    if not path.exists():
        task = selection.load_tasks(cfg)[0].train
        apply = stage.make_encoder(target.encoder).apply
        known = features.extract(apply, target.variables, task.inputs, mesh=mesh)
        fitted = PROBES.make(cfg.evaluation.probe)(known, task.labels, task.num_classes)
        stage.describe(path.parent, spec)
        files.write_npz(path, **classifier.variables_of(fitted))
    return files.read_npz(path)


def make_defense(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh
) -> defenses.Defense:
    """The defense of a config, with what its parts ask the owner for."""
    given, endpoint = {}, attacks.endpoint_of(cfg.attack.name)
    if asks_for(cfg.defense, 'head') and target.heads and endpoint == 'representation':
        given['head'] = _once(f'head {target.address}', lambda: _head(target))
    if asks_for(cfg.defense, 'shadow'):
        given['shadow'] = train_shadow(cfg, target, workdir, mesh)
    return defenses.make(cfg.defense, **given)


def asks_for(defense: str, parameter: str) -> bool:
    """Whether a part of the chain has this parameter."""
    known = [defenses.DEFENSES[name] for name in defenses.names_of(defense)]
    return any(parameter in inspect.signature(factory).parameters for factory in known)


def train_shadow(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh
) -> Shadow:
    """A surrogate that the owner makes of its own victim, to know what an attacker would learn.

    Direct extraction under MSE, of the first of the images that the victim was pretrained on.
    """
    images = selection.load_victim_images(cfg).inputs[:SHADOW_IMAGES]
    spec = {
        'stage': 'shadow',
        'victim': target.address,
        'inputs': {**selection.describe_victim_images(cfg), 'first': len(images)},
        'epochs': SHADOW_EPOCHS,
    }

    folder = workdir / 'shadow' / stage.address(spec)

    def train() -> Shadow:
        encoder = stage.make_encoder(target.encoder)
        if (folder / 'meta.json').exists():
            found = stage.finished('shadow', stage.address(spec), folder, mesh)
            return Shadow(encoder.apply, found.variables)
        known = features.extract(encoder.apply, target.variables, images, mesh=mesh)
        student = attacks.make_student(encoder, known.shape[1])
        plain = stage.make_augmentation('none')
        recipe = imitate(student, attacks.PLANS.make('once'), losses.make('mse'), plain)
        batch_size = max(1, min(SHADOW_BATCH, len(images)) // mesh.size) * mesh.size
        trained = stage.train(
            'shadow',
            spec,
            workdir,
            mesh,
            recipe,
            {
                'inputs': images,
                'answers': known[:, None],
                'answered': np.ones((len(images), 1), bool),
                'view_seeds': np.zeros((len(images), 1), np.uint32),
            },
            encoder=target.encoder,
            num_steps=SHADOW_EPOCHS * (len(images) // batch_size),
            batch_size=batch_size,
            seed=cfg.victim.seed,
            fields=ml_collections.ConfigDict(
                {'learning_rate': 1e-3, 'optimizer': 'adam', 'schedule': 'cosine'}
            ),
            every=cfg.training,
            label='of the owner',
        )
        return Shadow(encoder.apply, trained.variables)

    return _once(f'shadow {stage.address(spec)}', train)


def look_for_mark(
    cfg: ml_collections.ConfigDict,
    target: Trained,
    suspect: Trained,
    workdir: epath.Path,
    mesh: jax.sharding.Mesh,
) -> list[dict[str, Any]]:
    """What `dynamarks.verify` finds in a surrogate of a marked classifier, as rows; found once.

    The metrics `mark` (its statistic) and `mark_p_value`, on the first task's test images; no rows
    where the defense makes no mark.
    """
    calls = {call[0]: call[1:] for call in map(parse_call, split_chain(cfg.defense, 'defense'))}
    if 'dynamarks' not in calls:
        return []
    args, kwargs = calls['dynamarks']
    key = (
        inspect.signature(dynamarks.dynamarks).bind_partial(*args, **kwargs).arguments.get('key', 0)
    )
    task = selection.load_tasks(cfg)[0]
    spec = {
        'stage': 'mark',
        'suspect': suspect.address,
        'victim': target.address,
        'endpoint': endpoint_spec(cfg, target),
        'test': data.digest(task.test),
        'key': key,
    }
    path = workdir / 'mark' / stage.address(spec) / 'rows.json'
    if path.exists():
        return files.read_json(path)
    images = task.test.inputs
    classifier = fit_classifier(cfg, target, workdir, mesh)
    variables = {'encoder': target.variables, endpoints.CLASSIFIER: classifier}
    answer = endpoints.make('posteriors', target.encoder, target.heads)
    theirs = features.extract(*stage.outputs(suspect), images, mesh=mesh)
    found = dynamarks.verify(
        scipy.special.softmax(theirs, axis=1),
        features.extract(answer, variables, images, mesh=mesh),
        np.asarray(images, np.float32) / 255,
        key=key,
    )
    common = {'task': task.name, 'n': len(images)}
    rows = [
        common | {'metric': 'mark', 'value': found.statistic},
        common | {'metric': 'mark_p_value', 'value': float(found.p_value)},
    ]
    stage.describe(path.parent, spec)
    files.write_json(path, rows)
    return rows


def example_given(
    defense: str,
    endpoint: str,
    encoder: str,
    heads: tuple[tuple[str, str], ...],
    variables: dict[str, Any],
) -> dict[str, Any]:
    """Untrained stand-ins for what `make_defense` gives, to find out shapes."""
    given = {}
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
    if asks_for(defense, 'head') and heads and endpoint == 'representation':
        name, spec = heads[0]
        network = stage.make_head(spec)
        given['head'] = lambda representations: network.apply(variables[name], representations)
    if asks_for(defense, 'shadow'):
        given['shadow'] = Shadow(stage.make_encoder(encoder).apply, variables['encoder'])
    return given


def _head(target: Trained):
    name, spec = target.heads[0]
    network, variables = stage.make_head(spec), target.head_variables[name]
    variables = jax.tree.map(np.asarray, variables)
    return lambda representations: network.apply(variables, representations)


def _once(address: str, make) -> Any:
    if address not in _made:
        _made[address] = make()
    return _made[address]
