"""The losses against reference values, independent formulas, and the contract they all keep."""

import functools
import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import wasserstein_distance

from ssl_extract import losses, testing
from ssl_extract.errors import UserError
from ssl_extract.registry import registered_by

HERE = pathlib.Path(__file__).parent.parent
NAMES = sorted(losses.LOSSES)
BATCH, DIM = 8, 6
FULL = np.ones(BATCH, bool)


@functools.cache
def runner(spec: str):
    """The compiled value and gradient; cached, so that the tests share compilations."""
    loss = losses.make(spec)
    return compiled(lambda s, t, labels, where: loss(s, t, labels=labels, where=where))


def compiled(loss):
    """Value and gradient under jit, without the optimization that takes most of its time."""
    options = {'xla_backend_optimization_level': 0}
    return jax.jit(jax.value_and_grad(loss), compiler_options=options)


def batch(seed: int = 0, rows: int = BATCH, dim: int = DIM):
    """Non-negative representations of both, as pooled ReLU features are, and labels."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.gamma(2.0, size=(2, rows, dim)).astype(np.float32)
    return student, teacher, rng.integers(0, 3, rows)


def assert_same(actual, expected, rtol=1e-5):
    """Equal to `rtol` of the largest entry."""
    assert_allclose(actual, expected, rtol=0, atol=rtol * np.max(np.abs(expected)) + 1e-7)


# Reference values (tests/golden). float32 on both sides: the last digits differ.

GOLDEN = {
    'mse': (lambda case: losses.mse(), 0.0),
    'infonce': (lambda case: losses.infonce(float(case['temperature'])), 0.0),
    'softnn': (lambda case: losses.softnn(float(case['temperature_softnn'])), 0.0),
    'wasserstein': (lambda case: losses.wasserstein(), 0.0),
    'bce': (lambda case: losses.bce(), 0.0),
    'softce_logits': (lambda case: losses.softce(), 0.0),
    'supcon': (lambda case: losses.supcon(float(case['temperature'])), 0.0),
    'neg_cosine': (lambda case: losses.cosine(), -1.0),  # ours is 1 - cosine
}


@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('name', GOLDEN)
def test_golden(name, number):
    case = np.load(HERE / 'golden' / f'case{number}.npz')
    factory, offset = GOLDEN[name]
    loss = functools.partial(factory(case), labels=case['labels'])
    value, grad = compiled(loss)(case['stolen'], case['victim'])
    assert_allclose(value + offset, case[name], rtol=2e-6)
    assert_same(grad, case[f'{name}_grad'], rtol=2e-6)


@pytest.mark.parametrize('number', [0, 1])
def test_golden_barlow_formula(number):
    """The reference correlates [S; V] with [S2; V2]; its gradient is of S alone."""
    case = np.load(HERE / 'golden' / f'case{number}.npz')
    first = np.concatenate([case['stolen'], case['victim']])
    second = np.concatenate([case['stolen2'], case['victim2']])
    value, grad = compiled(losses.barlow())(first, second)
    assert_allclose(value, case['barlow'], rtol=2e-6)
    assert_same(grad[: len(case['stolen'])], case['barlow_grad'], rtol=2e-6)


# Independent formulas, NumPy in float64.


def paired(student, teacher):
    rows = np.concatenate([student, teacher]).astype(np.float64)
    return rows, np.roll(np.arange(len(rows)), len(student))


def mean_pair_loss(logits, pair):
    np.fill_diagonal(logits, -np.inf)
    return np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(pair)), pair])


def infonce(student, teacher, temperature):
    rows, pair = paired(student, teacher)
    return mean_pair_loss((1 - cdist(rows, rows, 'cosine')) / temperature, pair)


def softnn(student, teacher, temperature):
    rows, pair = paired(student, teacher)
    return mean_pair_loss(-cdist(rows, rows, 'sqeuclidean') / temperature, pair)


@pytest.mark.parametrize('temperature', [0.01, 0.07, 1.0, 100.0])
def test_infonce_formula(temperature):
    student, teacher, _ = batch()
    value = losses.make(f'infonce({temperature})')(student, teacher)
    assert_allclose(value, infonce(student, teacher, temperature), rtol=1e-5)


def test_infonce_is_ntxent_of_optax():
    student, teacher, _ = batch()
    rows, labels = jnp.concatenate([student, teacher]), jnp.tile(jnp.arange(BATCH), 2)
    expected = jax.jit(optax.losses.ntxent)(rows, labels, 0.07)
    assert_allclose(losses.infonce(0.07)(student, teacher), expected, rtol=1e-5)


@pytest.mark.parametrize('temperature', [0.1, 100.0, 1e4])
def test_softnn_formula(temperature):
    student, teacher, _ = batch()
    value = losses.make(f'softnn({temperature})')(student, teacher)
    assert_allclose(value, softnn(student, teacher, temperature), rtol=1e-5)


def test_softnn_of_far_rows_has_value_and_gradient():
    """Distances of 1e6 at temperature 100: exp(-D / t) is 0 even in float64."""
    student, teacher, _ = batch()
    value, grad = runner('softnn')(1e3 * student, 1e3 * teacher, None, FULL)
    assert_allclose(value, softnn(1e3 * student, 1e3 * teacher, 100), rtol=1e-5)
    assert np.all(np.isfinite(grad)) and np.all(np.any(grad != 0, axis=1))


def test_softnn_keeps_its_digits_under_a_common_offset():
    student, teacher, _ = batch()
    shifted = runner('softnn(1.0)')(1e3 + student, 1e3 + teacher, None, FULL)
    plain = runner('softnn(1.0)')(student, teacher, None, FULL)
    assert_allclose(shifted[0], plain[0], rtol=1e-3)
    assert_same(shifted[1], plain[1], rtol=1e-3)


def softnn_gradient(student, teacher, temperature=100.0):
    """The gradient by the student in float64: of log-sum-exp minus the pair's logit."""
    rows, pair = paired(student, teacher)
    logits = -cdist(rows, rows, 'sqeuclidean') / temperature
    np.fill_diagonal(logits, -np.inf)
    weights = softmax(logits, axis=1)
    weights[np.arange(len(pair)), pair] -= 1
    weights = -2 / temperature / len(rows) * (weights + weights.T)
    return (weights.sum(axis=1, keepdims=True) * rows - weights @ rows)[: len(student)]


