"""The victim's owner, who prepares what services need.

The owner fits the classifier of endpoints that answer with classes, and trains the shadow that some
defenses need: a surrogate of the owner's victim. No query is sent: the owner has the victim.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ssl_extract import attacks, augment, data, losses
from ssl_extract.attacks.direct import imitate
from ssl_extract.defenses.poisoning import Shadow
from ssl_extract.encoders import trained
from ssl_extract.evaluation import PROBES, Task, features
from ssl_extract.oracle.remote import answers_of
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.stage import Optimization
from ssl_extract.victims.classifier import variables_of
from ssl_extract.victims.model import Victim

SHADOW_INPUTS, SHADOW_BATCH = 2_000, 64


class Owner(NamedTuple):
    """The owner of a victim: the victim, its data and its task.

    Attributes:
        victim: the victim itself.
        inputs: the inputs of the shadow, which are the first of the victim's pretraining.
        inputs_spec: the description of the inputs.
        task: the labeled set that the classifier is fitted on.
        task_spec: the description of the task.
        probe: the spec of the probe that fits the classifier.
        encoder: the spec of the shadow's network: the victim's own, or `victim.encoder` where the
            victim has no network of this package.
        seed: the seed of the shadow.
    """

    victim: Victim
    inputs: data.Dataset
    inputs_spec: dict[str, Any]
    task: Task
    task_spec: dict[str, Any]
    probe: str
    encoder: str
    seed: int


def owner_of(run: Run, sets: Sets, victim: Victim) -> Owner:
    """Returns the owner of a run's victim.

    Args:
        run: the run.
        sets: the run's data.
        victim: the victim.
    """
    c = run.config
    first = sets.victim._replace(inputs=sets.victim.inputs[:SHADOW_INPUTS], labels=None)
    spec = {**sets.victim_spec, 'first': len(first.inputs)}
    return Owner(
        victim,
        first,
        spec,
        sets.tasks[0],
        sets.tasks_spec[0],
        c.evaluation.probe,
        victim.encoder.spec if victim.encoder else c.victim.encoder,
        c.victim.seed,
    )


def classifier_spec(owner: Owner) -> dict[str, Any]:
    """Returns what the owner's classifier depends on."""
    return {
        'stage': 'classifier',
        'victim': owner.victim.address,
        'task': owner.task_spec['train'],
        'probe': owner.probe,
    }


def shadow_spec(workspace: Workspace, owner: Owner, epochs: int) -> dict[str, Any]:
    """Returns what the owner's shadow depends on.

    Args:
        workspace: where results are kept.
        owner: the victim's owner.
        epochs: of the shadow's training.
    """
    spec = {
        'stage': 'shadow',
        'victim': owner.victim.address,
        'inputs': owner.inputs_spec,
        'epochs': epochs,
        'batch_size': _shadow_batch_size(workspace, owner),
        'seed': owner.seed,
    }
    return spec if owner.victim.encoder else spec | {'encoder': owner.encoder}


def fit_classifier(workspace: Workspace, owner: Owner) -> dict[str, np.ndarray]:
    """Fits the victim's classifier of the owner's task, once.

    Args:
        workspace: where results are kept.
        owner: the victim's owner.

    Returns:
        The classifier's variables by name.
    """

    def fit(folder: epath.Path) -> dict[str, np.ndarray]:
        del folder
        task, encoder = owner.task.train, owner.victim.encoder
        representations = features.extract(
            encoder.network.apply,
            encoder.variables,
            task.inputs,
            decode=data.decoder(task),
            mesh=workspace.mesh,
        )
        return variables_of(
            PROBES.make(owner.probe)(representations, task.labels, task.num_classes)
        )

    return stage.cached(workspace, 'classifier', classifier_spec(owner), fit, stage.ARRAYS)


def train_shadow(workspace: Workspace, owner: Owner, epochs: int) -> Shadow:
    """Trains a surrogate of the owner's victim: what an attacker would learn.

    The shadow is a direct extraction under MSE on the first inputs of `victim.split`, which a
    pretrained victim was trained on.

    Args:
        workspace: where results are kept.
        owner: the victim's owner.
        epochs: of the training; 0 leaves the surrogate untrained.
    """
    inputs = owner.inputs.inputs

    def train(folder: epath.Path) -> stage.Trained:
        representations = features.represent(
            owner.victim.applied or functools.partial(answers_of, owner.victim),
            owner.inputs,
            mesh=workspace.mesh,
        )
        student = attacks.make_student(trained.make(owner.encoder), representations.shape[1])
        plain = augment.make('none')
        batch_size = _shadow_batch_size(workspace, owner)
        return stage.fit_encoder(
            workspace,
            folder,
            imitate(student, attacks.PLANS.make('once'), losses.make('mse'), plain),
            {
                'inputs': inputs,
                'answers': representations[:, None],
                'answered': np.ones((len(inputs), 1), bool),
                'view_seeds': np.zeros((len(inputs), 1), np.uint32),
            },
            role='shadow',
            encoder=owner.encoder,
            seed=owner.seed,
            num_steps=epochs * (len(inputs) // batch_size),
            how=Optimization('adam', 'cosine', 1e-3, batch_size),
            decode=data.decoder(owner.inputs),
            label='of the owner',
        )

    form = stage.encoder_form(workspace, 'shadow')
    spec = shadow_spec(workspace, owner, epochs)
    shadow, _ = stage.cached(workspace, 'shadow', spec, train, form)
    if not shadow.heads:
        return Shadow(shadow.network.apply, shadow.variables)
    return Shadow(*shadow.through_heads())


def _shadow_batch_size(workspace: Workspace, owner: Owner) -> int:
    devices = workspace.mesh.size
    return max(1, min(SHADOW_BATCH, len(owner.inputs.inputs)) // devices) * devices
