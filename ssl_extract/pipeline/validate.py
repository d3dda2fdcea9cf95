"""Validation of a run before training: its parts, then each stage."""

from ssl_extract import attacks, defenses, losses, recovery, strategies, training, victims
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.evaluation import PROBES
from ssl_extract.pipeline import evaluate, feasibility, known, own
from ssl_extract.pipeline import users as users_stage
from ssl_extract.pipeline import victim as victim_stage
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import check_ranges, load_sets
from ssl_extract.pipeline.victim import make_augmentation
from ssl_extract.runtime import loggers
from ssl_extract.users import MODELS, USERS
from ssl_extract.victims.sources import SOURCES


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
        check_ranges(run, sets)
        sketch = victim_stage.sketch_of(run, sets)
        feasibility.check_victim(run, sets, sketch)
        feasibility.check_budget(run, sets)
        evaluate.check_evaluation(run, sets, sketch)
        own.check_start(run, sketch)
        feasibility.check_attack(run, sets, sketch)
        users_stage.check_users(run, sets)
        known.check_known(run, sets)
    except UserError as error:
        raise UserError(f'{where}{error}') from error


def check_fields(run: Run) -> None:
    """Checks the specs of all parts, and the ranges of their arguments; loads nothing.

    Raises:
        UserError: one line that names the part, its value and what to write instead.
    """
    c, v, a = run.config, run.config.victim, run.config.attack
    for part in (v, a):
        training.make_optimizer(part.optimizer)(0.1)
        training.SCHEDULES.make(part.schedule)
    for spec in (v.augmentation, a.query_augmentation, a.student_augmentation):
        make_augmentation(spec)
    SOURCES.make(v.source)
    victims.VICTIMS.traits(v.method)  # reads the spec; the stage makes it, with a network
    defenses.needs(c.defense)  # reads every part; the service makes it, with what it needs
    recovery.make(a.recover)
    losses.make(a.loss)
    if a.init:
        attacks.STARTS.make(a.init)
    strategies.make(a.strategy)
    for encoder in filter(None, (v.encoder, a.encoder)):
        trained.make(encoder)
    PROBES.make(c.evaluation.probe)
    for user in c.legitimate.users:
        USERS.make(user)
    MODELS.make(c.legitimate.model, probe=c.evaluation.probe, seed=c.seed)
    loggers.LOGGERS.traits_of_chain(c.training.log_to)  # reads names and arguments
    feasibility.check_plan(a)
