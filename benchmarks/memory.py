"""Memory of losses and encoders in training: `python -m benchmarks.memory [--devices=4]`.

Compiles value and gradient, runs nothing, and prints what the compiled program needs on each device
for temporary arrays, in MiB: of contrastive losses with all comparisons at once and by blocks, and
of the forward and backward pass of encoders as they are and with `remat=True`.

The programs are those of this machine's devices. XLA's compiler for CPU makes float32 of bfloat16
and drops the barriers of `remat`. The barriers are kept here, as with
`XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander`; what `dtype="bfloat16"` saves can be seen
on accelerators alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import commands
from ssl_extract import encoders, losses
from ssl_extract.losses import blocks
from ssl_extract.runtime import parallel

LOSSES = ('infonce', 'softnn', 'supcon', 'cont_steal', 'rda')
DIM = 128  # of the representations that the losses compare
SIDE = 32  # of the images
KEEP_BARRIERS = {'xla_disable_hlo_passes': 'cse_barrier_expander'}

_DEVICES = flags.DEFINE_integer('devices', 1, 'Emulated devices, on a CPU.', lower_bound=1)
_ROWS = flags.DEFINE_integer('rows', 16_384, 'Inputs that a loss compares.', lower_bound=8)
_BATCH = flags.DEFINE_integer('batch_size', 256, 'Images of an encoder.', lower_bound=1)
_ENCODERS = flags.DEFINE_multi_string(
    'encoder', ['resnet34(stem="cifar")', 'resnet50(stem="cifar")', 'vit_s(patch=4)'], 'To compile.'
)


def needed(function: Callable, *args: Any, options: dict[str, str] | None = None) -> float:
    """Compiles a function for arguments, or shapes, and returns MiB of temporary arrays."""
    compiled = jax.jit(function, compiler_options=options).lower(*args).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def of_loss(name: str, rows: int, comparisons: int) -> float:
    """Returns the MiB of a loss and its gradient, with so many comparisons at a time."""
    blocks.COMPARISONS = comparisons
    loss, spread = losses.make(name), parallel.batch_sharding(parallel.data_mesh())
    vectors = jax.ShapeDtypeStruct((rows, DIM), jnp.float32, sharding=spread)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=spread)
    return needed(
        jax.value_and_grad(lambda student, teacher, labels: loss(student, teacher, labels=labels)),
        *(vectors, vectors, labels),
    )


def of_encoder(spec: str, batch_size: int) -> float:
    """Returns the MiB of an encoder's training step without an optimizer."""
    network, mesh = encoders.make(spec), parallel.data_mesh()
    shape = (batch_size, SIDE, SIDE, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=parallel.batch_sharding(mesh))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)

    def objective(params: Any, batch_stats: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        outputs, batch_stats = network.train({'params': params, 'batch_stats': batch_stats}, images)
        return jnp.mean(jnp.square(outputs)), batch_stats

    given = (variables['params'], variables['batch_stats'], images)
    options = KEEP_BARRIERS if jax.default_backend() == 'cpu' else None
    return needed(jax.value_and_grad(objective, has_aux=True), *given, options=options)


def main(argv: Sequence[str]) -> None:
    """Prints the two tables."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    if _DEVICES.value > 1:
        jax.config.update('jax_num_cpu_devices', _DEVICES.value)
    mesh = parallel.data_mesh()
    print(f'{mesh.size} x {jax.devices()[0].device_kind}, MiB on each device')
    rows, few = _ROWS.value, blocks.COMPARISONS
    print(f'{f"loss of {rows:,} x {DIM}":46s} at once  by blocks')
    for name in LOSSES:
        figures = (of_loss(name, rows, count) for count in (2**62, few))
        print(f'{name:46s}{next(figures):8,.0f}   {next(figures):8,.0f}', flush=True)
    print(f'{f"encoder, {_BATCH.value} images of {SIDE}x{SIDE}":46s}   as is      remat')
    for spec in _ENCODERS.value:
        again = f'{spec[:-1]}, remat=True)' if spec.endswith(')') else f'{spec}(remat=True)'
        figures = (of_encoder(written, _BATCH.value) for written in (spec, again))
        print(f'{spec:46s}{next(figures):8,.0f}   {next(figures):8,.0f}', flush=True)


if __name__ == '__main__':
    commands.start(main)