@pytest.mark.parametrize('replaced', [2, 16, 32])
def test_softnn_beside_answers_around_1000_has_the_gradient_of_float64(replaced):
    """A guard replaces some answers by N(1000, 20^2); the other rows keep their digits."""
    student, teacher, _ = batch(rows=32, dim=512)
    far = np.random.default_rng(1).normal(1000, 20, (replaced, 512))
    teacher[:replaced] = far
    _, grad = compiled(losses.softnn())(student, teacher)
    expected = softnn_gradient(student, teacher)
    largest = np.max(np.abs(expected), axis=1, keepdims=True)
    assert np.max(np.abs(grad - expected) / largest) < 1e-4


@pytest.mark.parametrize(('temperature', 'base'), [(0.07, 0.07), (0.5, 0.1)])
def test_supcon_formula(temperature, base):
    student, teacher, labels = batch()
    rows, _ = paired(student, teacher)
    labels2 = np.tile(labels, 2)
    logits = (1 - cdist(rows, rows, 'cosine')) / temperature
    np.fill_diagonal(logits, -np.inf)
    terms = []
    for i, label in enumerate(labels2):
        positives = [j for j in np.flatnonzero(labels2 == label) if j != i]
        terms.append(np.mean(log_softmax(logits, axis=1)[i, positives]))
    value = losses.supcon(temperature, base)(student, teacher, labels=labels)
    assert_allclose(value, -temperature / base * np.mean(terms), rtol=1e-5)


def test_supcon_of_distinct_labels_is_infonce():
    student, teacher, _ = batch()
    value, grad = runner('supcon')(student, teacher, np.arange(BATCH), FULL)
    expected, expected_grad = runner('infonce')(student, teacher, np.arange(BATCH), FULL)
    assert_allclose(value, expected, rtol=1e-6)
    assert_same(grad, expected_grad)


def test_wasserstein_formula():
    student, teacher, _ = batch()
    index = np.arange(DIM)
    rows = zip(student, teacher, strict=True)
    expected = np.mean([wasserstein_distance(index, index, s, t) for s, t in rows])
    value = losses.wasserstein()(student, teacher)
    assert_allclose(value, expected, rtol=1e-5)


