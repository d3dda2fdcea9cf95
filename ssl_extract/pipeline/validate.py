"""Validation of a run before any training.

The stages of the victim, the users and the service check their own fields; the rest is here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import (
    attacks,
    data,
    defenses,
    encoders,
    losses,
    recovery,
    strategies,
    training,
)
from ssl_extract.data import Dataset
from ssl_extract.encoders import chain, trained
from ssl_extract.errors import UserError
from ssl_extract.evaluation import PROBES
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.pipeline import evaluate, owner, surrogate, users
from ssl_extract.pipeline import victim as victim_stage
from ssl_extract.pipeline.ask import make_plan
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets, load_sets
from ssl_extract.pipeline.victim import Sketch, make_augmentation, size
from ssl_extract.recovery import sybils
from ssl_extract.runtime import parallel
from ssl_extract.victims import endpoints

POSITIVE = (
    'victim.epochs',
    'victim.batch_size',
    'victim.learning_rate',
    'attack.budget',
    'attack.epochs',
    'attack.accounts',
    'attack.overlap',
    'attack.batch_size',
    'attack.learning_rate',
    'legitimate.images',
    'baselines.scratch_batch_size',
    'evaluation.neighbors',
    'training.checkpoint_every',
    'training.log_every',
)
NOT_NEGATIVE = (
    'baselines.scratch_epochs',
    'data.size',
    'evaluation.shots',
    'legitimate.test_images',
    'seed',
    'victim.seed',
)
PRICES = ('cost.dollars_per_1000_queries', 'cost.dollars_per_hour')
AUGMENTATIONS = ('victim.augmentation', 'attack.query_augmentation', 'attack.student_augmentation')


def validate(run: Run, where: str = '') -> None:
    """Checks a run's config, its data and the shapes of its steps.

    Args:
        run: to check.
        where: put before the message, e.g. 'runs[3]: '.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    try:
        check_fields(run)
        sets = load_sets(run)
        sketch = victim_stage.sketch_of(run, sets)
        check_sizes(run, sets, sketch)
        check_tasks(run, sets, sketch)
        check_attack(run, sets, sketch)
        users.check_users(run, sets)
    except UserError as error:
        raise UserError(f'{where}{error}') from error


def check_fields(run: Run) -> None:
    """Checks the ranges of numbers and the names of everything that a name stands for."""
    c = run.config

    def get(field: str) -> Any:
        return functools.reduce(lambda part, name: part[name], field.split('.'), c)

    for field in POSITIVE:
        if not 0 < get(field) < float('inf'):
            raise UserError(f'{field}={get(field)}: write a number above 0')
    for field in NOT_NEGATIVE:
        if not 0 <= get(field) < 2**31:
            raise UserError(f'{field}={get(field)}: write a number from 0 to {2**31 - 1}')
    for field in PRICES:
        if not 0 <= get(field) < float('inf'):
            raise UserError(f'{field}={get(field)}: write a number of at least 0')
    if c.attack.budget > MAX_BUDGET:
        raise UserError(f'attack.budget={c.attack.budget}: write at most {MAX_BUDGET}')
    if c.evaluation.victim not in evaluate.VICTIM_CHOICES:
        raise UserError(
            f'evaluation.victim={c.evaluation.victim!r}: write one of '
            f'{", ".join(map(repr, evaluate.VICTIM_CHOICES))}'
        )
    for part in (c.victim, c.attack):
        training.OPTIMIZERS.make(part.optimizer)(0.1)
        training.SCHEDULES.make(part.schedule)
    for field in AUGMENTATIONS:
        make_augmentation(get(field))
    defenses.needs(c.defense)  # reads every part; the service makes it, with what it needs
    recovery.make(c.attack.recover)
    losses.make(c.attack.loss)
    _try_probe(c.evaluation.probe)
    if c.attack.encoder:
        trained.make(c.attack.encoder)
    _check_plan(c.attack)


