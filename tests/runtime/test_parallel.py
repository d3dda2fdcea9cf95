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

        return parallel.count_flops(jax.jit(jax.grad(loss, (0, 1))), inputs, kernel)

    assert count(conv.onednn_conv) == pytest.approx(count(conv.plain_conv), rel=0.25)
