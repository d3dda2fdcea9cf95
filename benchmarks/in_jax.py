"""The side of this package of `benchmarks.against_torch`."""

import collections
import contextlib
import functools
import gzip
import io
import json
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import ssl_extract
from benchmarks import comparison, pieces
from benchmarks.comparison import Setup, Work
from benchmarks.pieces import NUM_CLASSES, RATES
from ssl_extract import augment, training, victims
from ssl_extract.encoders import Network, trained
from ssl_extract.evaluation import features, probe
from ssl_extract.oracle import make_oracle
from ssl_extract.runtime import parallel

SHORT = 2  # steps of a loop that has little but its start and its end
CHECKPOINT_EVERY = 500  # steps, as a config has it
NAMES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}


def rate(setup: Setup, name: str, seconds: float) -> float:
    """Images per second of one of `WORKS`."""
    return comparison.images_per_second(_work(setup, name)[0], seconds)


def first_seconds(setup: Setup, names: tuple[str, ...]) -> float:
    """Seconds of preparing some of `WORKS` and running each once, which compiles."""
    return sum(_work(setup, name)[1] for name in names)


def reference(setup: Setup) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Computes outputs for another implementation to agree with.

    Returns:
        Arrays of `named_arrays`, images uint8 [8, H, W, 3], and their representations with frozen
        statistics and with those of the batch, float32 [8, D].
    """
    network, variables = _initialized(setup)
    random = np.random.default_rng(1)

    def spread(path: Any, leaf: jax.Array) -> np.ndarray:
        """Draws what BatchNorm starts with 0 or 1, so that the places of each matter."""
        drawn = random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return np.asarray(leaf) if path[-1].key == 'kernel' else drawn

    variables, images = jax.tree.map_with_path(spread, variables), setup.images(8)
    inputs = augment.to_float(images)
    frozen, batch = network.apply(variables, inputs), network.train(variables, inputs)[0]
    return named_arrays(variables), images, np.asarray(frozen), np.asarray(batch)


def named_arrays(variables: Any) -> dict[str, np.ndarray]:
    """Names and lays out a network's variables as PyTorch does."""
    arrays = {}
    for collection in variables.values():
        for path, leaf in jax.tree.leaves_with_path(collection):
            *layers, name = (entry.key for entry in path)
            array = np.array(leaf)
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            arrays['.'.join([*layers, NAMES.get(name, name)])] = np.ascontiguousarray(array)
    return arrays


