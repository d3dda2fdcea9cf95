"""The `Run` and `Workspace` types."""

from typing import NamedTuple

import jax
import ml_collections
from etils import epath

from ssl_extract.pipeline.modules import NO_MODULES, OwnModules


class Workspace(NamedTuple):
    """The folder of the results and the devices of the computation.

    Attributes:
        folder: the workdir.
        mesh: the devices.
        modules: the user's modules; a result depends on their source.
        checkpoint_every: steps between two checkpoints of a training.
        log_every: steps between two rows of the metrics.
        log_to: a chain of loggers, which get the metrics while a training runs.
    """

    folder: epath.Path
    mesh: jax.sharding.Mesh
    modules: OwnModules = NO_MODULES
    checkpoint_every: int = 500
    log_every: int = 25
    log_to: str = ''


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
    path = epath.Path(folder).expanduser().absolute()
    return Run(config, Workspace(path, mesh, modules, **config.training))
