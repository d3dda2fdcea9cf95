"""Trainings of several runs together: the victims, then the surrogates.

Where runs differ in seeds, learning rates or victims alone, their trainings have the same shapes.
`ahead` trains such stages together, up to `training.replicas` at a time, and leaves each in its own
folder. The runs then find their stages trained. What fits into no group is trained by its run.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from etils import epath

from ssl_extract import training
from ssl_extract.data import Records
from ssl_extract.errors import UserError
from ssl_extract.pipeline import owner, stage, surrogate, victim
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.runtime import hosts

Fit = functools.partial[stage.Trained]  # `stage.fit_encoder` with all but the folder


class _Stage(NamedTuple):
    """A stage that is still to train.

    Attributes:
        kind: 'victim' or 'surrogate'.
        spec: everything that the stage depends on.
        ready: `(folder) -> Fit`, called under the stage's lock.
        alike: equal for stages that may be trained together.
    """

    kind: str
    spec: dict[str, Any]
    ready: Callable[[epath.Path], Fit]
    alike: Any


def check(replicas: int, num_devices: int) -> None:
    """Checks that the devices can share out `training.replicas`.

    Raises:
        UserError: they cannot.
    """
    if replicas > 1 and replicas % num_devices:
        raise UserError(
            f'training.replicas={replicas} cannot be shared out over {num_devices} devices: write '
            f'a multiple of {num_devices}, or 1'
        )


def ahead(runs: list[Run]) -> None:
    """Trains stages of runs together, where several of them are alike.

    Args:
        runs: that are not finished, and were checked; there may be none.
    """
    if not runs:
        return
    workspace, replicas = runs[0].workspace, runs[0].workspace.replicas
    for stages in (_victims, _surrogates):
        groups: dict[Any, dict[str, _Stage]] = {}
        for found in stages(runs):
            where = stage.address(workspace, found.spec)
            path = workspace.folder / found.kind / where / 'meta.json'
            if not hosts.agreed(path.exists):
                groups.setdefault(found.alike, {})[where] = found
        for group in groups.values():
            waiting = sorted(group.items())  # of two processes, neither waits for the other
            for first in range(0, len(waiting), replicas):
                _train(workspace, dict(waiting[first : first + replicas]))


def _victims(runs: list[Run]) -> Iterable[_Stage]:
    for run in runs:
        if run.config.victim.source == 'pretrain':
            sets = load_sets(run)
            fit = victim.pretraining_of(run, sets)
            alike = _alike(fit, len(sets.victim.inputs))
            yield _Stage('victim', victim.spec_of(run, sets), lambda _, fit=fit: fit, alike)


def _surrogates(runs: list[Run]) -> Iterable[_Stage]:
    for run in runs:
        sets = load_sets(run)
        sketch = victim.sketch_of(run, sets)
        plan = surrogate.make_plan(run.config.attack.plan, run.config.attack.query_augmentation)
        if not plan.stored:
            continue
        try:
            model, _ = victim.victim_of(run, sets)
            whose = owner.owner_of(run, sets, model)
        except FloatingPointError:
            continue  # the run comes to the same, and says why; runs before it are finished first
        extraction = surrogate.extraction_of(run, sets, sketch, whose)
        how = extraction.how._replace(learning_rate=0.0)
        shape = sets.pool.inputs.shape, extraction.attacker.num_inputs, extraction.epochs
        alike = extraction.attack.recipe, how, shape, extraction.recover, extraction.init
        ready = functools.partial(surrogate.ready, run.workspace, extraction)
        yield _Stage('surrogate', extraction.spec, ready, alike)


def _alike(fit: Fit, *more: Any) -> Any:
    given = fit.keywords
    how = given['how']._replace(learning_rate=0.0)
    return given['recipe'], given['decode'], how, given['num_steps'], *more


def _train(workspace: Workspace, group: dict[str, _Stage]) -> None:
    """Trains what is alike among stages, under the locks of all of them."""
    with contextlib.ExitStack() as stack:
        fits: dict[Any, list[tuple[epath.Path, Fit]]] = {}
        for where, found in group.items():
            folder = workspace.folder / found.kind / where
            stack.enter_context(stage.lock(workspace, found.kind, where))
            if not hosts.agreed((folder / 'meta.json').exists):  # by another process meanwhile
                stage.describe(folder, found.spec)
                try:
                    fit = found.ready(folder)
                except FloatingPointError:
                    continue  # as above, of a training before the stage's
                if any(isinstance(v, Records) for v in fit.keywords['arrays'].values()):
                    continue  # of which each training reads batches of its own
                shapes = {k: (v.shape, str(v.dtype)) for k, v in fit.keywords['arrays'].items()}
                fits.setdefault(_alike(fit, repr(shapes)), []).append((folder, fit))
        for alike in fits.values():
            size = len(alike) - len(alike) % workspace.mesh.size
            if size > 1:
                _fit(workspace, alike[:size])


def _fit(workspace: Workspace, fits: list[tuple[epath.Path, Fit]]) -> None:
    given = fits[0][1].keywords
    training.fit_together(
        given['recipe'],
        [_replica(folder, fit.keywords) for folder, fit in fits],
        num_steps=given['num_steps'],
        batch_size=given['how'].batch_size,
        optimizer=given['how'].optimizer,
        schedule=given['how'].schedule,
        mesh=workspace.mesh,
        decode=given['decode'],
        **workspace.rhythm(),
        description=given['role'],
    )


def _replica(folder: epath.Path, given: dict[str, Any]) -> training.Replica:
    return training.Replica(
        given['arrays'],
        stage.seed_of(given['role'], given['seed']),
        given['how'].learning_rate,
        folder,
        given.get('frozen'),
        given.get('initial'),
    )
