"""Memory that is kept between the steps of a training."""

import os
import subprocess
import sys

PROGRAM = """
import resource
import jax.numpy as jnp
from ssl_extract.runtime import parallel


def step(state, inputs):
    return state + 1, jnp.sin(inputs @ jnp.ones((2, 64)) * state).sum()


step = parallel.compile_step(step, parallel.data_mesh())
state, inputs = jnp.zeros([]), jnp.ones((2**16, 2))  # 16 MB at a time
faults = []
for _ in range(40):
    state, value = step(state, inputs)
    value.block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[-1] - faults[-9]) / 8)
"""


def faults_per_step(**given):
    env = os.environ | {'XLA_FLAGS': '--xla_backend_optimization_level=0'} | given  # one device
    return float(subprocess.check_output([sys.executable, '-c', PROGRAM], env=env))


def test_a_step_takes_no_new_memory_from_the_kernel_unless_the_user_has_settings():
    assert faults_per_step() < 1000
    assert faults_per_step(MALLOC_TOP_PAD_='0') > 3000