def test_wasserstein_counts_the_steps_that_mass_has_to_move():
    student, teacher = np.eye(5, dtype=np.float32)[[0, 1]], np.eye(5, dtype=np.float32)[[3, 1]]
    assert_allclose(losses.wasserstein()(student, 7 * teacher), 1.5)  # 3 steps and none


def test_mse_cosine_bce_by_hand():
    student, teacher = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [-2.0, 0.0]])
    assert_allclose(losses.mse()(student, teacher), (9 + 4 + 9 + 0) / 4)
    assert_allclose(losses.cosine()(student, teacher), 1 - (0.8 - 1) / 2, rtol=1e-6)
    logistic = lambda x: np.log1p(np.exp(-x))  # noqa: E731
    expected = (logistic(-3) + logistic(4) + logistic(-1) + logistic(0)) / 4  # targets 0 1 0 0
    assert_allclose(losses.bce()(student, teacher), expected, rtol=1e-6)


@pytest.mark.parametrize('temperature', [1.0, 0.1])
def test_softce_formula_and_its_minimum_at_the_teacher(temperature):
    student, teacher, _ = batch()
    target = softmax(teacher.astype(np.float64) / temperature, axis=1)
    expected = -np.mean(np.sum(target * log_softmax(student.astype(np.float64), axis=1), axis=1))
    value = losses.make(f'softce({temperature})')(student, teacher)
    assert_allclose(value, expected, rtol=1e-5)
    slope = jax.grad(losses.softce(temperature))(teacher / temperature, teacher)
    assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.parametrize('lambda_', [0.0, 0.0051, 1.0])
def test_barlow_formula(lambda_):
    student, teacher, _ = batch()
    correlation = np.corrcoef(student, teacher, rowvar=False)[:DIM, DIM:]  # no epsilon
    diagonal = np.diag(correlation)
    expected = np.sum((diagonal - 1) ** 2)
    expected += lambda_ * (np.sum(correlation**2) - np.sum(diagonal**2))
    value = losses.make(f'barlow({lambda_})')(student, teacher)
    assert_allclose(value, expected, rtol=1e-4)


def test_barlow_compares_the_student_with_the_teacher():
    """A student whose rows are in another order than the teacher's is worse than one that fits."""
    _, teacher, _ = batch()
    fits = losses.barlow()(teacher, teacher)
    wrong = losses.barlow()(np.roll(teacher, 1, axis=0), teacher)
    assert wrong > 2 * fits


# The contract, on every registered loss.


@pytest.mark.parametrize('name', NAMES)
def test_contract(name):
    testing.check_loss(name)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kept', [1, 5])
def test_where_is_the_batch_of_the_other_rows(name, kept):
    student, teacher, labels = batch(seed=kept)
    where = np.random.default_rng(kept).permutation(BATCH) < kept
    alone, alone_grad = runner(name)(student[where], teacher[where], labels[where], FULL[:kept])
    for fill in (0.0, -3.0, 1e4, np.inf, np.nan):
        s, t = (np.where(where[:, None], x, np.float32(fill)) for x in (student, teacher))
        value, grad = runner(name)(s, t, labels, where)
        assert_allclose(value, alone, rtol=1e-5, atol=1e-6)
        assert_same(grad[where], alone_grad)
        assert_array_equal(grad[~where], 0)


@pytest.mark.parametrize('name', NAMES)
def test_no_row_left_gives_zero(name):
    student, teacher, labels = batch()
    for fill in (student, np.full_like(student, np.nan)):
        value, grad = runner(name)(fill, teacher, labels, ~FULL)
        assert value == 0
        assert_array_equal(grad, 0)


@pytest.mark.parametrize('name', NAMES)
def test_where_none_is_all_and_jit_is_eager(name):
    student, teacher, labels = batch()
    compiled, _ = runner(name)(student, teacher, labels, FULL)
    eager = losses.make(name)(student, teacher, labels=labels)
    assert_allclose(compiled, eager, rtol=1e-6)
    assert eager.dtype == jnp.float32 and eager.shape == ()