def training_seconds(setup: Setup, num_images: int, epochs: int, seconds: float) -> float:
    """Seconds of a whole attack's training loop, from one of about `seconds`.

    A loop of few steps gives the time of start and end. It is counted for each checkpoint, so that
    a checkpoint counts too much rather than too little.
    """
    num_steps = num_images // setup.batch_size * epochs
    ends = _ends_seconds(setup)
    steps = max(1, round(seconds * rate(setup, 'stored', 0) / setup.batch_size))
    step = (_fit_seconds(setup, SHORT + steps) - ends) / steps
    return num_steps * step + -(-num_steps // CHECKPOINT_EVERY) * ends


@functools.cache
def probe_seconds(dim: int, train: int, test: int) -> float:
    """Seconds of a linear probe, fitted and tested: measured whole, once.

    The features are drawn, with labels that a linear classifier tells apart in part.
    """
    points, labels = pieces.labeled_features(train + test, dim)
    start = time.perf_counter()
    fitted = probe.fit_probe(points[:train], labels[:train], NUM_CLASSES)
    np.mean(probe.predict(fitted, points[train:]) == labels[train:])
    return time.perf_counter() - start


def operations(setup: Setup, steps: int) -> dict[str, float]:
    """Milliseconds of a step on stored answers, by kind of operation, and of the whole step.

    A conditional around a convolution (see `encoders.onednn`) is the gradient of its kernel.
    """
    recipe, stored = _attack(setup, 'once'), _answered(setup, setup.batch_size)
    step, state, batch = pieces.prepared(recipe, stored)
    origins = _origins(step.lower(state, batch, None, *RATES).compile().as_text())
    work, _ = _work(setup, 'stored')
    spent: dict[str, float] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                work.wait(work.run())
        (path,) = pathlib.Path(folder).rglob('*.trace.json.gz')
        events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
    for event in events:
        name = event.get('args', {}).get('hlo_op', '')
        origin = origins.get(name.partition('__')[0], '')
        if name and not name.startswith(('cond', 'call')):  # which hold others
            spent[_kind(name, origin)] += event['dur'] / 1e3 / steps
    rate = comparison.images_per_second(work, sum(spent.values()) * steps / 1e3)
    return dict(spent) | {'step': 1e3 * setup.batch_size / rate}


def _origins(program: str) -> dict[str, str]:
    """Finds the name in the source of each instruction of a compiled program."""
    pattern = r'^\s*(?:ROOT )?%?([\w.$-]+) = .*?op_name="([^"]*)"'
    return dict(re.findall(pattern, program, re.MULTILINE))


def _kind(name: str, origin: str) -> str:
    """Returns the kind of an operation, see `benchmarks.step_operations`."""
    backward, kernel = 'transpose(jvp' in origin, '/cond' in origin
    if 'convolution' in name or 'convolution' in origin:
        if not backward:
            return 'convolution, forward'
        return f'convolution, gradient of the {"kernel" if kernel else "input"}'
    if kernel:
        return 'its transpositions'
    if 'ResNet' in origin:
        return 'BatchNorm, ReLU, shortcuts'
    return 'other' if 'jvp' in origin else 'optimizer'


def versions() -> dict[str, str]:
    """Returns the versions of JAX and of this package."""
    return {'jax': jax.__version__, 'ssl_extract': ssl_extract.__version__}


@functools.cache
def _work(setup: Setup, name: str) -> tuple[Work, float]:
    """Prepares a work and runs it once; gives the seconds of both."""
    start = time.perf_counter()
    work = WORKS[name](setup)
    work.wait(work.run())
    return work, time.perf_counter() - start


def _initialized(setup: Setup, seed: int = 0) -> tuple[Network, Any]:
    parallel.data_mesh()  # settles how memory is kept, and comes before any array
    network = trained.make(setup.spec)
    inputs = jnp.zeros((1, setup.side, setup.side, 3))
    return network, network.init(jax.random.key(seed), inputs)


@functools.cache
def _attack(setup: Setup, plan: str) -> training.Recipe:
    return pieces.imitation(trained.make(setup.spec), setup.dim, plan)


def _answered(setup: Setup, count: int) -> dict[str, np.ndarray]:
    """Draws images with stored answers to train on."""
    answers = np.random.default_rng(0).random((count, 1, setup.dim), np.float32)
    return {
        'inputs': setup.images(count),
        'answers': answers,
        'answered': np.ones((count, 1), bool),
    }


def _training(recipe: training.Recipe, batch: dict, images: int, oracle: Any = None) -> Work:
    """Makes the work of a compiled training step by Adam."""
    step, state, batch = pieces.prepared(recipe, batch, oracle)

    def run() -> jax.Array:
        nonlocal state
        state, measured, _ = step(state, batch, oracle, *RATES)
        return measured['loss']

    return Work(run, jax.block_until_ready, images)


def _stored(setup: Setup) -> Work:
    """Imitates stored answers by MSE."""
    batch = _answered(setup, setup.batch_size)
    return _training(_attack(setup, 'once'), batch, setup.batch_size)


def _online(setup: Setup) -> Work:
    """Imitates a victim of the same kind, asked for each batch through an oracle."""
    network, variables = _initialized(setup, seed=1)
    oracle = make_oracle(jax.tree_util.Partial(network.apply, variables), budget=2**30)
    batch = {'inputs': setup.images(setup.batch_size)}
    return _training(_attack(setup, 'online'), batch, setup.batch_size, oracle)


def _simclr(setup: Setup) -> Work:
    """Trains by NT-Xent on two views of each image, drawn in the step."""
    recipe = victims.VICTIMS.make(
        'simclr', encoder=trained.make(setup.spec), augmentation=augment.make('simclr')
    )
    batch = {'inputs': setup.images(setup.batch_size)}
    return _training(recipe, batch, 2 * setup.batch_size)


def _inference(setup: Setup) -> Work:
    """Computes representations of eight batches, from stored images to arrays on the host."""
    network, variables = _initialized(setup)
    images, mesh = setup.images(8 * setup.batch_size), parallel.data_mesh()
    extract = functools.partial(features.extract, batch_size=setup.batch_size, progress=False)
    return Work(lambda: extract(network.apply, variables, images, mesh=mesh), len, len(images))


def _asking(setup: Setup) -> Work:
    """Asks a victim for eight batches, and keeps its answers and the bill."""
    network, variables = _initialized(setup, seed=1)
    images = setup.images(8 * setup.batch_size)
    oracle = ssl_extract.make_oracle(
        jax.tree_util.Partial(network.apply, variables), budget=len(images)
    )
    ask = functools.partial(ssl_extract.collect, oracle, images, batch_size=setup.batch_size)
    return Work(ask, len, len(images))


@functools.cache
def _ends_seconds(setup: Setup) -> float:
    """Seconds of a loop of few steps: the median of three, of which the first compiles."""
    return float(np.median([_fit_seconds(setup, SHORT) for _ in range(3)]))


def _fit_seconds(setup: Setup, num_steps: int) -> float:
    """Seconds of the training loop with checkpoints and metrics; the step is compiled before."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        training.fit(
            _attack(setup, 'once'),
            _answered(setup, 16 * setup.batch_size),
            num_steps=num_steps,
            batch_size=setup.batch_size,
            learning_rate=1e-3,
            checkpoint_every=CHECKPOINT_EVERY,
            folder=epath.Path(folder),
            mesh=parallel.data_mesh(),
        )
        return time.perf_counter() - start


WORKS: dict[str, Callable[[Setup], Work]] = {
    'stored': _stored,
    'online': _online,
    'simclr': _simclr,
    'inference': _inference,
    'asking': _asking,
}
