"""Checkpoints of training states and finished encoders, by Orbax.

Orbax does not notice every damage, so that a hash of the arrays is stored beside them.

Of several processes the first one writes, and every one reads for itself: each calls Orbax as if it
were alone. Orbax would let all of them write a share of each array.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.runtime import files, hosts, parallel


def _is_told(record: logging.LogRecord) -> bool:
    """Passes what asyncio logs, but for the tasks that Orbax leaves where it cannot read a file.

    The first task's error is raised, and `_readable` tells it in one line.
    """
    message = record.getMessage()
    return 'never retrieved' not in message or 'tensorstore' not in message


logging.getLogger('asyncio').addFilter(_is_told)


def manager(folder: epath.PathLike) -> ocp.CheckpointManager:
    """Opens the checkpoints of a training run; the manager keeps the newest one only."""
    folder = _absolute(folder)
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
    hosts.wait()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1,
        create=False,
        read_only=not hosts.is_first(),
        multiprocessing_options=_alone(),
    )
    return ocp.CheckpointManager(folder, options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Starts to save `state` and `meta`; the caller may donate the state after the call."""
    if not hosts.is_first():
        return
    state = _everywhere(state)
    sealed = meta | {files.CHECKSUM: _seal(state, meta)}
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(sealed))
    with files.named(manager.directory):
        manager.save(step, args=args)


@contextlib.contextmanager
def closing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Waits in the end for the last checkpoint; an error of the system names a path."""
    try:
        yield
    finally:
        with files.named(manager.directory):
            manager.close()


def restore(
    manager: ocp.CheckpointManager, template: Any, mesh: jax.sharding.Mesh
) -> tuple[Any, dict[str, Any]] | None:
    """Reads the newest (state, meta) onto the mesh, or returns None before the first checkpoint.

    Args:
        manager: of the run's checkpoints.
        template: a pytree of arrays with the shapes of the state.
        mesh: the mesh that the state is put on, whole on every device.

    Raises:
        DamagedError: the checkpoint is damaged, or another run of other shapes wrote it.
    """
    step = hosts.agreed(manager.latest_step)
    if step is None:
        return None
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(_abstract(template, mesh)), meta=ocp.args.JsonRestore()
    )
    with _readable(epath.Path(manager.directory) / str(step)):
        restored = manager.restore(step, args=args)
        state, meta = restored.state, dict(restored.meta)
        if meta.pop(files.CHECKSUM, None) != _seal(state, meta):
            raise ValueError('its content is not what was written')
    return parallel.replicate(state, mesh), meta


def save_encoder(
    folder: epath.PathLike, variables: Any, meta: dict[str, Any], heads: Any = None
) -> None:
    """Writes an encoder's variables, and `meta` (at least `encoder` and `input_shape`) last.

    A folder without `meta.json` holds no encoder: a run that was killed before the last write
    writes the encoder again.

    Args:
        folder: created where it does not exist.
        variables: `{'params', 'batch_stats'}` of the encoder.
        meta: a description of the encoder, as JSON.
        heads: variables of the networks behind the encoder, by name; `meta['heads']` holds their
            specs.
    """
    if not hosts.is_first():
        return
    folder, variables, heads = _absolute(folder), _everywhere(variables), _everywhere(heads)
    with files.named(folder), _checkpointer() as checkpointer:
        checkpointer.save(folder / 'variables', variables, force=True)
        if heads:
            checkpointer.save(folder / 'heads', heads, force=True)
    contents = {'variables': variables} | ({'heads': heads} if heads else {})
    hashes = {part: _hash(tree) for part, tree in contents.items()}
    files.write_json(folder / 'meta.json', meta | {'contents': hashes})


def read_meta(folder: epath.PathLike) -> dict[str, Any]:
    """Returns the `meta` of a saved encoder.

    Raises:
        UserError: there is no encoder in the folder, or the file is damaged.
    """
    path = _absolute(folder) / 'meta.json'
    if not path.exists():
        raise UserError(
            f'no encoder in {folder}: give a folder that holds meta.json and variables/'
        )
    meta = files.read_json(path)
    missing = {'encoder', 'input_shape'} - set(meta)
    if missing:
        raise UserError(
            f'{path} lacks {", ".join(sorted(missing))}: it does not describe an encoder'
        )
    return meta


def load_encoder(
    folder: epath.PathLike, template: Any, mesh: jax.sharding.Mesh, part: str = 'variables'
) -> Any:
    """Reads the variables that `save_encoder` wrote, onto the mesh.

    Args:
        folder: the folder of the encoder.
        template: a pytree of arrays or ShapeDtypeStructs with the expected shapes.
        mesh: the mesh that the variables are put on, whole on every device.
        part: 'variables' for those of the encoder, or 'heads'.

    Raises:
        DamagedError: the files are missing, damaged, or of an encoder of another shape.
    """
    path, hashes = _absolute(folder) / part, read_meta(folder).get('contents', {})
    with _readable(path):
        with _checkpointer() as checkpointer:
            tree = checkpointer.restore(path, _abstract(template, mesh))
        if part in hashes and hashes[part] != _hash(tree):
            raise ValueError('its content is not what was written')
    return parallel.replicate(tree, mesh)


class _readable:  # noqa: N801  (a context manager)
    """A context that turns an error of Orbax, of many types, into one line with the folder."""

    def __init__(self, path: epath.Path):
        self.path = path

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception):
            logging.getLogger(__name__).debug('orbax: %s', error)
            reason = ' '.join(str(error).split())[:160]
            raise files.DamagedError(
                f'checkpoint {self.path} cannot be read (damaged, or of another encoder; '
                f'{type(error).__name__}: {reason})'
            ) from error


class _LiteralPath(type(epath.Path())):
    """A path below which Orbax may look for files, whatever characters its own name has."""

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        return iter(files.find(os.fspath(self), pattern))


def _absolute(folder: epath.PathLike) -> epath.Path:
    path = files.absolute(folder)
    return _LiteralPath(path) if files.is_local(path) else path


def _seal(state: Any, meta: dict[str, Any]) -> str:
    """Returns the hash of a training state with its description."""
    return files.checksum([_hash(state), meta])


def _hash(tree: Any) -> str:
    """Returns the hash of a tree of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        name = f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape} '
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns the options of a process that calls Orbax without the others."""
    if hosts.number() == 1:
        return ocp.options.MultiprocessingOptions()
    whole = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)  # no share for each process
    ocp.type_handlers.register_type_handler(jax.Array, whole, override=True)
    return ocp.options.MultiprocessingOptions(
        primary_host=hosts.index(),
        active_processes={hosts.index()},
        barrier_sync_key_prefix=f'process{hosts.index()}',
    )


def _checkpointer() -> ocp.StandardCheckpointer:
    return ocp.StandardCheckpointer(multiprocessing_options=_alone())


def _everywhere(tree: Any) -> Any:
    """Returns arrays on all devices of all processes, as Orbax takes them from one of several."""
    return tree if hosts.number() == 1 else parallel.replicate(tree, parallel.data_mesh())


def _abstract(template: Any, mesh: jax.sharding.Mesh) -> Any:
    """Describes the arrays to read, onto the mesh; onto a device of this process, if alone."""
    sharding = parallel.replicated(mesh if hosts.number() == 1 else parallel.data_mesh(1))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), template
    )
