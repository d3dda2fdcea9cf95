"""The count of a program's operations."""

import jax
import jax.numpy as jnp
import pytest

from ssl_extract.encoders import conv
from ssl_extract.runtime import parallel


def test_operations_of_onednns_convolutions_are_counted():
    inputs, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 16))

    def count(convolve):
        def loss(inputs, kernel):
            return jnp.sum(convolve(inputs, kernel, 1) ** 2)

        return parallel.compile_ahead(jax.jit(jax.grad(loss, (0, 1))), inputs, kernel).flops

    assert count(conv.onednn_conv) == pytest.approx(count(conv.plain_conv), rel=0.25)


def test_a_donated_argument_counts_once():
    x = jnp.ones((1024, 1024))
    program = parallel.compile_ahead(jax.jit(lambda x: x + 1, donate_argnums=0), x)
    assert program.memory == pytest.approx(4 * 2**20, rel=0.01) and program.seconds > 0
