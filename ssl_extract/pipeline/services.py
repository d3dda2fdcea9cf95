"""Services: an endpoint of the victim behind a defense.

The owner sets a service up, and prepares what its parts need.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import defenses, encoders, ownership
from ssl_extract.defenses import Defense
from ssl_extract.defenses.poisoning import Shadow
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.oracle import Oracle, make_oracle
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Workspace
from ssl_extract.pipeline.owner import (
    Owner,
    classifier_spec,
    fit_classifier,
    shadow_spec,
    train_shadow,
)
from ssl_extract.pipeline.victim import Sketch, abstract_variables, example_victim
from ssl_extract.victims import endpoints
from ssl_extract.victims.model import Victim

_made: dict[str, Any] = {}  # by address, so that one defense is made, and compiled, once


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
    if 'shadow' in defenses.needs(defense) and not sketch.shadow:
        raise UserError(
            f'defense={defense!r} needs a surrogate that the owner trains on the answers of the '
            'victim, and this victim is a service or a table: write another defense'
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
        parts['shadow'] = _example_shadow(sketch)
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


def _example_shadow(sketch: Sketch) -> Shadow:
    """Makes a shadow of zeros, as wide as the victim's answers."""
    spec = sketch.encoder or sketch.shadow
    if encoders.dim(trained.make(spec), sketch.input_shape) == sketch.dim:
        zeros = _zeros(abstract_variables(spec, sketch.input_shape))
        return Shadow(trained.make(spec).apply, zeros)
    heads = (('adapter', f'linear(dim={sketch.dim})'),)
    return Shadow(
        trained.through(spec, heads),
        _zeros(trained.shapes_of(spec, heads, sketch.input_shape)),
    )


def _zeros(variables: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)


def _once(address: str, make: Any) -> Any:
    if address not in _made:
        _made[address] = make()
    return _made[address]
