"""The victim's owner: the service and its preparation.

A service is an endpoint of the victim behind a defense. The owner fits the classifier of endpoints
that answer with classes. The owner makes the parts that some defenses need: a projection head, and
a shadow, which is a surrogate of the owner's victim. No query is sent: the owner has the victim.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import attacks, augment, data, defenses, losses, ownership
from ssl_extract.attacks.direct import imitate
from ssl_extract.defenses import Defense
from ssl_extract.defenses.poisoning import Shadow
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.evaluation import PROBES, Task, features
from ssl_extract.oracle import Oracle, make_oracle
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.stage import Optimization
from ssl_extract.pipeline.victim import Sketch, abstract_variables, example_victim
from ssl_extract.victims import endpoints
from ssl_extract.victims.classifier import variables_of
from ssl_extract.victims.model import Victim

SHADOW_INPUTS, SHADOW_BATCH = 2_000, 64
_made: dict[str, Any] = {}  # by address, so that one defense is made, and compiled, once


class Owner(NamedTuple):
    """The owner of a victim: the victim, its data and its task.

    Attributes:
        victim: the victim itself.
        inputs: the inputs of the shadow, which are the first of the victim's pretraining.
        inputs_spec: the description of the inputs.
        task: the labeled set that the classifier is fitted on.
        task_spec: the description of the task.
        probe: the spec of the probe that fits the classifier.
        seed: the seed of the shadow.
    """

    victim: Victim
    inputs: data.Dataset
    inputs_spec: dict[str, Any]
    task: Task
    task_spec: dict[str, Any]
    probe: str
    seed: int


class Service(NamedTuple):
    """An endpoint of the victim behind a defense.

    Attributes:
        victim: the victim at the endpoint.
        defense: the change of the answers.
        spec: everything that the answers depend on, for the addresses of stages.
    """

    victim: Victim
    defense: Defense
    spec: dict[str, Any]

    def oracle(self, budget: int) -> Oracle:
        """Returns black-box access for one account with a budget."""
        return make_oracle(self.victim, self.defense, budget=budget)


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
        c.victim.seed,
    )


def service_spec(workspace: Workspace, owner: Owner, endpoint: str, defense: str) -> dict[str, Any]:
    """Returns what the answers of a service depend on; computes nothing.

    Args:
        workspace: where results are kept.
        owner: the victim's owner.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
    """
    spec: dict[str, Any] = {'victim': owner.victim.address, 'endpoint': endpoint}
    spec['defense'] = defense
    if _fits_classifier(owner, endpoint):
        spec['classifier'] = stage.address(workspace, classifier_spec(owner))
    if 'shadow' in defenses.needs(defense):
        epochs = defenses.shadow_epochs(defense)
        spec['shadow'] = stage.address(workspace, shadow_spec(workspace, owner, epochs))
    return spec


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
    return {
        'stage': 'shadow',
        'victim': owner.victim.address,
        'inputs': owner.inputs_spec,
        'epochs': epochs,
        'batch_size': _shadow_batch_size(workspace, owner),
        'seed': owner.seed,
    }


def serve(workspace: Workspace, owner: Owner, endpoint: str, defense: str) -> Service:
    """Sets a service up: fits and trains the parts that it needs, once.

    Args:
        workspace: where results are kept.
        owner: the victim's owner.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
    """
    victim, parts = owner.victim, {}
    classifier, needs = None, defenses.needs(defense)
    if _fits_classifier(owner, endpoint):
        classifier = fit_classifier(workspace, owner)
    encoder = victim.encoder
    if (
        'head' in needs
        and encoder
        and encoder.heads
        and endpoints.gives(endpoint) == 'representations'
    ):
        parts['head'] = _once(f'head {victim.address}', lambda: endpoints.head_of(victim))
    if 'shadow' in needs:
        epochs = defenses.shadow_epochs(defense)
        shadow = train_shadow(workspace, owner, epochs)
        address = stage.address(workspace, shadow_spec(workspace, owner, epochs))
        parts['shadow'] = _once(f'{workspace.folder} {address}', lambda: shadow)
    return Service(
        endpoints.at(victim, endpoint, classifier=classifier),
        defenses.make(defense, **parts),
        service_spec(workspace, owner, endpoint, defense),
    )


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

    The shadow is a direct extraction under MSE on the first inputs of the victim's pretraining.

    Args:
        workspace: where results are kept.
        owner: the victim's owner.
        epochs: of the training; 0 leaves the surrogate untrained.
    """
    encoder, inputs, mesh = owner.victim.encoder, owner.inputs.inputs, workspace.mesh

    def train(folder: epath.Path) -> stage.Trained:
        network, decode = encoder.network, data.decoder(owner.inputs)
        representations = features.extract(
            network.apply, encoder.variables, inputs, decode=decode, mesh=mesh
        )
        student = attacks.make_student(network, representations.shape[1])
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
            encoder=encoder.spec,
            seed=owner.seed,
            num_steps=epochs * (len(inputs) // batch_size),
            how=Optimization('adam', 'cosine', 1e-3, batch_size),
            decode=decode,
            label='of the owner',
        )

    form = stage.encoder_form(workspace, 'shadow')
    spec = shadow_spec(workspace, owner, epochs)
    shadow, _ = stage.cached(workspace, 'shadow', spec, train, form)
    return Shadow(shadow.network.apply, shadow.variables)


