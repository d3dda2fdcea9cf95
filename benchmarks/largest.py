"""What the paper's largest experiment costs: `python -m benchmarks.largest`.

Prints a model of one run: a ResNet-50 of ImageNet stolen with 250,000 queries, trained for 100
epochs on the stored answers, and measured by a linear probe. Operations and memory are counted in
the programs that this package compiles, without running them. Times follow from `Machine`, whose
rates are published ones. Nothing here was measured on an accelerator.
"""

import dataclasses
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags, logging

from benchmarks import commands, pieces
from ssl_extract import training
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel

FLAGS = flags.FlagValues()  # of this command alone
flags.DEFINE_multi_integer('devices', [1, 8, 256], 'Accelerators.', 1, flag_values=FLAGS)
flags.DEFINE_multi_integer(
    'batch_size', [512, 8192], 'Images per step, of all accelerators.', 1, flag_values=FLAGS
)
_NVIDIA = "ResNet-50 v1.5 in PyTorch, NVIDIA's DeepLearningExamples"


def _given(value: Any, says: str) -> Any:
    """A field with its value and where the value is from."""
    return dataclasses.field(default=value, metadata={'says': says})


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The largest experiment of the paper: its Table 3, InfoNCE with 250,000 queries."""

    encoder: str = _given('resnet50(stem="imagenet", dtype="bfloat16")', 'of victim and surrogate')
    side: int = _given(224, 'of the images, in pixels')
    queries: int = _given(250_000, 'asked once each')
    epochs: int = _given(100, "of the surrogate's training")
    labeled: int = _given(1_281_167, "images of the probe's training: ILSVRC2012")
    tested: int = _given(50_000, "images of the probe's test")
    classes: int = _given(1_000, 'of the probe')
    penalties: int = _given(5, 'that the probe chooses from, fitted on four fifths')
    evaluations: int = _given(50, "of the probe's objective at each penalty: as on the sets here")
    file: float = _given(108e3, 'bytes of an encoded image: 138 GB of ILSVRC2012')


@dataclasses.dataclass(frozen=True)
class Machine:
    """An accelerator and what stands around it."""

    name: str = _given('A100, 80 GB', '')
    peak: float = _given(312e12, 'operations a second in bfloat16: data sheet')
    share: float = _given(0.191, f'of the peak, for this network: 2,470 images/s; {_NVIDIA}')
    exact: float = _given(19.5e12, 'operations a second in float32: data sheet')
    exact_share: float = _given(0.5, 'of the peak in float32, for large products: assumed')
    memory: float = _given(80e9, 'bytes: data sheet')
    link: float = _given(300e9, 'bytes a second between accelerators of a host: NVLink 3, one way')
    network: float = _given(25e9, 'bytes a second between hosts for each accelerator: 200 Gb/s')
    launch: float = _given(
        0.040, f'seconds, no step is shorter: assumed, three passes of 13 ms at batch 1; {_NVIDIA}'
    )
    host: int = _given(8, 'accelerators of a host')
    decoded: float = _given(
        16_621.0, f'images a second that a host decodes: it fed 8 accelerators so many; {_NVIDIA}'
    )
    disk: float = _given(2e9, 'bytes a second that a host reads and writes: assumed')


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the compiled programs need.

    Attributes:
        dim: of an answer.
        forward: operations of one image through the encoder.
        train: operations of one image in a step: forward, and backward about twice as much.
        params: bytes of the parameters.
    """

    dim: int
    forward: float
    train: float
    params: float