def check_sizes(run: Run, sets: Sets, sketch: Sketch) -> None:
    """Checks that the budget fits the pool, and every batch its set."""
    c, mesh, pool = run.config, run.workspace.mesh, sets.pool
    a = c.attack
    plan = make_plan(a.plan, a.query_augmentation)
    stored = plan.stored
    if not sketch.address:
        _check_batch(len(sets.victim.inputs), c.victim.batch_size, 'victim.batch_size', mesh)
    alone = plan.stored == 1 and plan.view is None  # each input is asked once, as it is
    if a.accounts > 1 and not (alone and strategies.make(a.strategy).rounds == 1):
        raise UserError(
            f"attack.accounts={a.accounts}: several accounts share out the inputs of plan 'once', "
            "chosen in one round; write attack.plan='once' and attack.strategy='random'"
        )
    count = len(pool.inputs)
    if a.accounts > 1:
        count = sybils.num_images(a.budget, a.accounts, a.overlap)
    elif stored:
        count = -(-a.budget // stored)
    if count > len(pool.inputs):
        raise UserError(
            f'attack.budget={a.budget}: {pool.name} has {len(pool.inputs)} different images and '
            f'plan {a.plan!r} asks each {"one time" if stored == 1 else f"{stored} times"}'
            f'; write at most {len(pool.inputs) * stored}, a larger attack.split, or '
            "attack.plan='online'"
        )
    _check_batch(count, a.batch_size, 'attack.batch_size', mesh)
    rounds = strategies.make(a.strategy).rounds
    parts = surrogate.shares(count, rounds)
    if rounds > 1 and min(parts) < a.batch_size:
        raise UserError(
            f'attack.strategy={a.strategy!r}: the budget pays for {sum(parts)} images, '
            f'{min(parts)} a round, fewer than attack.batch_size={a.batch_size}'
        )
    if c.baselines.scratch_epochs:
        own = min(len(pool.inputs), a.budget) if stored else len(pool.inputs)
        _check_batch(own, c.baselines.scratch_batch_size, 'baselines.scratch_batch_size', mesh)


def check_tasks(run: Run, sets: Sets, sketch: Sketch) -> None:
    """Checks the tasks' labels and sizes, and that no test input can have been asked."""
    c, pool = run.config.evaluation, sets.pool
    for task in sets.tasks:
        for dataset in (task.train, task.test):
            data.require_labels(dataset)
            if dataset.inputs.shape[1:] != pool.inputs.shape[1:]:
                raise UserError(
                    f'{dataset.name} has inputs of {size(dataset.inputs.shape[1:])} and '
                    f'{pool.name} of {size(pool.inputs.shape[1:])}: set data.size'
                )
        _check_disjoint(_ById(pool), _ById(task.test))
        train, count = task.train, len(task.train.inputs)
        if c.neighbors > count:
            raise UserError(
                f'evaluation.neighbors={c.neighbors}: {train.name} has only {count} images'
            )
        per_class = np.bincount(train.labels, minlength=train.num_classes)
        if per_class.min() < c.shots:
            raise UserError(
                f'evaluation.shots={c.shots}: {train.name} has {per_class.min()} '
                f'images of class {per_class.argmin()}; write fewer, or a larger split'
            )
    specs = {sketch.encoder, run.config.attack.encoder or sketch.encoder} - {''}
    dim = max([sketch.dim, *(encoders.dim(trained.make(s), sketch.input_shape) for s in specs)])
    first = sets.tasks[0].test
    if len(first.inputs) < 2 * (dim + 2):
        raise UserError(
            f'{first.name} has {len(first.inputs)} images: to compare '
            f'representations of {dim} coordinates, a test set of {2 * (dim + 2)} is needed'
        )


def check_attack(run: Run, sets: Sets, sketch: Sketch) -> None:
    """Checks that attack, service, strategy and recovery go together, and builds the steps."""
    c, a = run.config, run.config.attack
    endpoint, defense = attacks.endpoint_of(a.name), c.defense
    owner.check_service(sketch, endpoint, defense)
    plan = make_plan(a.plan, a.query_augmentation)
    if not (sketch.encoder or a.encoder):
        raise UserError("attack.encoder='': the victim has no network of ours; name one")
    if not sketch.traced and not plan.stored:
        raise UserError(
            f'attack.plan={a.plan!r} asks within a compiled step, and the victim is no JAX '
            "function; write attack.plan='once' or 'views(m=1)'"
        )
    if not sketch.address:
        recipe = victim_stage.make_recipe(c.victim.method, c.victim.encoder, c.victim.augmentation)
        _trace(recipe, c.victim.batch_size, sketch.input_shape, 'victim')
    if a.recover:
        _check_recovery(run, sets, sketch, endpoint)
    needs = strategies.needs(a.strategy)
    if 'labels' in needs:  # it would find out after it has paid
        data.require_labels(sets.pool)
    if 'probabilities' in needs and endpoints.gives(endpoint) != 'probabilities':
        raise UserError(
            f'attack.strategy={a.strategy!r} learns from probabilities and attack '
            f'{a.name!r} gets a {endpoint}; attack posteriors or labels with it'
        )
    attack = surrogate.attack_of(run, sketch, sets.num_classes)
    _trace(
        attack.recipe,
        a.batch_size,
        sketch.input_shape,
        'attack',
        sets.pool.labels is not None,
        owner.answer_dim(sketch, endpoint, defense, sets.num_classes),
        max(plan.stored, 1),
        (sketch, endpoint, defense, sets.num_classes),
        attack.before,
    )


def _check_plan(a: Any) -> None:
    """Checks that query plan, query augmentation and strategy go together."""
    plan, asked = make_plan(a.plan, a.query_augmentation), a.query_augmentation
    if plan.stored and plan.view is None and asked != 'none':
        raise UserError(
            f'attack.query_augmentation={asked!r}: plan {a.plan!r} asks each image as it is; write '
            "attack.plan='views(m=1)' or 'online', or attack.student_augmentation"
        )
    if plan.stored > 1 and plan.view is not None and asked == 'none':
        raise UserError(
            f'attack.plan={a.plan!r} would ask the same image {plan.stored} times; write '
            f"attack.query_augmentation='simclr', or attack.plan='repeat(m={plan.stored})'"
        )
    if not plan.stored and strategies.STRATEGIES.traits(a.strategy).chooses:
        raise UserError(
            f'attack.strategy={a.strategy!r}: plan {a.plan!r} asks views of all of the '
            "attacker's images; write attack.plan='once' or 'views(m=1)'"
        )


def _check_recovery(run: Run, sets: Sets, sketch: Sketch, endpoint: str) -> None:
    c, a = run.config, run.config.attack
    if not make_plan(a.plan, a.query_augmentation).stored:
        raise UserError(
            f'attack.recover={a.recover!r} works on stored answers and plan '
            f"{a.plan!r} stores none; write attack.plan='once' or 'views(m=1)'"
        )
    if 'shadow' not in recovery.needs(a.recover):
        return
    if not c.baselines.scratch_epochs:
        raise UserError(
            f"attack.recover={a.recover!r} learns from the attacker's own encoder: set "
            'baselines.scratch_epochs'
        )
    if endpoints.gives(endpoint) != 'representations':
        raise UserError(
            f'attack.recover={a.recover!r} knows representations and attack '
            f'{a.name!r} gets a {endpoint}; attack representations with it'
        )
    own = encoders.dim(trained.make(a.encoder or sketch.encoder), sketch.input_shape)
    same_width = any(t.same_width for t in recovery.RECOVERIES.traits_of_chain(a.recover))
    if same_width and own != sketch.dim:
        raise UserError(
            f'attack.recover={a.recover!r}: the answers have {sketch.dim} coordinates and the '
            f"attacker's own encoder {own}; write an attack.encoder of that width, or ''"
        )


@functools.cache
def _try_probe(spec: str) -> None:
    """Fits the probe on a handful of points: whatever is wrong with its arguments shows now."""
    points = np.random.default_rng(0).normal(size=(20, 2))
    PROBES.make(spec)(points, np.arange(20) % 2, 2)


class _ById:
    """A data set as the key of a cache: two are the same if they are the same object."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.dataset.inputs is other.dataset.inputs

    def __hash__(self) -> int:
        return id(self.dataset.inputs)


@functools.lru_cache(maxsize=64)
def _check_disjoint(queries: _ById, test: _ById) -> None:
    data.check_disjoint(queries.dataset, test.dataset)


def _check_batch(count: int, batch_size: int, field: str, mesh: jax.sharding.Mesh) -> None:
    if batch_size > count:
        raise UserError(f'{field}={batch_size} is more than the {count} images it draws from')
    parallel.check_batch_size(batch_size, mesh, field)


@functools.cache
def _trace(
    recipe: training.Recipe,
    batch_size: int,
    input_shape: tuple[int, ...],
    field: str,
    labeled: bool = False,
    dim: int = 0,
    views: int = 0,
    service: tuple = (),
    before: training.Recipe | None = None,
) -> None:
    """Builds one training step without computing it: whatever does not fit together shows here."""
    oracle = owner.example_oracle(*service) if service else None

    def step(key: jax.Array, oracle: Any) -> jax.Array:
        inputs = jnp.zeros((1, *input_shape))
        batch: dict[str, Any] = {'inputs': jnp.zeros((batch_size, *input_shape))}
        ask, account, frozen = None, (), {}
        if oracle is not None:
            ask, account = oracle.query, oracle.init(key, inputs)
            batch['answers'] = jnp.zeros((batch_size, views, dim))
            batch['answered'] = jnp.ones((batch_size, views), bool)
            batch['view_seeds'] = jnp.zeros((batch_size, views), jnp.uint32)
        if labeled:
            batch['labels'] = jnp.zeros(batch_size, jnp.int32)
        loss = jnp.zeros([])
        for phase in filter(None, (before, recipe)):
            variables = phase.init(key, inputs)
            made, _, _ = phase.prepare(batch, key, ask, account)
            statistics = variables['batch_stats'] | frozen
            loss, _ = phase.objective(variables['params'], statistics, made)
            frozen = {name: chain.part(variables, name) for name in variables['params']}
        return loss

    try:
        loss = jax.eval_shape(step, jax.random.key(0), oracle)
    except (UserError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [''])[0]
        raise UserError(f'{field}: its training step cannot be built: {reason}') from error
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise UserError(f'{field}: its loss must be one float, not {loss.dtype}{list(loss.shape)}')
