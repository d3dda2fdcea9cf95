"""Training steps built without computing them, and batches that fit."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ssl_extract import training
from ssl_extract.encoders import chain
from ssl_extract.errors import UserError
from ssl_extract.pipeline import services
from ssl_extract.runtime import parallel


def check_batch(count: int, batch_size: int, field: str, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError, naming `field`, where `count` inputs or the devices do not make a batch.

    Args:
        count: the inputs that a batch is drawn from.
        batch_size: inputs in a batch.
        field: the field that the message names.
        mesh: the devices.
    """
    if batch_size > count:
        raise UserError(f'{field}={batch_size} is more than the {count} inputs it draws from')
    parallel.check_batch_size(batch_size, mesh, field)


@functools.cache
def check_step(
    recipe: training.Recipe,
    batch_size: int,
    input_shape: tuple[int, ...],
    field: str,
    labeled: bool = False,
    dim: int = 0,
    views: int = 0,
    service: tuple = (),
    before: training.Recipe | None = None,
    apart: bool = False,
    in_loop: bool = False,
) -> None:
    """Builds one training step without computing it, which shows parts that do not fit.

    Args:
        recipe: the recipe of the step.
        batch_size: inputs in the batch.
        input_shape: of one input.
        field: the part of the config that an error names.
        labeled: whether the batch has labels.
        dim: the width of an answer.
        views: the answers of each input.
        service: the arguments of `services.example_oracle`; empty without an oracle.
        before: the recipe of a first phase.
        apart: whether the answers of each account lie in a space of its own.
        in_loop: whether it must stand in a program of several steps.

    Raises:
        UserError: the step cannot be built, or not in a loop, or its loss is not one float.
    """
    oracle = services.example_oracle(*service) if service else None

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
        if apart:
            batch['account'] = jnp.zeros(batch_size, jnp.int32)
        loss = jnp.zeros([])
        for phase in filter(None, (before, recipe)):
            variables = phase.init(key, inputs)
            prepared, _, _ = phase.prepare(batch, key, ask, account)
            statistics = variables['batch_stats'] | frozen
            loss, _ = phase.objective(variables['params'], statistics, prepared)
            frozen = {name: chain.part(variables, name) for name in variables['params']}
        return loss

    try:
        jaxpr, loss = jax.make_jaxpr(step, return_shape=True)(jax.random.key(0), oracle)
    except (UserError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [''])[0]
        raise UserError(f'{field}: its training step cannot be built: {reason}') from error
    if in_loop:
        training.check_loop(jaxpr, jax.default_backend())
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise UserError(f'{field}: its loss must be one float, not {loss.dtype}{list(loss.shape)}')
