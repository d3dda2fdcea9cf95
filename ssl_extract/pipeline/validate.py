"""Whatever can be wrong with a run is found here, before any training, and said in one line."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ssl_extract import attacks, data, defenses, encoders, recovery, strategies, training
from ssl_extract.encoders import chain
from ssl_extract.errors import UserError
from ssl_extract.evaluation.assess import PROBES
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.pipeline import access, stage
from ssl_extract.pipeline import images as selection
from ssl_extract.pipeline import surrogate as extraction
from ssl_extract.pipeline import users as legitimate
from ssl_extract.runtime import checkpoint, parallel
from ssl_extract.victims import endpoints

POSITIVE = [
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
    'evaluation.shots',
    'training.checkpoint_every',
    'training.log_every',
]
NOT_NEGATIVE = [
    'baselines.scratch_epochs',
    'data.size',
    'legitimate.test_images',
    'seed',
    'victim.seed',
]
PRICES = ['cost.dollars_per_1000_queries', 'cost.dollars_per_hour']
AUGMENTATIONS = ('victim.augmentation', 'attack.query_augmentation', 'attack.student_augmentation')


def validate(cfg: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, where: str = '') -> None:
    """Checks a run's config, its data and the shapes of its steps.

    Args:
        where: put before the message, e.g. 'runs[3]: '.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    try:
        _check_ranges(cfg)
        _check_names(cfg)
        pool = selection.load_pool(cfg)
        input_shape = pool.inputs.shape[1:]
        encoder, heads = _check_victim(cfg, input_shape, mesh)
        _check_budget(cfg, pool, mesh)
        _check_tasks(cfg, pool, encoder)
        _check_attack(cfg, encoder, heads, input_shape, pool)
        legitimate.check(cfg)
    except UserError as error:
        raise UserError(f'{where}{error}') from error


def _check_ranges(cfg: ml_collections.ConfigDict) -> None:
    for field in POSITIVE:
        if not 0 < _get(cfg, field) < float('inf'):
            raise UserError(f'{field}={_get(cfg, field)}: write a number above 0')
    for field in NOT_NEGATIVE:
        if not 0 <= _get(cfg, field) < 2**31:
            raise UserError(f'{field}={_get(cfg, field)}: write a number from 0 to {2**31 - 1}')
    for field in PRICES:
        if not 0 <= _get(cfg, field) < float('inf'):
            raise UserError(f'{field}={_get(cfg, field)}: write a number of at least 0')
    if cfg.attack.budget > MAX_BUDGET:
        raise UserError(f'attack.budget={cfg.attack.budget}: write at most {MAX_BUDGET}')


def _check_names(cfg: ml_collections.ConfigDict) -> None:
    for part in (cfg.victim, cfg.attack):
        training.OPTIMIZERS.make(part.optimizer)(0.1)
        training.SCHEDULES.make(part.schedule)
    for field in AUGMENTATIONS:
        stage.make_augmentation(_get(cfg, field))
    defenses.DEFENSES.names(cfg.defense)
    recovery.make(cfg.attack.recover)
    extraction.make_loss(cfg.attack.loss)
    _try_probe(cfg.evaluation.probe)
    if cfg.attack.encoder:
        stage.make_encoder(cfg.attack.encoder)
    plan, asked = access.plan_of(cfg), cfg.attack.query_augmentation
    if plan.stored and plan.view is None and asked != 'none':
        raise UserError(
            f'attack.query_augmentation={asked!r}: plan {cfg.attack.plan!r} asks each image as it '
            "is; write attack.plan='views(m=1)' or 'online', or attack.student_augmentation"
        )
    if plan.stored > 1 and plan.view is not None and asked == 'none':
        raise UserError(
            f'attack.plan={cfg.attack.plan!r} would ask the same image {plan.stored} times; write '
            f"attack.query_augmentation='simclr', or attack.plan='repeat(m={plan.stored})'"
        )
    strategy = strategies.make(cfg.attack.strategy)
    chooses = strategies.STRATEGIES.traits(cfg.attack.strategy).chooses
    if not plan.stored and chooses:
        raise UserError(
            f'attack.strategy={cfg.attack.strategy!r}: plan {cfg.attack.plan!r} asks views of all '
            "the attacker's images; write attack.plan='once' or 'views(m=1)'"
        )
    if strategy.rounds > 1 and min(shares := extraction.shares(cfg, strategy.rounds)) < (
        cfg.attack.batch_size
    ):
        raise UserError(
            f'attack.strategy={cfg.attack.strategy!r}: the budget pays for {sum(shares)} images, '
            f'{min(shares)} a round, fewer than attack.batch_size={cfg.attack.batch_size}'
        )


@functools.cache
def _try_probe(spec: str) -> None:
    """Fits the probe on a handful of points: whatever is wrong with its arguments shows now."""
    points = np.random.default_rng(0).normal(size=(20, 2))
    PROBES.make(spec)(points, np.arange(20) % 2, 2)


