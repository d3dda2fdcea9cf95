"""Compilation and sharding over a one-dimensional `'data'` mesh.

Batches are sharded over the mesh and everything else is replicated. In `AxisType.Auto` the compiled
program has global-batch semantics: contrastive negatives, BatchNorm statistics and the oracle's
count are the same on one device and on many, of one process or of several. Each process sends its
own devices their rows and nothing more.
"""

import functools
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.checks import machine_memory
from ssl_extract.errors import UserError
from ssl_extract.runtime import hosts, memory

# A convolution by oneDNN in a program's text: the shapes of its output and its second operand.
_CONVOLUTION = re.compile(
    r' = f32\[([\d,]+)\]\S* custom-call\(.*custom_call_target="__onednn\$convolution"'
    r'.*operand_layout_constraints=\{f32\[[\d,]+\]\S*, f32\[([\d,]+)\]'
)


@functools.cache
def data_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
    """Makes a mesh along the axis `'data'`.

    Args:
        num_devices: devices of this process; None is all devices of all processes.

    Raises:
        UserError: there are fewer devices, or JAX knows of several processes and `hosts.join` was
            not called.
    """
    memory.keep()
    devices = jax.devices() if num_devices is None else jax.local_devices()[:num_devices]
    if len(devices) < (num_devices or 1):
        raise UserError(f'num_devices={num_devices}: this process has {len(devices)}')
    if jax.process_count() != hosts.number():
        raise UserError(
            f'JAX runs in {jax.process_count()} processes: call hosts.join and parallel.meet of '
            'ssl_extract.runtime instead of jax.distributed.initialize'
        )
    return jax.make_mesh(
        (len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
    )


def meet() -> None:
    """Lets the devices of all processes exchange a first sum; to be called soon after `hosts.join`.

    Gloo fails if a process comes to the first one 30 s after another, as after a slow compilation.
    Later ones wait.
    """
    if hosts.number() == 1:
        return
    mesh = data_mesh()
    ones = put(np.ones(mesh.size, np.float32), mesh)
    total = jax.jit(jnp.sum, out_shardings=replicated(mesh)).lower(ones).compile()
    hosts.wait()
    jax.block_until_ready(total(ones))


def is_emulated(mesh: jax.sharding.Mesh) -> bool:
    """Tells whether the devices of a mesh share the threads of one processor.

    A training loop waits for each step there. Without the wait the process was aborted twice in
    some thousands of tests. The likely cause: steps in flight starve each other's all-reduce.
    """
    return mesh.size > 1 and mesh.devices.flat[0].platform == 'cpu'


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return jax.NamedSharding(mesh, jax.P())


def batch_sharding(mesh: jax.sharding.Mesh, axis: int = 0) -> jax.NamedSharding:
    """Returns the sharding of arrays of which one axis, the first by default, is the batch."""
    return jax.NamedSharding(mesh, jax.P(*[None] * axis, 'data'))


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Puts a pytree whole on every device of the mesh; each process has all of it."""
    return _put(tree, replicated(mesh))


def put(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Puts arrays [B, ...] on the mesh by rows; each process sends those of its devices."""
    return _put(tree, batch_sharding(mesh))


def put_rows(data: Any, indices: np.ndarray, mesh: jax.sharding.Mesh) -> Any:
    """Puts rows of arrays on the host on the mesh, as a sharded batch, or as several.

    Each process reads only the rows that its devices get.

    Args:
        data: arrays [N, ...], or `Records`.
        indices: the rows, int [B], or [K, B] of K batches.
        mesh: each batch is sharded over the mesh.
    """
    axes = indices.ndim
    sharding = batch_sharding(mesh, axes - 1)

    def rows(x: Any, share: tuple[slice, ...]) -> np.ndarray:
        wanted = indices[share[:axes]]
        return x[wanted.ravel()].reshape(*wanted.shape, *x.shape[1:])

    return jax.tree.map(
        lambda x: jax.make_array_from_callback(
            (*indices.shape, *x.shape[1:]), sharding, functools.partial(rows, x)
        ),
        data,
    )


def _put(tree: Any, sharding: jax.NamedSharding) -> Any:
    """Puts a pytree on devices.

    `device_put` alone would send all arrays to all processes, to compare them.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_leaf(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if hasattr(leaf, 'dtype') and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = put_leaf(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda share: array[share])

    return jax.tree.map(put_leaf, tree)


def fetch(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Brings arrays on the mesh to the host, whole in every process."""
    if not replicated(mesh).is_fully_addressable:
        tree = _compile_gather(mesh)(tree)
    return jax.device_get(tree)


@functools.cache
def _compile_gather(mesh: jax.sharding.Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


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


class Program(NamedTuple):
    """A compiled program.

    Attributes:
        seconds: that tracing and compiling took; next to nothing where it was compiled before.
        flops: floating-point operations of one call on one device.
        memory: bytes on one device, of arguments, results and temporary arrays.
        arguments: bytes of these that are the arguments'.
    """

    seconds: float
    flops: float
    memory: int
    arguments: int


def compile_ahead(compiled: Callable, *args: Any) -> Program:
    """Compiles a function of `jax.jit` for arguments, before a call, which then compiles nothing.

    XLA counts operations, except for oneDNN's convolutions, of which it knows nothing. Those are
    counted as they are computed: with the taps that fall outside the image, some percent that XLA
    leaves out, and with the zeros in the input's gradient of a stride above 1.

    >>> program = compile_ahead(jax.jit(jnp.dot), jnp.ones((8, 4)), jnp.ones((4, 2)))
    >>> program.flops, program.memory
    (128.0, 224)
    """
    start = time.monotonic()
    program = compiled.lower(*args).compile()
    seconds = time.monotonic() - start
    cost, used = program.cost_analysis(), program.memory_analysis()
    known = float((cost[0] if isinstance(cost, list) else cost or {}).get('flops', float('nan')))
    flops = known + sum(map(_convolution_flops, _CONVOLUTION.findall(program.as_text())))
    sizes = (used.argument_size_in_bytes, used.output_size_in_bytes, used.temp_size_in_bytes)
    return Program(seconds, flops, sum(sizes) - used.alias_size_in_bytes, sizes[0])


def check_fits(program: Program, mesh: jax.sharding.Mesh, what: str) -> None:
    """Checks that a program fits into the memory of the devices of a mesh.

    Args:
        program: of the mesh.
        mesh: CPU devices share the memory of the machine.
        what: the beginning of the message.

    Raises:
        UserError: it needs more than there is in all; the message says what to write instead.
    """
    device = mesh.local_devices[0]
    if device.platform == 'cpu':
        available = machine_memory() // len(mesh.local_devices)
    else:
        available = free_memory(device.memory_stats() or {}, program)
    if program.memory > available:
        raise UserError(
            f'{what} takes {program.memory / 2**30:,.1f} GiB on each device, which has '
            f'{available / 2**30:,.1f} for it: write a smaller batch_size, remat=True in the '
            "encoder, or accumulate(steps=4) before the optimizer's name"
        )


def free_memory(stats: Mapping[str, int], program: Program) -> float:
    """Returns the bytes of an accelerator that a program may take, whose arguments are there.

    What else is there, such as a set of training inputs, stays.

    >>> program = Program(seconds=0.0, flops=0.0, memory=70, arguments=40)
    >>> free_memory({'bytes_limit': 100, 'bytes_in_use': 60}, program)
    80

    Args:
        stats: of a device, as JAX tells them; empty where it does not.
        program: to be run.
    """
    if 'bytes_limit' not in stats:
        return math.inf
    return stats['bytes_limit'] - stats.get('bytes_in_use', program.arguments) + program.arguments


def _convolution_flops(shapes: tuple[str, str]) -> float:
    output, kernel = ([int(size) for size in shape.split(',')] for shape in shapes)
    return 2.0 * math.prod(output) * math.prod(kernel) / output[-1]


def compile_query(query: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles `query(account, oracle, *batch)`; the arrays of the batch are sharded by rows."""
    whole, batch = replicated(mesh), batch_sharding(mesh)
    compiled = jax.jit(
        query,
        donate_argnums=0,
        in_shardings=(whole, whole, batch, batch, batch),
        out_shardings=whole,
    )
    return lambda account, oracle, *rows: compiled(account, oracle, *put(rows, mesh))


@functools.cache
def compile_take(mesh: jax.sharding.Mesh, axis: int = 0) -> Callable[[Any, np.ndarray], Any]:
    """Compiles `take(data, indices)`: rows of arrays on the devices, as a sharded batch.

    The look-up is apart from the training step, so that one compiled step serves all set sizes.

    Args:
        mesh: the devices.
        axis: of the batch among the axes of the indices: 0 of [B], 1 of [K, B].
    """
    return jax.jit(
        lambda data, indices: jax.tree.map(lambda x: x[indices], data),
        out_shardings=batch_sharding(mesh, axis),
    )


def compile_replicas(step: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles `step(state, batch, rate, counts) -> (state, metrics)` of replicas.

    The first axis of all arguments but the last, and of the results, is that of the replicas. Each
    device takes the steps of its share of them and hears nothing of the others. The states are
    donated.
    """
    shared, whole = jax.P('data'), jax.P()
    each = jax.vmap(step, in_axes=(0, 0, 0, None))
    apart = jax.shard_map(
        each, mesh=mesh, in_specs=(shared, shared, shared, whole), out_specs=shared, check_vma=False
    )
    return jax.jit(apart, donate_argnums=0)


def stack(trees: list[Any], mesh: jax.sharding.Mesh) -> Any:
    """Stacks pytrees of arrays along a new first axis, which the devices share out."""
    return _compile_stack(mesh)(*trees)


@functools.cache
def _compile_stack(mesh: jax.sharding.Mesh) -> Callable:
    return jax.jit(
        lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),
        out_shardings=batch_sharding(mesh),
    )


def unstack(stacked: Any, index: int, mesh: jax.sharding.Mesh) -> Any:
    """Returns one of stacked pytrees, whole on every device."""
    return _compile_unstack(mesh)(stacked, index)


@functools.cache
def _compile_unstack(mesh: jax.sharding.Mesh) -> Callable:
    return jax.jit(
        lambda stacked, index: jax.tree.map(lambda x: x[index], stacked),
        out_shardings=replicated(mesh),
    )


@functools.cache
def compile_take_each(mesh: jax.sharding.Mesh) -> Callable[[Any, np.ndarray], Any]:
    """Compiles `take(data [R, N, ...], indices [R, ...])`: rows of every replica's own arrays."""
    return jax.jit(
        lambda data, indices: jax.vmap(
            lambda arrays, rows: jax.tree.map(lambda x: x[rows], arrays)
        )(data, indices),
        out_shardings=batch_sharding(mesh),
    )
