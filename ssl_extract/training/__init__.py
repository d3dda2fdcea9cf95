"""Training of victims, surrogates and baselines."""

from ssl_extract.training.dispatch import check_loop
from ssl_extract.training.loop import (
    batch_rows,
    batches_of,
    epoch_order,
    fit,
    init_state,
    make_init,
    make_step,
)
from ssl_extract.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    make_optimizer,
    register_optimizer,
    register_schedule,
)
from ssl_extract.training.recipe import Fit, Recipe, TrainState
from ssl_extract.training.replicas import Replica, fit_together

__all__ = [
    'OPTIMIZERS',
    'SCHEDULES',
    'Fit',
    'Recipe',
    'Replica',
    'TrainState',
    'batch_rows',
    'batches_of',
    'check_loop',
    'epoch_order',
    'fit',
    'fit_together',
    'init_state',
    'make_init',
    'make_optimizer',
    'make_step',
    'register_optimizer',
    'register_schedule',
]