def count(of: Experiment) -> Counts:
    """Counts operations and parameters, from shapes alone.

    The backward pass does the products of the forward pass twice: for inputs and for kernels.
    """
    network = trained.make(of.encoder)
    image = jax.ShapeDtypeStruct((1, of.side, of.side, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    forward = jax.jit(network.apply)
    operations = parallel.compile_ahead(forward, variables, image).flops
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(variables['params'])]
    dim = jax.eval_shape(network.apply, variables, image).shape[-1]
    return Counts(dim, operations, 3 * operations, 4.0 * sum(sizes))


def step_memory(of: Experiment, batch_size: int) -> float:
    """Bytes that one device needs for a step on `batch_size` images: XLA's count, on this CPU."""
    network = trained.make(of.encoder)
    image = jax.ShapeDtypeStruct((1, of.side, of.side, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    dim = jax.eval_shape(network.apply, variables, image).shape[-1]
    recipe = pieces.imitation(network, dim, loss='infonce(temperature=0.1)')
    mesh = parallel.data_mesh(1)
    shape = (of.side, of.side, 3)
    state = jax.eval_shape(
        lambda key: training.init_state(recipe, 'adam', key, shape), jax.random.key(0)
    )
    batch = {
        'inputs': jax.ShapeDtypeStruct((batch_size, *shape), jnp.uint8),
        'answers': jax.ShapeDtypeStruct((batch_size, 1, dim), jnp.float32),
        'answered': jax.ShapeDtypeStruct((batch_size, 1), bool),
    }
    step = training.make_step(recipe, 'adam', 'cosine', mesh)
    return float(parallel.compile_ahead(step, state, batch, None, 1e-3, 1000).memory)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        name: of the part.
        operations: floating-point, in all.
        images: that hosts read and decode.
        moved: bytes to and from the disk, besides the images.
        steps: programs that wait for one another.
        exchanged: bytes that each accelerator sends in a step.
        exact: whether it is in float32, and each host does all of it.
    """

    name: str
    operations: float
    images: float = 0.0
    moved: float = 0.0
    steps: int = 0
    exchanged: float = 0.0
    exact: bool = False


def parts(of: Experiment, counts: Counts, batch_size: int) -> list[Part]:
    """Lists the parts of a run as this package does it."""
    answers, features = (4.0 * n * counts.dim for n in (of.queries, of.labeled + of.tested))
    steps = of.queries // batch_size * of.epochs
    fits = (of.penalties * 0.8 + 1) * of.evaluations  # on four fifths, then on all
    product = 4.0 * of.labeled * counts.dim * of.classes  # logits, and the gradient
    return [
        Part('ask once', of.queries * counts.forward, of.queries, answers),
        Part(
            'train',
            steps * batch_size * counts.train,
            steps * batch_size,
            answers * of.epochs,
            steps,
            2 * counts.params,
        ),
        Part(
            'features once',
            (of.labeled + of.tested) * counts.forward,
            of.labeled + of.tested,
            features,
        ),
        Part('probe', fits * product, exact=True),
    ]


def reference(of: Experiment, counts: Counts) -> float:
    """Operations as the paper's code does it.

    The victim answers in every epoch, and the probe's 100 epochs go through the encoder.
    """
    asked = of.epochs * of.queries * (counts.forward + counts.train)
    return asked + (100 * of.labeled + of.tested) * counts.forward


def seconds(part: Part, of: Experiment, machine: Machine, devices: int) -> tuple[float, str]:
    """The time of a part, and what bounds it: the longest of what runs side by side.

    Arithmetic, decoding and the disk run side by side; gradients are exchanged after each step, by
    a ring, as if nothing of it were hidden.
    """
    hosts = math.ceil(devices / machine.host)
    rate = machine.peak * machine.share * devices
    if part.exact:
        rate = machine.exact * machine.exact_share * min(devices, machine.host)
    times = {'arithmetic': part.operations / rate}
    if part.steps:
        line = machine.link if devices <= machine.host else machine.network
        exchange = part.steps * part.exchanged * (devices - 1) / devices / line
        launch = part.steps * machine.launch
        longer = 'launch' if launch > times['arithmetic'] else 'arithmetic'
        times = {longer: max(launch, times['arithmetic']) + exchange}
    times['decoding'] = part.images / machine.decoded / hosts
    times['disk'] = (part.images * of.file + part.moved) / machine.disk / hosts
    bound = max(times, key=times.get)
    return times[bound], bound


def memory_line(of: Experiment, few: int = 8, more: int = 32) -> tuple[float, float]:
    """(bytes of a step without images, bytes of each image), from programs of two batch sizes."""
    low, high = (step_memory(of, size) for size in (few, more))
    each = (high - low) / (more - few)
    return low - few * each, each


def clock(span: float) -> str:
    """Writes seconds as people do."""
    if span < 60:
        return f'{span:.0f} s'
    return f'{span / 3600:.1f} h' if span >= 3600 else f'{span / 60:.1f} min'


def named(values: Experiment | Machine) -> list[str]:
    """Writes the assumptions, a line each."""
    return [
        f'  {field.name:12s}{getattr(values, field.name):>14,.6g}  {field.metadata["says"]}'
        for field in dataclasses.fields(values)
        if field.name not in ('encoder', 'name')
    ]


def report(
    of: Experiment, machine: Machine, counts: Counts, devices: list[int], batches: list[int]
) -> list[str]:
    """Writes the tables: of what is done, and of its time on each number of accelerators."""
    lines = [
        f'{of.encoder}: {counts.forward / 1e9:.2f} GFLOP an image forward, '
        f'{counts.train / 1e9:.2f} in training, {counts.params / 4e6:.1f} million parameters',
        '',
        f'{"part":16s}{"PFLOP":>10s}{"GB of images":>14s}{"GB of arrays":>14s}',
    ]
    for part in parts(of, counts, batches[0]):
        read, moved = 1e-9 * part.images * of.file, 1e-9 * part.moved
        lines.append(f'{part.name:16s}{part.operations / 1e15:10.2f}{read:14,.0f}{moved:14,.1f}')
    whole, each = memory_line(of)
    names = [part.name for part in parts(of, counts, batches[0])]
    lines += [
        '',
        f'{machine.name}: memory of a step on each, and time by what bounds it',
        f'{"number":>6s}{"batch":>7s}{"GB":>8s} '
        + ''.join(f'{name:>22s}' for name in names)
        + f'{"sum":>10s}',
    ]
    for number in devices:
        for batch_size in batches:
            used = whole + each * batch_size / number
            spans = [seconds(part, of, machine, number) for part in parts(of, counts, batch_size)]
            lines.append(
                f'{number:6d}{batch_size:7,d}{used / 1e9:8.1f}{" !"[used > machine.memory]}'
                + ''.join(f'{f"{clock(span)} {bound}":>22s}' for span, bound in spans)
                + f'{clock(sum(span for span, _ in spans)):>10s}'
            )
    ours = sum(part.operations for part in parts(of, counts, batches[0]))
    theirs = reference(of, counts)
    return [
        *lines,
        '! more memory than there is: remat=True, or accumulate',
        '',
        f"{ours / 1e15:,.0f} PFLOP in all; as the paper's code does it {theirs / 1e15:,.0f}: "
        f'{theirs / ours:.1f} times as many',
        '',
        'assumed',
        *named(of),
        *named(machine),
    ]


def main(argv: list[str]) -> None:
    """Counts and prints."""
    if words := commands.parse(FLAGS, argv):
        raise UserError(f'unexpected {words[0]!r}: write --devices=..., --batch_size=...')
    logging.set_verbosity(logging.WARNING)
    of = Experiment()
    print('\n'.join(report(of, Machine(), count(of), FLAGS.devices, FLAGS.batch_size)))


if __name__ == '__main__':
    sys.exit(commands.run(main, FLAGS, __doc__))