def _check_victim(cfg: ml_collections.ConfigDict, input_shape: tuple, mesh) -> tuple[str, tuple]:
    """Checks the victim's fields, or its checkpoint; returns the specs of its networks."""
    if cfg.victim.checkpoint:
        target = stage.victim(cfg, None, mesh)  # reads it, and so finds it damaged
        shape = tuple(checkpoint.read_meta(target.folder)['input_shape'])
        if shape != input_shape:
            raise UserError(
                f'victim.checkpoint={cfg.victim.checkpoint!r} was trained on images of '
                f'{_size(shape)}, the data has {_size(input_shape)}: set data.size={shape[0]}'
            )
        return target.encoder, target.heads
    dataset = selection.load_victim_images(cfg)
    _check_batch(len(dataset.inputs), cfg.victim.batch_size, 'victim.batch_size', mesh)
    if dataset.inputs.shape[1:] != input_shape:
        raise UserError(
            f'{dataset.name} has images of {_size(dataset.inputs.shape[1:])} and the attacker of '
            f'{_size(input_shape)}: set data.size'
        )
    stage.make_encoder(cfg.victim.encoder)
    recipe = stage.victim_recipe(cfg.victim.method, cfg.victim.encoder, cfg.victim.augmentation)
    _trace(recipe, cfg.victim.batch_size, input_shape, 'victim')
    return cfg.victim.encoder, recipe.heads


def _check_budget(cfg: ml_collections.ConfigDict, pool: data.Dataset, mesh) -> None:
    distinct, stored = len(pool.inputs), access.plan_of(cfg).stored
    if cfg.attack.accounts > 1:
        _check_accounts(cfg)
    size = selection.num_images(cfg, stored)
    if size > distinct:
        raise UserError(
            f'attack.budget={cfg.attack.budget}: {pool.name} has {distinct} different images and '
            f'plan {cfg.attack.plan!r} asks each {"one time" if stored == 1 else f"{stored} times"}'
            f'; write at most {distinct * stored}, a larger attack.split, or '
            "attack.plan='online'"
        )
    _check_batch(size, cfg.attack.batch_size, 'attack.batch_size', mesh)
    if cfg.baselines.scratch_epochs:
        own = len(selection.load_own(cfg).inputs)
        _check_batch(own, cfg.baselines.scratch_batch_size, 'baselines.scratch_batch_size', mesh)


def _check_accounts(cfg: ml_collections.ConfigDict) -> None:
    accounts, plan = cfg.attack.accounts, access.plan_of(cfg)
    if plan.stored != 1 or plan.view is not None or strategies.make(cfg.attack.strategy).rounds > 1:
        raise UserError(
            f"attack.accounts={accounts}: several accounts share out the images of plan 'once', "
            "chosen in one round; write attack.plan='once' and attack.strategy='random'"
        )


def _check_attack(cfg, encoder: str, heads: tuple, input_shape: tuple, pool: data.Dataset) -> None:
    endpoint = attacks.endpoint_of(cfg.attack.name)
    defenses.check_endpoint(cfg.defense, endpoint)
    if cfg.attack.recover:
        _check_recovery(cfg, encoder, endpoint, input_shape)
    if 'shadow' in defenses.needs(cfg.defense):
        shape = selection.load_victim_images(cfg).inputs.shape[1:]
        if shape != input_shape:
            raise UserError(
                f'defense={cfg.defense!r}: its owner trains a shadow on images of {_size(shape)} '
                f'(of victim.split) and the victim takes {_size(input_shape)}: set data.size'
            )
    attack = extraction.attack_of(cfg, encoder, heads, input_shape)
    needs = strategies.needs(cfg.attack.strategy)  # it would find out after it has paid
    if 'labels' in needs:
        data.require_labels(pool)
    if 'probabilities' in needs and endpoints.gives(endpoint) != 'probabilities':
        raise UserError(
            f'attack.strategy={cfg.attack.strategy!r} learns from probabilities and attack '
            f'{cfg.attack.name!r} gets a {endpoint}; attack posteriors or labels with it'
        )
    _trace(
        attack.recipe,
        cfg.attack.batch_size,
        input_shape,
        'attack',
        pool.labels is not None,
        access.answer_dim(cfg, encoder, heads, input_shape),
        max(access.plan_of(cfg).stored, 1),
        (endpoint, cfg.defense, encoder, heads, input_shape, _num_classes(cfg)),
        attack.before,
    )


def _check_recovery(cfg, encoder: str, endpoint: str, input_shape: tuple) -> None:
    if not access.plan_of(cfg).stored:
        raise UserError(
            f'attack.recover={cfg.attack.recover!r} works on stored answers and plan '
            f"{cfg.attack.plan!r} stores none; write attack.plan='once' or 'views(m=1)'"
        )
    if 'shadow' not in recovery.needs(cfg.attack.recover):
        return
    if not cfg.baselines.scratch_epochs:
        raise UserError(
            f"attack.recover={cfg.attack.recover!r} learns from the attacker's own encoder: set "
            'baselines.scratch_epochs'
        )
    if endpoints.gives(endpoint) != 'representations':
        raise UserError(
            f'attack.recover={cfg.attack.recover!r} knows representations and attack '
            f'{cfg.attack.name!r} gets a {endpoint}; attack representations with it'
        )
    own = encoders.dim(stage.make_encoder(cfg.attack.encoder or encoder), input_shape)
    theirs = encoders.dim(stage.make_encoder(encoder), input_shape)
    if own != theirs and recovery.same_width(cfg.attack.recover):
        raise UserError(
            f'attack.recover={cfg.attack.recover!r}: the answers have {theirs} coordinates and the '
            f"attacker's own encoder {own}; write an attack.encoder of that width, or ''"
        )


