"""Contrastive losses by blocks of anchors: values and gradients at once, and memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ssl_extract import losses, testing
from ssl_extract.losses import blocks

pytestmark = pytest.mark.devices

NAMES = ('cont_steal', 'infonce', 'rda', 'softnn', 'supcon')
BATCH, DIM = 8, 6
WHERE = np.arange(BATCH) % 3 != 1


def test_these_are_the_losses_that_compare_rows():
    assert set(NAMES) | {'barlow'} == {  # barlow's matrix is of features
        name for name in losses.LOSSES if losses.LOSSES.traits(name).least_batch > 1
    }


def batch(rows=BATCH, dim=DIM):
    rng = np.random.default_rng(0)
    student, teacher = rng.gamma(2.0, size=(2, rows, dim)).astype(np.float32)
    return student, teacher, rng.integers(0, 3, rows)


def gradient(name, devices=1):
    """The value and the gradient of a batch that is spread over devices, under jit."""
    mesh = jax.make_mesh((devices,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    loss = losses.make(name)
    return jax.jit(
        jax.value_and_grad(lambda s, t, labels, where: loss(s, t, labels=labels, where=where)),
        in_shardings=jax.NamedSharding(mesh, jax.P('data')),
    )


@functools.cache
def at_once(name, full):
    return gradient(name)(*batch(), WHERE | full)


@pytest.mark.parametrize(
    ('name', 'devices'), [('infonce', 1), ('infonce', 2), *((name, 4) for name in NAMES)]
)
def test_blocks_give_value_and_gradient_of_all_at_once(monkeypatch, name, devices):
    expected = [at_once(name, full) for full in (True, False)]
    monkeypatch.setattr(blocks, 'COMPARISONS', 40)  # of 16 x 16 or 8 x 16: two or more anchors
    compiled = gradient(name, devices)
    assert 'while' in compiled.lower(*batch(), WHERE).as_text()
    for full, (value, grad) in zip((True, False), expected, strict=True):
        blocked, blocked_grad = compiled(*batch(), WHERE | full)
        assert_allclose(blocked, value, rtol=1e-6)
        assert_allclose(blocked_grad, grad, rtol=0, atol=2e-6 * np.abs(grad).max())


def test_the_contract_holds_by_blocks(monkeypatch):
    monkeypatch.setattr(blocks, 'COMPARISONS', 17)
    testing.check_loss('softnn')


def test_softnn_by_blocks_keeps_the_digits_of_rows_beside_far_rows(monkeypatch):
    """As at once, which the tests of the losses hold to float64."""
    student, teacher, labels = batch(rows=32, dim=512)
    teacher[:16] = np.random.default_rng(1).normal(1000, 20, (16, 512))
    where = np.ones(32, bool)
    _, expected = gradient('softnn')(student, teacher, labels, where)
    monkeypatch.setattr(blocks, 'COMPARISONS', 512)
    _, grad = gradient('softnn')(student, teacher, labels, where)
    largest = np.max(np.abs(expected), axis=1, keepdims=True)
    assert np.max(np.abs(grad - expected) / largest) < 1e-4


def test_anchors_are_in_their_order_however_they_are_cut(monkeypatch):
    sizes = []

    def loss(index, anchors):
        sizes.append(len(index))
        return index + 100 * anchors

    assert_array_equal(blocks.by_block(loss, jnp.arange(11), rows=10), 101 * np.arange(11))
    monkeypatch.setattr(blocks, 'COMPARISONS', 30)
    assert_array_equal(blocks.by_block(loss, jnp.arange(11), rows=10), 101 * np.arange(11))
    assert sizes == [11, 3]  # all at once, then four blocks of up to three


@pytest.mark.parametrize(
    ('name', 'devices'), [*((name, 1) for name in NAMES), ('infonce', 4), ('softnn', 4)]
)
def test_a_batch_of_16384_needs_no_matrix_of_the_batch(name, devices):
    """Compiled and not run; at once the losses need 2 to 8 GiB."""
    size = 16_384
    shapes = [((size, 128), jnp.float32)] * 2 + [((size,), jnp.int32), ((size,), bool)]
    example = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    memory = gradient(name, devices).lower(*example).compile().memory_analysis()
    assert 2**20 < memory.temp_size_in_bytes < size * size * 4 / (2 * devices)
