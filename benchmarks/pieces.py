"""The pieces of an experiment that the suite measures, each ready to be called.

A piece is made for a `Case`. A step and a pass over a batch are one compiled program, whose
arguments are on the devices. The probe and the nearest neighbors are called as an evaluation calls
them, with arrays on the host.
"""

import contextlib
import functools
import io
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import attacks, augment, defenses, encoders, losses, training, victims
from ssl_extract.encoders import Network, trained
from ssl_extract.evaluation import knn, probe
from ssl_extract.runtime import loggers, parallel

NUM_CLASSES = 10
POINTS = 10_000  # features that the probe is fitted to, and that neighbors are among
RATES = (1e-3, 1_000_000)  # the learning rate and the number of steps of a schedule
LOG_EVERY = 25  # steps from one fetch of metrics to the next, as a training has it
TURNS = 3  # of a training between fetches; the first compiles and does not count


class Case(NamedTuple):
    """A choice of what is measured.

    Attributes:
        encoder: the spec of victim and surrogate.
        batch_size: images of a call.
        side: of the square color images, in pixels.
        defense: a chain of defenses.
    """

    encoder: str
    batch_size: int
    side: int
    defense: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the shape of an image."""
        return self.side, self.side, 3

    @property
    def network(self) -> Network:
        """Returns the encoder's pure functions."""
        return trained.make(self.encoder)

    @property
    def dim(self) -> int:
        """Returns the width of a representation."""
        return encoders.dim(self.network, self.shape)

    def images(self) -> np.ndarray:
        """Draws images, uint8 [B, H, W, 3]."""
        shape = (self.batch_size, *self.shape)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


class Piece(NamedTuple):
    """A piece of work to repeat.

    Attributes:
        inputs: images, queries or features of a call.
        call: does the work once and returns what to wait for.
        program: the compiled function and its arguments; None where the host calls several.
        operations: floating-point operations of a call of the host; None where `program` tells.
        host_ms: measures the processor time of the host for each step of a training, in ms, from
            the steps that a turn has; None where nothing is trained.
    """

    inputs: int
    call: Callable[[], Any]
    program: tuple[Callable, tuple] | None = None
    operations: Callable[[], float] | None = None
    host_ms: Callable[[int], list[float]] | None = None


def imitation(network: Network, dim: int, plan: str = 'once', loss: str = 'mse') -> training.Recipe:
    """Makes direct extraction without augmentation."""
    none = augment.make('none')
    return attacks.make(
        'direct',
        encoder=network,
        answer_dim=dim,
        plan=attacks.PLANS.make(plan, query_augmentation=none),
        loss=losses.make(loss),
        student_augmentation=none,
    ).recipe


def prepared(
    recipe: training.Recipe, batch: dict[str, np.ndarray], oracle: Any = None
) -> tuple[Callable, Any, dict[str, jax.Array]]:
    """Prepares the compiled step of a recipe, its first state, and the batch on the devices.

    Args:
        recipe: of a training by Adam on a cosine schedule.
        batch: arrays [B, ...], among them `inputs`, images.
        oracle: answers the step's queries.
    """
    mesh, shape = parallel.data_mesh(), batch['inputs'].shape[1:]
    account = () if oracle is None else oracle.init(jax.random.key(0), jnp.zeros((1, *shape)))
    state = training.make_init(recipe, 'adam', shape, mesh)(jax.random.key(0), account, None)
    step = training.make_step(recipe, 'adam', 'cosine', mesh)
    return step, state, parallel.put(batch, mesh)


