"""Validation of a run before training: numbers, names, then each stage."""

import functools
from typing import Any

from ssl_extract import (
    defenses,
    losses,
    recovery,
    training,
)
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.pipeline import evaluate, feasibility, users
from ssl_extract.pipeline import victim as victim_stage
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.pipeline.victim import make_augmentation

POSITIVE = (
    'victim.epochs',
    'victim.batch_size',
    'victim.learning_rate',
    'attack.budget',
    'attack.epochs',
    'attack.accounts',
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
    'attack.overlap',
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
        run: the run to check.
        where: the beginning of the message, e.g. 'runs[3]: '.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    try:
        check_fields(run)
        sets = load_sets(run)
        sketch = victim_stage.sketch_of(run, sets)
        feasibility.check_victim(run, sets, sketch)
        feasibility.check_budget(run, sets)
        evaluate.check_evaluation(run, sets, sketch)
        feasibility.check_attack(run, sets, sketch)
        users.check_users(run, sets)
    except UserError as error:
        raise UserError(f'{where}{error}') from error


def check_fields(run: Run) -> None:
    """Checks the ranges of all numbers and the specs of all parts.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
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
    for part in (c.victim, c.attack):
        training.OPTIMIZERS.make(part.optimizer)(0.1)
        training.SCHEDULES.make(part.schedule)
    for field in AUGMENTATIONS:
        make_augmentation(get(field))
    defenses.needs(c.defense)  # reads every part; the service makes it, with what it needs
    recovery.make(c.attack.recover)
    losses.make(c.attack.loss)
    if c.attack.encoder:
        trained.make(c.attack.encoder)
    feasibility.check_plan(c.attack)