def check_service(sketch: Sketch, endpoint: str, defense: str) -> None:
    """Checks that a victim of this kind can be set up as a service.

    Args:
        sketch: the victim.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.

    Raises:
        UserError: the defense does not fit the endpoint, or the victim lacks what either needs.
    """
    defenses.check_endpoint(defense, endpoint)
    mark = defenses.mark_of(defense)
    if mark is not None:
        ownership.TESTS.traits(mark)  # that there is such a test
    if sketch.encoder:
        return
    if sketch.answers != endpoint:
        raise UserError(
            f'victim.source: this victim answers with a {sketch.answers} and the attack asks for '
            f'a {endpoint}; take another attack'
        )
    if 'shadow' in defenses.needs(defense):
        raise UserError(
            f'defense={defense!r} needs a surrogate of the victim, which its owner can train of '
            'an encoder of this package only; write another defense'
        )
    if mark is not None:
        raise UserError(
            f'defense={defense!r} leaves a mark, which its owner can look for beside an encoder of '
            'this package only; write another defense'
        )


def example_oracle(sketch: Sketch, endpoint: str, defense: str, num_classes: int) -> Oracle:
    """Makes an oracle of a victim without values, for `jax.eval_shape` only.

    Args:
        sketch: the victim.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
        num_classes: classes of the owner's task.
    """
    classifier = endpoints.example_classifier(sketch.dim, num_classes)
    at_endpoint = endpoints.at(example_victim(sketch), endpoint, classifier=classifier)
    return make_oracle(at_endpoint, example_defense(sketch, endpoint, defense), budget=1)


def example_defense(sketch: Sketch, endpoint: str, defense: str) -> Defense:
    """Makes a defense whose head and shadow, where it needs them, are of zeros.

    Args:
        sketch: the victim.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
    """
    needs, parts = defenses.needs(defense), {}
    if 'head' in needs and sketch.heads and endpoints.gives(endpoint) == 'representations':
        name, spec = sketch.heads[0]
        zeros = _zeros(example_victim(sketch).encoder.head_variables[name])
        parts['head'] = lambda outputs: trained.make_head(spec).apply(zeros, outputs)
    if 'shadow' in needs:
        variables = _zeros(abstract_variables(sketch.encoder, sketch.input_shape))
        parts['shadow'] = Shadow(trained.make(sketch.encoder).apply, variables)
    return defenses.make(defense, **parts)


@functools.cache
def answer_dim(sketch: Sketch, endpoint: str, defense: str, num_classes: int) -> int:
    """Returns the width of a service's answers, after endpoint and defense.

    Args:
        sketch: the victim.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
        num_classes: classes of the owner's task.
    """
    oracle = example_oracle(sketch, endpoint, defense, num_classes)
    inputs = jax.ShapeDtypeStruct((1, *sketch.input_shape), jnp.float32)

    def answer(oracle: Oracle, inputs: jax.Array) -> jax.Array:
        return oracle.query(inputs, oracle.init(jax.random.key(0), inputs))[0].representations

    return jax.eval_shape(answer, oracle, inputs).shape[-1]


def forget() -> None:
    """Forgets the widths of answers: a part may be registered anew under its name."""
    answer_dim.cache_clear()


def _fits_classifier(owner: Owner, endpoint: str) -> bool:
    """Returns whether the owner fits the endpoint's classifier, which needs an encoder."""
    return 'classifier' in endpoints.needs(endpoint) and owner.victim.encoder is not None


def _shadow_batch_size(workspace: Workspace, owner: Owner) -> int:
    devices = workspace.mesh.size
    return max(1, min(SHADOW_BATCH, len(owner.inputs.inputs)) // devices) * devices


def _zeros(variables: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)


def _once(address: str, make: Any) -> Any:
    if address not in _made:
        _made[address] = make()
    return _made[address]