@pytest.mark.parametrize('name', NAMES)
def test_order_of_rows_does_not_matter(name):
    student, teacher, labels = batch()
    value, grad = runner(name)(student, teacher, labels, FULL)
    order = np.random.default_rng(0).permutation(BATCH)
    other, other_grad = runner(name)(student[order], teacher[order], labels[order], FULL)
    assert_allclose(other, value, rtol=1e-5)
    assert_same(other_grad, grad[order])


@pytest.mark.parametrize('name', NAMES)
def test_gradient_is_finite_at_the_teacher_and_at_zero_rows(name):
    student, teacher, labels = batch()
    dead = student * (np.arange(BATCH) % 2)[:, None]
    zero = np.zeros_like(student)
    constant = np.ones_like(student)
    for s, t in [(teacher, teacher), (dead, teacher), (zero, teacher), (dead, dead)] + [
        (student, zero),
        (zero, zero),
        (constant, constant),
        (1e-3 * student, 1e3 * teacher),
    ]:
        value, grad = runner(name)(s, t, labels, FULL)
        assert np.isfinite(value) and np.all(np.isfinite(grad))
        assert np.max(np.abs(grad)) < 1e6


@pytest.mark.parametrize('name', NAMES)
def test_the_gradient_at_the_teacher_is_zero_where_the_loss_has_its_minimum(name):
    """A minimum: no small step lowers the loss. Rounding must not give the slope of a norm."""
    student, teacher, labels = batch(seed=3)
    value, grad = runner(name)(teacher, teacher, labels, FULL)
    assert np.all(np.isfinite(grad))
    for direction in np.random.default_rng(2).normal(size=(8, BATCH, DIM)).astype(np.float32):
        if runner(name)(teacher + 5e-4 * direction, teacher, labels, FULL)[0] < value:
            return  # no minimum: a contrastive loss, or one of targets made from the teacher
    assert name in {'cosine', 'l1_cosine', 'l2', 'mse', 'softce', 'symmetrized', 'wasserstein'}
    assert_allclose(grad, 0, atol=1e-6)


def test_losses_with_their_minimum_at_the_teacher():
    """Wide rows too, and for rows that another program rounded otherwise."""
    rng = np.random.default_rng(0)
    teacher = rng.gamma(2.0, size=(BATCH, 512)).astype(np.float32)
    nearly = teacher * (1 + np.float32(2e-7) * rng.choice([-1, 1], teacher.shape))
    for loss in (losses.mse(), losses.l2(), losses.cosine(), losses.wasserstein()):
        for rows in (teacher, nearly.astype(np.float32)):
            value, grad = compiled(loss)(rows, teacher)
            assert_allclose(value, 0, atol=1e-6)
            assert_allclose(grad, 0, atol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_nan_in_a_row_that_counts_is_not_hidden(name):
    student, teacher, labels = batch()
    bad = np.where(np.arange(BATCH)[:, None] == 2, np.float32(np.nan), student)
    assert np.isnan(runner(name)(bad, teacher, labels, FULL)[0])
    assert np.isnan(runner(name)(teacher, bad, labels, FULL)[0])


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_is_computed_in_float32(name):
    student, teacher, labels = batch()
    half = jnp.asarray(student, jnp.bfloat16), jnp.asarray(teacher, jnp.bfloat16)
    value = losses.make(name)(*half, labels=labels)
    expected, _ = runner(name)(*(np.asarray(x, np.float32) for x in half), labels, FULL)
    assert value.dtype == jnp.float32
    assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_gradient_is_the_slope(name):
    """Central differences in five directions; a step this small crosses no kink of this batch."""
    student, teacher, labels = batch(seed=10)
    where = np.arange(BATCH) != 3
    _, grad = runner(name)(student, teacher, labels, where)
    for direction in np.random.default_rng(1).normal(size=(5, BATCH, DIM)).astype(np.float32):
        up, down = (
            runner(name)(student + step * direction, teacher, labels, where)[0]
            for step in (2e-3, -2e-3)
        )
        slope = (float(up) - float(down)) / 4e-3
        assert_allclose(slope, np.vdot(grad, direction), rtol=1e-2, atol=1e-3)


@pytest.mark.devices
@pytest.mark.parametrize('name', NAMES)
def test_four_devices_give_what_one_gives(name):
    """Of one row each: the batch is that of all devices, and no row is alone."""
    student, teacher, labels = batch(rows=4)
    where = np.arange(4) != 2
    value, grad = runner(name)(student, teacher, labels, where)
    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P('data'))
    spread = jax.device_put((student, teacher, labels, where), rows)
    value4, grad4 = runner(name)(*spread)
    assert len(spread[0].sharding.device_set) == 4
    assert_allclose(value4, value, rtol=1e-5)
    assert_same(grad4, grad)


