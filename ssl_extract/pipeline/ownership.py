"""The ownership stage: the search for a mark in a suspect."""

from typing import Any

import jax
import numpy as np
import scipy.special
from etils import epath

from ssl_extract import data, defenses, ownership
from ssl_extract.evaluation import features
from ssl_extract.pipeline import owner, stage
from ssl_extract.pipeline.context import Workspace
from ssl_extract.pipeline.owner import Owner
from ssl_extract.pipeline.stage import Trained
from ssl_extract.victims import endpoints


def look_for_mark(
    workspace: Workspace,
    victims_owner: Owner,
    suspect: Trained,
    service_spec: dict[str, Any],
) -> list[dict[str, Any]]:
    """Tests a surrogate of a victim with marked answers for the mark, once.

    The test is the ownership test of the defense's name. The metrics are `mark`, the test's
    statistic, and `mark_p_value`, both on the owner's test inputs. There are no rows where the
    defense makes no mark. A surrogate of representations is tested without the heads that it was
    trained with; any other surrogate answers through them, as the victim does.

    Args:
        workspace: where results are kept.
        victims_owner: the owner of the marked victim.
        suspect: the surrogate.
        service_spec: the description of the service that the surrogate was stolen from.

    Returns:
        The rows of the test.
    """
    task, mark = victims_owner.task, defenses.mark_of(service_spec['defense'])
    if mark is None:
        return []
    spec = mark_spec(victims_owner, suspect.record.address, service_spec)

    def verify(folder: epath.Path) -> list[dict[str, Any]]:
        del folder
        case = ownership.Case(
            _clean_victim(workspace, victims_owner, service_spec['endpoint']),
            public=np.asarray(jax.jit(data.decoder(task.test))(task.test.inputs)),
        )
        answers = _suspect(workspace, suspect, service_spec['endpoint'])
        evidence = ownership.test(mark, case, answers)
        common = {'task': task.name, 'n': evidence.n}
        return [
            common | {'metric': 'mark', 'value': evidence.statistic},
            common | {'metric': 'mark_p_value', 'value': evidence.p_value},
        ]

    return stage.cached(workspace, 'mark', spec, verify)


def mark_spec(victims_owner: Owner, suspect: str, service_spec: dict[str, Any]) -> dict[str, Any]:
    """Returns what the test for a mark depends on; `suspect` is an address.

    Args:
        victims_owner: the victim's owner.
        suspect: the address of the suspect's stage.
        service_spec: the description of the service.
    """
    task = victims_owner.task_spec
    return {
        'stage': 'mark',
        'suspect': suspect,
        **service_spec,
        'task': task['name'],
        'test': task['test'],
        'mark': defenses.mark_of(service_spec['defense']),
    }


def _clean_victim(workspace: Workspace, victims_owner: Owner, endpoint: str) -> ownership.Represent:
    """Returns the victim's answers without a defense; probabilities where it answers labels."""
    classifier = None
    if 'classifier' in endpoints.needs(endpoint):
        classifier, endpoint = owner.fit_classifier(workspace, victims_owner), 'posteriors'
    clean = endpoints.at(victims_owner.victim, endpoint, classifier=classifier)
    answer, (variables,) = clean.answer.func, clean.answer.args
    return lambda inputs: _extract(workspace, answer, variables, inputs)


def _suspect(workspace: Workspace, suspect: Trained, endpoint: str) -> ownership.Represent:
    """Returns the answers of a surrogate of the same kind as those of the endpoint."""
    encoder = suspect.encoder
    kind = endpoints.gives(endpoint)
    if kind == 'representations':
        return lambda inputs: _extract(workspace, encoder.network.apply, encoder.variables, inputs)
    apply, variables = encoder.through_heads()
    if kind == 'projections':
        return lambda inputs: _extract(workspace, apply, variables, inputs)
    return lambda inputs: scipy.special.softmax(
        _extract(workspace, apply, variables, inputs), axis=1
    )


def _extract(workspace: Workspace, apply: Any, variables: Any, inputs: np.ndarray) -> np.ndarray:
    return features.extract(apply, variables, inputs, decode=_as_it_is, mesh=workspace.mesh)


def _as_it_is(inputs: jax.Array) -> jax.Array:
    return inputs