def labeled_features(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws features float32 [count, dim] and labels int [count], which depend on them in part."""
    random = np.random.default_rng(0)
    points = random.normal(size=(count, dim)).astype(np.float32)
    scores = points @ random.normal(size=(dim, NUM_CLASSES)) / np.sqrt(dim)
    return points, (scores + random.normal(size=scores.shape)).argmax(axis=1)


def attack_step(case: Case) -> Piece:
    """Makes a step of direct extraction: MSE to stored answers, Adam."""
    answers = np.random.default_rng(0).random((case.batch_size, 1, case.dim), np.float32)
    answered = np.ones((case.batch_size, 1), bool)
    batch = {'inputs': case.images(), 'answers': answers, 'answered': answered}
    return _training(imitation(case.network, case.dim), batch)


def pretraining_step(case: Case) -> Piece:
    """Makes a step of SimCLR: two views of each image, drawn in the step, NT-Xent, Adam."""
    recipe = victims.VICTIMS.make(
        'simclr', encoder=case.network, augmentation=augment.make('simclr')
    )
    return _training(recipe, {'inputs': case.images()})


def victim_inference(case: Case) -> Piece:
    """Makes the representations of a batch of stored images under a frozen encoder."""
    mesh = parallel.data_mesh()
    variables = case.network.init(jax.random.key(0), jnp.zeros((1, *case.shape)))

    def encode(variables: Any, images: jax.Array) -> jax.Array:
        return case.network.apply(variables, augment.to_float(images))

    forward = jax.jit(encode, out_shardings=parallel.replicated(mesh))
    args = (parallel.replicate(variables, mesh), parallel.put(case.images(), mesh))
    return Piece(case.batch_size, functools.partial(forward, *args), (forward, args))


def augmentation(case: Case) -> Piece:
    """Makes one view of each stored image, as SimCLR draws it."""
    mesh, op = parallel.data_mesh(), augment.make('simclr')

    def draw(key: jax.Array, images: jax.Array) -> jax.Array:
        return augment.views(op, key, augment.to_float(images))

    views = jax.jit(draw, out_shardings=parallel.batch_sharding(mesh))
    args = (parallel.replicate(jax.random.key(0), mesh), parallel.put(case.images(), mesh))
    return Piece(case.batch_size, functools.partial(views, *args), (views, args))


def defense_chain(case: Case) -> Piece:
    """Makes the defense of a batch of answers, with the state of one account.

    Raises:
        UserError: the chain is wrong, or one of its defenses needs more than answers.
    """
    mesh, defense = parallel.data_mesh(), defenses.make(case.defense)
    keys = jax.random.split(jax.random.key(0), case.batch_size)
    outputs = jax.random.normal(jax.random.key(1), (case.batch_size, case.dim))
    inputs = augment.to_float(jnp.asarray(case.images()))
    state = parallel.replicate(defense.init(jax.random.key(2), outputs, inputs), mesh)
    batch = parallel.put((outputs, inputs, keys), mesh)

    def defend(state: Any, outputs: jax.Array, inputs: jax.Array, keys: jax.Array) -> tuple:
        where = jnp.ones(len(outputs), bool)
        outputs, _, state = defense.apply(outputs, state, inputs=inputs, where=where, keys=keys)
        return state, outputs

    step = parallel.compile_step(defend, mesh)

    def call() -> jax.Array:
        nonlocal state
        state, outputs = step(state, *batch)
        return outputs

    return Piece(case.batch_size, call, (step, (state, *batch)))


def linear_probe(case: Case) -> Piece:
    """Makes a whole fit of the linear probe: five penalties, then all features."""
    points, labels = labeled_features(POINTS, case.dim)
    evaluations = 0

    def call() -> np.ndarray:
        nonlocal evaluations
        fitted = probe.fit_probe(points, labels, NUM_CLASSES)
        evaluations = fitted.evaluations
        return fitted.weights

    # Two matrix products for each evaluation of the objective and its gradient.
    return Piece(POINTS, call, operations=lambda: evaluations * 4.0 * points.size * NUM_CLASSES)


def nearest_neighbors(case: Case) -> Piece:
    """Makes the kNN classification of a batch of features; its product alone is counted."""
    points, labels = labeled_features(POINTS + case.batch_size, case.dim)
    train, test = points[:POINTS], points[POINTS:]
    call = functools.partial(knn.knn_predict, train, labels[:POINTS], test, NUM_CLASSES)
    return Piece(len(test), call, operations=lambda: 2.0 * len(test) * train.size)


PIECES: dict[str, Callable[[Case], Piece]] = {
    'attack step': attack_step,
    'pretraining step': pretraining_step,
    'victim inference': victim_inference,
    'augmentation': augmentation,
    'defense chain': defense_chain,
    'probe': linear_probe,
    'knn': nearest_neighbors,
}
WITHOUT_ENCODER, WITHOUT_BATCH = ('augmentation',), ('probe',)


def _training(recipe: training.Recipe, batch: dict[str, np.ndarray]) -> Piece:
    step, state, placed = prepared(recipe, batch)
    args = (state, placed, None, *RATES)

    def call() -> jax.Array:
        nonlocal state
        state, measured, _ = step(state, placed, None, *RATES)
        return measured['loss']

    host_ms = functools.partial(_host_ms, recipe, batch)
    return Piece(len(batch['inputs']), call, (step, args), host_ms=host_ms)


def _host_ms(recipe: training.Recipe, batch: dict[str, np.ndarray], turn: int) -> list[float]:
    """Measures what the host does for a step of a training loop, in ms of its thread.

    The loop is that of every training, with the choice of batches, metrics, checks and the bar. The
    thread that runs the loop waits for the devices without using the processor. Its processor time
    is therefore what the host needs between the steps, whatever else the machine does.

    Args:
        recipe: of the training.
        batch: arrays [B, ...] of which a set of 16 batches is made.
        turn: steps from one fetch of metrics to the next.

    Returns:
        A value for each turn but the first.
    """
    fetched: list[float] = []
    data = {name: np.tile(x, (16, *[1] * (x.ndim - 1))) for name, x in batch.items()}

    @loggers.register('benchmark')
    def benchmark(training: loggers.Training) -> loggers.Logger:
        del training
        return loggers.Logger(lambda rows: fetched.append(time.thread_time()))

    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            training.fit(
                recipe,
                data,
                num_steps=TURNS * turn,
                batch_size=len(batch['inputs']),
                learning_rate=RATES[0],
                folder=epath.Path(folder),
                mesh=parallel.data_mesh(),
                log_every=turn,
                log_to='benchmark',
            )
    finally:
        del loggers.LOGGERS.entries['benchmark']
    return [1e3 * float(spent) / turn for spent in np.diff(fetched)]