SCALE_FREE = ('cont_steal', 'cosine', 'infonce', 'l2', 'supcon', 'symmetrized', 'wasserstein')


@pytest.mark.parametrize('name', [*SCALE_FREE, 'barlow', 'rda'])
@pytest.mark.parametrize('scale', [1e-20, 1e19])
def test_scales_whose_squares_float32_does_not_hold_change_nothing(name, scale):
    student, teacher, labels = batch()
    scale, other = np.float32(scale), np.float32(1.0 if name == 'rda' else scale)  # prototypes
    value, grad = runner(name)(student, teacher, labels, FULL)
    scaled, scaled_grad = runner(name)(scale * student, other * teacher, labels, FULL)
    assert_allclose(scaled, value, rtol=1e-4)
    assert_same(scale.astype(float) * scaled_grad, grad, rtol=1e-4)
    if name == 'rda':
        longer, _ = runner(name)(student, np.float32(1e19) * teacher, labels, FULL)
        assert_allclose(longer, value, rtol=1e-5)


@pytest.mark.parametrize('name', [*SCALE_FREE, 'rda'])
def test_scale_does_not_matter(name):
    student, teacher, labels = batch()
    value, grad = runner(name)(student, teacher, labels, FULL)
    scales = np.logspace(-6, 6, BATCH, dtype=np.float32)[:, None]
    scaled, scaled_grad = runner(name)(scales * student, 100 * teacher, labels, FULL)
    assert_allclose(scaled, value, rtol=1e-5)
    assert_same(scales * scaled_grad, grad)


@pytest.mark.parametrize('name', NAMES)
def test_a_loss_that_learns_nothing_from_one_row_says_so(name):
    """Of one row, a loss that compares rows is a constant: its trait says two."""
    student, teacher, labels = batch(rows=2)
    _, grad = runner(name)(student[:1], teacher[:1], labels[:1], FULL[:1])
    teaches = 1 if np.max(np.abs(grad)) > 1e-6 else 2
    assert losses.LOSSES.traits(name).least_batch == (2 if name == 'rda' else teaches)
    _, grad = runner(name)(student, teacher, np.arange(2), FULL[:2])
    assert np.max(np.abs(grad)) > 1e-5


# Wrong input.


@pytest.mark.parametrize(
    ('spec', 'part'),
    [
        *((f'{name}(temperature={value})', f'must be a finite number above 0, got {value}')
          for name in ('infonce', 'softnn', 'supcon', 'softce', 'cont_steal', 'rda')
          for value in ('0', '-0.1', "'a'", 'None', 'True', '1e999')),
        ('supcon(base_temperature=0)', 'base_temperature must be a finite number above 0, got 0'),
        ('barlow(lambda_=-1)', 'lambda_ must be a finite number of at least 0, got -1'),
        ('rda(alpha=-1)', 'alpha must be a finite number of at least 0, got -1'),
        ("rda(beta='a')", "beta must be a finite number of at least 0, got 'a'"),
        ('cross_entropy(1)', 'it takes ()'),
        ('infonce(temprature=1)', 'it takes (temperature: float above 0 = 0.07)'),
        ('mse(1)', 'it takes ()'),
        ('inofnce', "did you mean 'infonce'? known are barlow, bce, cont_steal, cosine"),
    ],
)  # fmt: skip
def test_wrong_spec_ends_in_one_line(spec, part):
    with pytest.raises(UserError) as caught:
        losses.make(spec)
    assert part.replace('1e999', 'inf') in str(caught.value) and '\n' not in str(caught.value)


def test_supcon_without_labels_stops_at_trace_time():
    with pytest.raises(UserError, match='supcon needs the labels'):
        jax.eval_shape(losses.supcon(), *np.ones((2, 4, 3)))
    with pytest.raises(UserError, match=r'labels must have shape \[4\], got \[3\]'):
        losses.supcon()(*np.ones((2, 4, 3)), labels=np.arange(3))