def _num_classes(cfg) -> int:
    return selection.load_tasks(cfg)[0].train.num_classes


def _check_tasks(cfg: ml_collections.ConfigDict, pool: data.Dataset, encoder: str) -> None:
    if not cfg.evaluation.tasks:
        raise UserError('evaluation.tasks is empty: write e.g. (\'digits(train="train")\',)')
    tasks = selection.load_tasks(cfg)
    for task in tasks:
        for dataset in (task.train, task.test):
            data.require_labels(dataset)
            if dataset.inputs.shape[1:] != pool.inputs.shape[1:]:
                raise UserError(
                    f'{dataset.name} has images of {_size(dataset.inputs.shape[1:])} and '
                    f'{pool.name} of {_size(pool.inputs.shape[1:])}: set data.size'
                )
        _check_disjoint(_ById(pool), _ById(task.test))
        count, train = len(task.train.inputs), task.train
        if cfg.evaluation.neighbors > count:
            raise UserError(
                f'evaluation.neighbors={cfg.evaluation.neighbors}: {train.name} has only {count} '
                'images'
            )
        per_class = np.bincount(train.labels, minlength=train.num_classes)
        if per_class.min() < cfg.evaluation.shots:
            raise UserError(
                f'evaluation.shots={cfg.evaluation.shots}: {train.name} has {per_class.min()} '
                f'images of class {per_class.argmin()}; write fewer, or a larger split'
            )
    specs = {encoder, cfg.attack.encoder or encoder}
    dim = max(encoders.dim(stage.make_encoder(s), pool.inputs.shape[1:]) for s in specs)
    if len(tasks[0].test.inputs) < 2 * (dim + 2):
        raise UserError(
            f'{tasks[0].test.name} has {len(tasks[0].test.inputs)} images: to compare '
            f'representations of {dim} coordinates, a test set of {2 * (dim + 2)} is needed'
        )


class _ById:
    """A data set as the key of a cache: two are the same if they are the same object."""

    def __init__(self, dataset: data.Dataset):
        self.dataset = dataset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.dataset.inputs is other.dataset.inputs

    def __hash__(self) -> int:
        return id(self.dataset.inputs)


@functools.lru_cache(maxsize=64)
def _check_disjoint(queries: _ById, test: _ById) -> None:
    data.check_disjoint(queries.dataset, test.dataset)


def _check_batch(size: int, batch_size: int, field: str, mesh) -> None:
    if batch_size > size:
        raise UserError(f'{field}={batch_size} is more than the {size} images it draws from')
    parallel.check_batch_size(batch_size, mesh, field)


@functools.cache
def _trace(
    recipe: training.Recipe,
    batch_size: int,
    input_shape: tuple,
    field: str,
    labeled: bool = False,
    dim: int = 0,
    views: int = 0,
    victim: tuple = (),
    before: training.Recipe | None = None,
) -> None:
    """Builds one training step without computing it: whatever does not fit together shows here."""

    def step(key):
        images = jnp.zeros((1, *input_shape))
        batch: dict[str, Any] = {'inputs': jnp.zeros((batch_size, *input_shape), jnp.uint8)}
        ask, account, frozen = None, (), {}
        if victim:
            asked = access.example_oracle(*victim, key)
            ask, account = asked.query, asked.init(key, images)
            batch['answers'] = jnp.zeros((batch_size, views, dim))
            batch['answered'] = jnp.ones((batch_size, views), bool)
            batch['view_seeds'] = jnp.zeros((batch_size, views), jnp.uint32)
        if labeled:
            batch['labels'] = jnp.zeros(batch_size, jnp.int32)
        loss = jnp.zeros([])
        for phase in filter(None, (before, recipe)):
            variables = phase.init(key, images)
            made, _, _ = phase.prepare(batch, key, ask, account)
            statistics = variables['batch_stats'] | frozen
            loss, _ = phase.objective(variables['params'], statistics, made)
            frozen = {name: chain.part(variables, name) for name in variables['params']}
        return loss

    try:
        loss = jax.eval_shape(step, jax.random.key(0))
    except (UserError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [''])[0]
        raise UserError(f'{field}: its training step cannot be built: {reason}') from error
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise UserError(f'{field}: its loss must be one float, not {loss.dtype}{list(loss.shape)}')


def _get(cfg: ml_collections.ConfigDict, field: str) -> Any:
    for name in field.split('.'):
        cfg = cfg[name]
    return cfg


def _size(input_shape: tuple[int, ...]) -> str:
    return f'{input_shape[0]}x{input_shape[1]}'
