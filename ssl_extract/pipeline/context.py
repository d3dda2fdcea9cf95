"""The `Run` and `Workspace` types."""

import contextlib
import importlib
import os
from typing import Any, NamedTuple

import jax
import ml_collections
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.pipeline.modules import NO_MODULES, OwnModules
from ssl_extract.runtime import files


class Workspace(NamedTuple):
    """The folder of the results and the devices of the computation.

    Attributes:
        folder: the workdir.
        mesh: the devices.
        modules: the user's modules; a result depends on their source.
        checkpoint_every: steps between two checkpoints of a training.
        log_every: steps between two rows of the metrics.
        steps_per_dispatch: the most steps of a training that are one program.
        replicas: the most trainings, of several runs, that are one program.
        log_to: a chain of loggers, which get the metrics while a training runs.
    """

    folder: epath.Path
    mesh: jax.sharding.Mesh
    modules: OwnModules = NO_MODULES
    checkpoint_every: int = 500
    log_every: int = 25
    steps_per_dispatch: int = 1
    replicas: int = 1
    log_to: str = ''

    def rhythm(self) -> dict[str, Any]:
        """Returns how often a training is sent to the devices, saves and reports: see `fit`."""
        return {
            'checkpoint_every': self.checkpoint_every,
            'log_every': self.log_every,
            'steps_per_dispatch': self.steps_per_dispatch,
            'log_to': self.log_to,
        }


class Run(NamedTuple):
    """One run of an experiment.

    Attributes:
        config: the resolved fields of the run; only this package reads them.
        workspace: where the run's results are kept.
    """

    config: ml_collections.ConfigDict
    workspace: Workspace


def make_run(
    config: ml_collections.ConfigDict,
    folder: epath.PathLike,
    mesh: jax.sharding.Mesh,
    modules: OwnModules = NO_MODULES,
) -> Run:
    """Makes a run of a resolved config.

    Args:
        config: the resolved config; the workspace takes the fields of `training`.
        folder: the workdir.
        mesh: the devices.
        modules: the user's modules.
    """
    return Run(config, Workspace(files.absolute(folder), mesh, modules, **config.training))


def check_workdir(folder: epath.PathLike) -> None:
    """Checks that a workdir is a folder that can be written, or can be made; makes nothing.

    Args:
        folder: the workdir.

    Raises:
        UserError: the workdir is a file, lies below a file, or must not be written; a bucket is of
            a kind that takes no checkpoints, or its library is not installed.
    """
    scheme = os.fspath(folder).partition('://')[0]
    if not files.is_local(folder) and scheme != 'gs':
        raise UserError(
            f'workdir={folder}: checkpoints cannot be written to {scheme}://; write a folder, or '
            'gs://...'
        )
    try:
        path = epath.Path(folder).expanduser()
        if not files.is_local(path):
            importlib.import_module('google.cloud.storage')  # Orbax asks it for the bucket
        path.exists()
    except ImportError as error:
        raise UserError(
            f"workdir={folder}: {error}; run `pip install 'ssl_extract[gcs]'`, or write a folder"
        ) from error
    if not files.is_local(path):
        return
    if os.fspath(path).startswith('~'):
        raise UserError(f'workdir={folder}: there is no home folder {path.parts[0]}')
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(path)  # raises for a name that is too long and for a folder that must not be read
    path = path.absolute()
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    if not nearest.is_dir():
        raise UserError(f'workdir={folder}: {nearest} is a file; write a folder')
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        raise UserError(
            f'workdir={folder}: {nearest} must not be written; write another folder, or change its '
            'rights'
        )
