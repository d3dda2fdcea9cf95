"""Sends rows through a defense, batch by batch; the tests' own."""

import functools

import jax
import numpy as np

from ssl_extract import defenses


@functools.cache
def compiled(spec, head=None):
    defense = defenses.make(spec, head=head) if head else defenses.make(spec)
    step = jax.jit(
        lambda outputs, state, where, keys: defense.apply(
            outputs, state, inputs=outputs, where=where, keys=keys
        )
    )
    return defense, step


def send(spec, rows, where, batch, head=None):
    """(outputs, granted, state) after sending the rows in batches."""
    defense, step = compiled(spec, head)
    keys = jax.random.split(jax.random.key(0), len(rows))
    state = defense.init(jax.random.key(1), rows[:batch], rows[:batch])
    outputs, granted = [], []
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        acted, answered, state = step(rows[part], state, where[part], keys[part])
        outputs.append(acted)
        granted.append(answered)
    return np.concatenate(outputs), np.concatenate(granted), state
