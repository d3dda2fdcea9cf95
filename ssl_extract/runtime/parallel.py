"""Compilation and sharding over a one-dimensional `'data'` mesh.

Batches are sharded over the mesh and everything else is replicated. In `AxisType.Auto` the compiled
program has global-batch semantics: contrastive negatives, BatchNorm statistics and the oracle's
count are the same on one device and on many.
"""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.runtime import files


def keep_programs(folder: epath.Path) -> None:
    """Lets JAX keep compiled programs in a folder, for the next process.

    JAX never replaces a program there. Those that a kill or a full disk cut off are removed: JAX
    would warn of each in every process.

    Args:
        folder: of the programs; may not exist.
    """
    for path in files.find(folder, '*-cache'):
        if _is_cut_off(path.read_bytes()):
            path.unlink(missing_ok=True)
    jax.config.update('jax_compilation_cache_dir', str(folder))


def _is_cut_off(program: bytes) -> bool:
    if program and program[0] != 0x78:  # not the first byte of zlib: JAX found another library
        return False
    try:
        return not zlib.decompress(program)
    except zlib.error:
        return True


@functools.cache
def data_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
    """Makes a mesh of `num_devices` (default: all) devices along the axis `'data'`."""
    devices = jax.devices()[:num_devices]
    return jax.make_mesh(
        (len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
    )


def is_emulated(mesh: jax.sharding.Mesh) -> bool:
    """Tells whether the devices of a mesh share the threads of one processor.

    A training loop waits for each step there. Without the wait the process was aborted twice in
    some thousands of tests. The likely cause: steps in flight starve each other's all-reduce.
    """
    return mesh.size > 1 and mesh.devices.flat[0].platform == 'cpu'


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return jax.NamedSharding(mesh, jax.P())


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch."""
    return jax.NamedSharding(mesh, jax.P('data'))


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Puts a pytree whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def check_batch_size(batch_size: int, mesh: jax.sharding.Mesh, field: str) -> None:
    """Raises UserError, naming `field`, if the batch cannot be shared out evenly."""
    if batch_size % mesh.size:
        near = max(1, round(batch_size / mesh.size)) * mesh.size
        raise UserError(
            f'{field}={batch_size} must be a multiple of the {mesh.size} devices; try {near}'
        )


def compile_step(step: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles `step(state, *args)` whose first argument is donated and replicated."""
    return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def compile_init(init: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles an initialization whose outputs are whole on every device."""
    return jax.jit(init, out_shardings=replicated(mesh))


def count_flops(compiled: Callable, *args: Any) -> float:
    """Counts the floating-point operations of one call on one device, as XLA counts them.

    The count is free after a call with arguments of the same shapes: the program exists already.
    """
    cost = compiled.lower(*args).compile().cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost or {}).get('flops', float('nan')))


def compile_query(query: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles `query(account, oracle, *batch)`; the arrays of the batch are sharded by rows."""
    whole, batch = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        query,
        donate_argnums=0,
        in_shardings=(whole, whole, batch, batch, batch),
        out_shardings=whole,
    )


@functools.cache
def compile_take(mesh: jax.sharding.Mesh) -> Callable[[Any, np.ndarray], Any]:
    """Compiles `take(data, indices)`: rows of arrays on the devices, as a sharded batch.

    The look-up is apart from the training step, so that one compiled step serves all set sizes.
    """
    return jax.jit(
        lambda data, indices: jax.tree.map(lambda x: x[indices], data),
        out_shardings=batch_sharding(mesh),
    )