@pytest.mark.parametrize('name', NAMES)
def test_shapes_that_do_not_fit_stop_instead_of_broadcasting(name):
    loss = functools.partial(losses.make(name), labels=np.zeros(4, int))
    for student, teacher in [((4, 3), (4, 1)), ((4, 3), (1, 3)), ((4,), (4,)), ((4, 3, 1),) * 2]:
        with pytest.raises(UserError, match='of one shape'):
            loss(np.ones(student), np.ones(teacher))
    with pytest.raises(UserError, match=r'must be \[4\], got \[4, 1\]'):
        loss(np.ones((4, 3)), np.ones((4, 3)), where=np.ones((4, 1), bool))


# Losses of others.


def test_loss_of_a_third_party(tmp_path, monkeypatch, registries_restored):
    """The page's example, saved as a module of the user's own, works by name."""
    page = (HERE.parent / 'docs' / 'how_to/add_a_loss.md').read_text()
    (example,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert len(example.splitlines()) < 25
    (tmp_path / 'my_losses.py').write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'my_losses', raising=False)
    module = importlib.import_module('my_losses')
    assert registered_by('my_losses') == {'huber'}
    loss = losses.make('huber(delta=0.5)')
    losses.check(loss)
    student, teacher = np.array([[0.2, 3.0]]), np.zeros((1, 2))
    assert_allclose(loss(student, teacher), (0.02 + 0.5 * (3.0 - 0.25)) / 2, rtol=1e-6)
    assert_allclose(module.huber(0.5)(student, teacher), loss(student, teacher))
    with pytest.raises(UserError, match=r'it takes \(delta: float above 0 = 1.0\)'):
        losses.make('huber(dleta=0.5)')


def ignores_where(student, teacher, *, labels=None, where=None):
    return jnp.mean(jnp.square(student - teacher), dtype=jnp.float32)


def keeps_refused_rows_as_negatives(student, teacher, *, labels=None, where=None):
    student, teacher, where = losses.prepare(student, teacher, where)
    logits = student @ teacher.T  # a zeroed row still adds exp(0) to every sum
    return losses.masked_mean(jax.nn.logsumexp(logits, axis=-1) - jnp.diag(logits), where)


def lets_nan_through_the_gradient(student, teacher, *, labels=None, where=None):
    where = jnp.ones(len(student), bool) if where is None else where
    squares = jnp.sum(jnp.square(student - teacher), axis=-1, dtype=jnp.float32)
    return losses.masked_mean(jnp.sqrt(squares), where)


def returns_one_value_per_row(student, teacher, *, labels=None, where=None):
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def stays_in_bfloat16(student, teacher, *, labels=None, where=None):
    return jnp.mean(jnp.square(student - teacher))


def divides_by_no_rows(student, teacher, *, labels=None, where=None):
    student, teacher, where = losses.prepare(student, teacher, where)
    return jnp.sum(jnp.square(student - teacher)) / jnp.sum(where)


def has_no_slope_at_the_teacher(student, teacher, *, labels=None, where=None):
    student, teacher, where = losses.prepare(student, teacher, where)
    teacher = jnp.where(where[:, None], teacher, 1.0)  # no other clause sees two equal rows
    squares = jnp.sum(jnp.square(student - teacher), axis=-1)
    return losses.masked_mean(jnp.sqrt(squares), where)


@pytest.mark.parametrize(
    ('loss', 'clause'),
    [
        (ignores_where, 'its value is that of the rows left in'),
        (keeps_refused_rows_as_negatives, 'its value is that of the rows left in'),
        (lets_nan_through_the_gradient, 'gradient of the rows left out is zero'),
        (returns_one_value_per_row, r'float32 \[\]: it made float32 \[6\]'),
        (stays_in_bfloat16, r'of bfloat16 it makes float32 \[\]: it made bfloat16'),
        (divides_by_no_rows, 'with no row left in'),
        (has_no_slope_at_the_teacher, 'where student and teacher are equal, its gradient'),
    ],
)
def test_check_finds_what_a_loss_breaks(loss, clause):
    with pytest.raises(UserError, match=clause):
        losses.check(loss)
