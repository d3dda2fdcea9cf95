"""Identity by content: what a function reads counts, wherever it lies."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import victims
from ssl_extract.fingerprint import fingerprint
from ssl_extract.identity import content_of

WEIGHTS = {'w': np.ones(3)}


class Net(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(self.width)(inputs)


@dataclasses.dataclass
class Model:
    scale: float

    def answer(self, inputs):
        return self.scale * inputs


MODEL = Net()
apply = lambda inputs: MODEL.apply(WEIGHTS, inputs)  # noqa: E731


@pytest.mark.parametrize(
    ('name', 'other'), [('WEIGHTS', {'w': np.zeros(3)}), ('MODEL', Net(width=4))]
)
def test_globals_that_a_function_reads_count(monkeypatch, name, other):
    before = content_of(apply)
    assert content_of(apply) == before
    monkeypatch.setitem(globals(), name, other)
    assert content_of(apply) != before


def test_equal_objects_are_the_same_and_others_not():
    assert content_of(Net()) == content_of(Net())
    assert content_of(Model(1.0).answer) == content_of(Model(1.0).answer)
    assert content_of(Model(1.0).answer) != content_of(Model(2.0).answer)


def test_victims_of_other_functions_have_other_addresses():
    def flax(apply, variables):
        return victims.from_flax(apply, variables, input_shape=(3,)).address

    ones = jnp.ones((3, 3))
    plain = flax(lambda v, x: x @ v, ones)
    assert flax(lambda v, x: x @ v, ones) == plain
    assert flax(lambda v, x: -x @ v, ones) != plain
    assert flax(lambda v, x: x @ v, 2 * ones) != plain


def named(inputs):
    return inputs * WEIGHTS['w']


def test_functions_without_a_name_of_their_own_are_known_by_content(monkeypatch):
    address = lambda fn: victims.from_function(fn, dim=3).address  # noqa: E731
    assert address(lambda x: x) != address(lambda x: -x)
    assert address(Model(1.0).answer) != address(Model(2.0).answer)
    assert address(functools.partial(np.add, 1)) != address(functools.partial(np.add, 2))
    before = address(named)
    monkeypatch.setitem(WEIGHTS, 'w', np.zeros(3))
    assert address(named) == before == f'{__name__}:named'


def test_large_integers_that_share_a_float_are_different_inputs():
    a, b = fingerprint(jnp.array([[2**24], [2**24 + 1]], jnp.int32))
    assert a.tolist() != b.tolist()
