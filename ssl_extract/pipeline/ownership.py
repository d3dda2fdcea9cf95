"""The ownership stage: the search for a mark in a suspect."""

from typing import Any

import jax
import numpy as np
import scipy.special
from etils import epath

from ssl_extract import data, defenses
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
    """Tests a surrogate of a marked classifier for the mark, once.

    The metrics are `mark`, the test's statistic, and `mark_p_value`, both on the owner's test
    inputs. There are no rows where the defense makes no mark.

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
    _, verify_mark = mark
    spec = mark_spec(victims_owner, suspect.record.address, service_spec)

    def verify(folder: epath.Path) -> list[dict[str, Any]]:
        del folder
        inputs, decode, mesh = task.test.inputs, data.decoder(task.test), workspace.mesh
        classifier = owner.fit_classifier(workspace, victims_owner)
        marked = endpoints.at(victims_owner.victim, 'posteriors', classifier=classifier)
        logits = features.extract(
            *suspect.encoder.through_heads(), inputs, decode=decode, mesh=mesh
        )
        answer, (variables,) = marked.answer.func, marked.answer.args
        statistic, p_value = verify_mark(
            scipy.special.softmax(logits, axis=1),
            features.extract(answer, variables, inputs, decode=decode, mesh=mesh),
            np.asarray(jax.jit(decode)(inputs)),
        )
        common = {'task': task.name, 'n': len(inputs)}
        return [
            common | {'metric': 'mark', 'value': float(statistic)},
            common | {'metric': 'mark_p_value', 'value': float(p_value)},
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
    part, _ = defenses.mark_of(service_spec['defense'])
    return {
        'stage': 'mark',
        'suspect': suspect,
        **service_spec,
        'task': task['name'],
        'test': task['test'],
        'mark': part,
    }
