"""Stages: what they share and what they must not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.encoders import trained
from ssl_extract.pipeline import stage


def test_with_one_seed_no_two_roles_start_alike():
    network = trained.make('resnet18(stem="patch", width=4, stages=(1,))')
    starts = [
        network.init(jax.random.key(stage.seed_of(role, 3)), jnp.zeros((1, 8, 8, 3)))
        for role in ('victim', 'surrogate', 'scratch', 'random')
    ]
    for one, other in itertools.combinations(starts, 2):
        kernels = [variables['params']['stem']['kernel'] for variables in (one, other)]
        correlation = np.corrcoef(*(np.ravel(kernel) for kernel in kernels))[0, 1]
        assert abs(correlation) < 0.5
