"""The `Run` and `Workspace` types."""

from typing import NamedTuple

import jax
import ml_collections
from etils import epath

from ssl_extract.pipeline.modules import NO_MODULES, OwnModules


class Workspace(NamedTuple):
    """Where results are kept and on what they are computed.

    Attributes:
        folder: the workdir.
        mesh: the devices.
        modules: the user's own modules, whose source is part of what a result depends on.
        checkpoint_every: steps between two checkpoints of a training.
        log_every: steps between two looks at the metrics.
    """

    folder: epath.Path
    mesh: jax.sharding.Mesh
    modules: OwnModules = NO_MODULES
    checkpoint_every: int = 500
    log_every: int = 25


class Run(NamedTuple):
    """One run of an experiment.

    Attributes:
        config: its fields, resolved; only the stages of this package read them.
        workspace: where its results are kept.
    """

    config: ml_collections.ConfigDict
    workspace: Workspace


def make_run(
    config: ml_collections.ConfigDict,
    folder: epath.PathLike,
    mesh: jax.sharding.Mesh,
    modules: OwnModules = NO_MODULES,
) -> Run:
    """A run of a resolved config; of its fields the workspace takes those of `training`."""
    every = config.training
    path = epath.Path(folder).expanduser().absolute()
    workspace = Workspace(path, mesh, modules, every.checkpoint_every, every.log_every)
    return Run(config, workspace)
