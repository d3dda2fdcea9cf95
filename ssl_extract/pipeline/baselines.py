"""The baselines' stages: untrained, and pretrained without a victim."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from ssl_extract import data
from ssl_extract.data import Dataset
from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.ask import make_plan
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.sets import Sets, pool_order
from ssl_extract.pipeline.stage import Optimization, StageRecord, Trained
from ssl_extract.pipeline.victim import NOT_OF_SCRATCH, make_recipe, pretraining_spec


class Scratch(NamedTuple):
    """A pretraining on the attacker's inputs, without a victim.

    Attributes:
        recipe: the victim's method with the surrogate's network.
        inputs: the first inputs of the pool, in the attacker's order.
        encoder: the spec of the network.
        epochs: passes over the inputs.
        how: optimizer, schedule, learning rate and batch size.
        seed: the attacker's seed.
        spec: everything that the result depends on.
    """

    recipe: Any
    inputs: Dataset
    encoder: str
    epochs: int
    how: Optimization
    seed: int
    spec: dict[str, Any]


def scratch_of(run: Run, sets: Sets, encoder: str) -> Scratch:
    """Returns the pretraining without a victim that a config describes.

    It has as many inputs as the attacker may ask, unless the config names a number. Plan 'online'
    shows the surrogate the whole pool: there the pretraining is on the whole pool.

    Args:
        run: the run.
        sets: the run's data.
        encoder: the victim's network, where the attacker names none.
    """
    c, v = run.config, run.config.victim
    encoder = c.attack.encoder or encoder
    size = len(sets.pool.inputs)
    count = num_inputs(run, size)
    rows = pool_order(size, c.seed)[:count]
    labels = None if sets.pool.labels is None else sets.pool.labels[rows]
    batch_size, epochs = c.baselines.scratch_batch_size, c.baselines.scratch_epochs
    spec = {
        'stage': 'scratch',
        'inputs': {**sets.pool_spec, 'seed': c.seed, 'first': count},
        'encoder': encoder,
        'epochs': epochs,
        'batch_size': batch_size,
        **pretraining_spec(v.to_dict(), *NOT_OF_SCRATCH),
    }
    return Scratch(
        make_recipe(v.method, encoder, v.augmentation),
        sets.pool._replace(inputs=data.take(sets.pool.inputs, rows), labels=labels),
        encoder,
        epochs,
        Optimization(v.optimizer, v.schedule, v.learning_rate, batch_size),
        c.seed,
        spec,
    )


def num_inputs(run: Run, size: int) -> int:
    """Returns how many inputs the pretraining without a victim has, of a pool of `size`."""
    a, count = run.config.attack, run.config.baselines.scratch_inputs
    if not count and make_plan(a.plan, a.query_augmentation).stored:
        count = a.budget
    return min(size, count or size)


def pretrain_scratch(workspace: Workspace, scratch: Scratch) -> Trained:
    """Pretrains on the attacker's inputs: the baseline that stealing must beat.

    Args:
        workspace: where results are kept.
        scratch: the pretraining.

    Returns:
        The encoder and the record of its stage; a finished stage is read.
    """
    inputs = scratch.inputs.inputs

    def train(folder: epath.Path) -> Trained:
        return stage.fit_encoder(
            workspace,
            folder,
            scratch.recipe,
            {'inputs': inputs},
            role='scratch',
            encoder=scratch.encoder,
            seed=scratch.seed,
            num_steps=scratch.epochs * (len(inputs) // scratch.how.batch_size),
            how=scratch.how,
            decode=data.decoder(scratch.inputs),
        )

    form = stage.encoder_form(workspace, 'scratch')
    return stage.cached(workspace, 'scratch', scratch.spec, train, form)


def untrained(
    workspace: Workspace, encoder: str, input_shape: tuple[int, ...], seed: int
) -> Trained:
    """Returns the surrogate's network, untrained, initialized from role and seed.

    Args:
        workspace: names the address of the stage.
        encoder: the spec of the network.
        input_shape: of one input.
        seed: the attacker's seed.
    """
    spec = untrained_spec(encoder, input_shape, seed)
    key = jax.random.key(stage.seed_of('random', seed))
    variables = trained.make(encoder).init(key, jnp.zeros((1, *input_shape)))
    record = StageRecord('random', stage.address(workspace, spec))
    return Trained(Encoder(encoder, variables, input_shape), record)


def untrained_spec(encoder: str, input_shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Returns what an untrained encoder depends on.

    Args:
        encoder: the spec of the network.
        input_shape: the shape of one input.
        seed: the attacker's seed.
    """
    return {'stage': 'random', 'encoder': encoder, 'seed': seed, 'shape': input_shape}
