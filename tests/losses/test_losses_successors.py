"""symmetrized, cont_steal, rda and cross_entropy against their papers' formulas, term by term.

The contract that all losses keep is in test_losses.py, which takes every registered name.
"""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ssl_extract import losses

HERE = pathlib.Path(__file__).parent.parent
NAMES = ('symmetrized', 'cont_steal', 'rda', 'cross_entropy')
BATCH, DIM = 7, 5
LEFT = np.array([True, False, True, True, False, True, True])


def batch(seed: int = 0, rows: int = BATCH, dim: int = DIM):
    """Rows of both signs; the teacher's are means of three unit rows, as RDA's prototypes are."""
    rng = np.random.default_rng(seed)
    answers = rng.normal(size=(3, rows, dim))
    answers /= np.linalg.norm(answers, axis=-1, keepdims=True)
    return rng.normal(size=(rows, dim)).astype(np.float32), answers.mean(0).astype(np.float32)


def value_and_grad(name: str, student, teacher, where=None):
    loss = losses.make(name)
    return jax.jit(jax.value_and_grad(lambda s: loss(s, teacher, where=where)))(
        jnp.asarray(student, jnp.float32)
    )


# The papers' formulas in float64: sums over indices, one pair at a time.


def dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def length(a):
    return math.sqrt(dot(a, a))


def cos(a, b):
    return dot(a, b) / (length(a) * length(b))


def unit(a):
    return [float(x) / length(a) for x in a]


def symmetrized(student, teacher):
    return -sum(cos(p, z) for p, z in zip(student, teacher, strict=True)) / len(student)


def cont_steal(student, teacher, t):
    total = 0.0
    for i, anchor in enumerate(student):
        to_answers = sum(math.exp(cos(anchor, answer) / t) for answer in teacher)
        to_itself = sum(math.exp(cos(anchor, row) / t) for k, row in enumerate(student) if k != i)
        total -= math.log(math.exp(cos(anchor, teacher[i]) / t) / (to_answers + to_itself))
    return total / len(student)


def rda(student, prototypes, t, alpha, beta):
    student, total = [unit(row) for row in student], 0.0
    for i, (x, y) in enumerate(zip(student, prototypes, strict=True)):
        others = [k for k in range(len(student)) if k != i]
        negatives = sum(math.exp(dot(x, prototypes[k]) / t) for k in others)
        negatives += sum(math.exp(dot(x, student[k]) / t) for k in others)
        contrast = -math.log(math.exp(dot(x, y) / t) / negatives)
        gap = [a - float(b) for a, b in zip(x, y, strict=True)]
        align = -math.log((cos(x, y) + 1) / dot(gap, gap))
        total += alpha * contrast + beta * align
    return total / len(student)


def cross_entropy(student, teacher):
    total = 0.0
    for logits, target in zip(student, teacher, strict=True):
        normalizer = math.log(sum(math.exp(float(logit)) for logit in logits))
        for logit, weight in zip(logits, target, strict=True):
            total -= float(weight) * (float(logit) - normalizer)
    return total / len(student)


def test_symmetrized_formula():
    student, teacher = batch()
    value = losses.symmetrized()(student, teacher)
    assert_allclose(value, symmetrized(student, teacher), rtol=1e-6)


@pytest.mark.parametrize('number', [0, 1])
def test_symmetrized_is_the_references_negative_cosine(number):
    case = np.load(HERE / 'golden' / f'case{number}.npz')
    value, grad = value_and_grad('symmetrized', case['stolen'], case['victim'])
    assert_allclose(value, case['neg_cosine'], rtol=2e-6)
    assert_allclose(grad, case['neg_cosine_grad'], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('t', [0.05, 0.5, 3.0])
def test_cont_steal_formula(t):
    student, teacher = batch()
    value = losses.make(f'cont_steal({t})')(student, teacher)
    assert_allclose(value, cont_steal(student, teacher, t), rtol=1e-5)


@pytest.mark.parametrize('t', [0.07, 1.0])
@pytest.mark.parametrize(('alpha', 'beta'), [(1.0, 1.0), (0.0, 2.0), (3.0, 0.0), (0.5, 0.25)])
def test_rda_formula(t, alpha, beta):
    student, teacher = batch()
    value = losses.make(f'rda({t}, alpha={alpha}, beta={beta})')(student, teacher)
    assert_allclose(value, rda(student, teacher, t, alpha, beta), rtol=1e-5)


def test_rda_defaults():
    student, teacher = batch()
    assert_allclose(losses.rda()(student, teacher), rda(student, teacher, 0.07, 1, 1), rtol=1e-5)


def test_cross_entropy_formula():
    student, teacher = batch()
    teacher = np.square(teacher) / np.sum(np.square(teacher), axis=1, keepdims=True)
    value = losses.cross_entropy()(student, teacher)
    assert_allclose(value, cross_entropy(student, teacher), rtol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_rows_left_out_are_not_in_the_formula(name):
    formula = {
        'symmetrized': symmetrized,
        'cont_steal': lambda s, t: cont_steal(s, t, 0.5),
        'rda': lambda s, t: rda(s, t, 0.07, 1.0, 1.0),
        'cross_entropy': cross_entropy,
    }[name]
    student, teacher = batch()
    expected = formula(student[LEFT], teacher[LEFT])
    value, grad = value_and_grad(name, np.where(LEFT[:, None], student, np.nan), teacher, LEFT)
    assert_allclose(value, expected, rtol=1e-5)
    assert_array_equal(grad[~LEFT], 0)
    assert np.all(np.any(grad[LEFT] != 0, axis=1))


# Closed forms.


def test_symmetrized_by_hand():
    student, teacher = np.array([[3.0, 4.0], [2.0, 0.0]]), np.array([[0.0, 5.0], [-7.0, 0.0]])
    assert_allclose(losses.symmetrized()(student, teacher), -(0.8 - 1.0) / 2, rtol=1e-6)
    assert_allclose(losses.symmetrized()(student, student), -1.0, rtol=1e-6)
    assert losses.symmetrized()(np.zeros((2, 2)), teacher) == 0


def test_cont_steal_by_hand():
    """Axes, each student on its answer: e^(1/t) of itself, 1 from each other row of both models."""
    eye = np.eye(3)
    expected = math.log(math.exp(2) + 2 + 2) - 2
    assert_allclose(losses.cont_steal(0.5)(5 * eye, 3 * eye), expected, rtol=1e-6)
    assert losses.cont_steal()(eye[:1], eye[:1]) == 0  # alone, the pair is the whole sum


def test_cont_steal_does_not_compare_answers_with_each_other():
    """Not so infonce: here the answers are mirrored, which moves no student's similarities."""
    student = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    near = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    far = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])
    assert_allclose(losses.cont_steal()(student, near), losses.cont_steal()(student, far))
    assert losses.infonce(0.5)(student, near) > losses.infonce(0.5)(student, far) + 0.1


def test_rda_by_hand():
    """Axes with prototypes half as long: dot 0.5 with the own, 0 with others, distance 0.5."""
    eye = np.eye(3)
    contrast, align = math.log(4) - 0.5 / 0.07, -math.log(2 / 0.25)
    assert_allclose(losses.rda()(5 * eye, 0.5 * eye), contrast + align, rtol=1e-6)
    assert_allclose(losses.rda(alpha=0)(5 * eye, 0.5 * eye), align, rtol=1e-6)
    assert_allclose(losses.rda(beta=0)(5 * eye, 0.5 * eye), contrast, rtol=1e-6)


def test_rda_alone_has_no_contrast():
    value, grad = value_and_grad('rda', [[0.0, 2.0]], np.array([[0.5, 0.0]]))
    assert_allclose(value, math.log(1.25), rtol=1e-6)
    assert np.all(np.isfinite(grad)) and grad[0, 0] < 0


def test_rda_of_plain_answers_takes_their_directions():
    student, teacher = batch()
    answers = 1.0 + np.arange(BATCH)[:, None] * np.array([unit(row) for row in teacher])
    directions = [unit(row) for row in answers]
    value = losses.rda()(student, answers)
    assert_allclose(value, rda(student, directions, 0.07, 1, 1), rtol=1e-5)


def test_cross_entropy_by_hand():
    student = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]) + 7.0
    labels = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = -(math.log(0.5) + math.log(0.8)) / 2
    assert_allclose(losses.cross_entropy()(student, labels), expected, rtol=1e-6)


def test_cross_entropy_of_labels_is_that_of_their_numbers_and_least_at_the_posterior():
    student, _ = batch()
    labels = np.arange(BATCH) % DIM
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(student, labels).mean()
    assert_allclose(losses.cross_entropy()(student, np.eye(DIM)[labels]), expected, rtol=1e-6)
    _, grad = value_and_grad('cross_entropy', student, jax.nn.softmax(student))
    assert_allclose(grad, 0, atol=1e-7)


# Where a formula is singular or steep.


@pytest.mark.parametrize('t', [0.001, 0.07])
@pytest.mark.parametrize('name', ['cont_steal', 'rda'])
def test_sharp_temperatures_neither_overflow_nor_lose_the_gradient(name, t):
    student, teacher = batch(rows=16)
    value, grad = value_and_grad(f'{name}({t})', student, teacher)
    assert np.isfinite(value) and np.all(np.isfinite(grad)) and np.any(grad != 0)


def test_rda_on_its_target_and_opposite_to_it():
    """The logarithms stop at 1e-6; the value there is the bound, and the gradient is finite."""
    eye = np.eye(3, dtype=np.float32)
    value, grad = value_and_grad('rda(alpha=0.0)', eye, eye)
    assert_allclose(value, math.log(1e-6 / 2), rtol=1e-6)
    assert_array_equal(grad, 0)
    value, grad = value_and_grad('rda(alpha=0.0)', -eye, eye)
    assert_allclose(value, math.log(4 / 1e-6), rtol=1e-6)
    assert np.all(np.isfinite(grad))
    for student in (eye, -eye, 0 * eye):
        for teacher in (eye, 0 * eye):
            value, grad = value_and_grad('rda', student, teacher)
            assert np.isfinite(value) and np.all(np.isfinite(grad))


@pytest.mark.parametrize('angle', [1e-4, 1e-3, 2e-3, 1e-2, 1.0, 3.0, 3.14, math.pi - 1e-4])
def test_rda_align_near_its_bounds(angle):
    """Exact outside of the two guarded spots, and never steeper than 2,100 anywhere."""
    student = np.array([[math.cos(angle), math.sin(angle)]])
    target = np.array([[1.0, 0.0]])
    value, grad = value_and_grad('rda(alpha=0.0)', student, target)
    gap, opening = 4 * math.sin(angle / 2) ** 2, 2 * math.cos(angle / 2) ** 2
    expected = math.log(max(gap, 1e-6)) - math.log(max(opening, 1e-6))
    rounding = 1e-7 / max(opening, 1e-6)  # of 1 + cos in float32, where the two cancel
    assert_allclose(value, expected, rtol=1e-5, atol=rounding)
    assert np.max(np.abs(grad)) < 2_100


def test_rda_falls_on_the_way_to_the_prototype():
    student, teacher = batch()
    towards = np.array([unit(row) for row in student])
    values = [losses.rda()(towards + step * (teacher - towards), teacher) for step in (0, 0.5, 0.9)]
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize('name', NAMES)
def test_a_step_against_the_gradient_helps(name):
    student, teacher = batch()
    value, grad = value_and_grad(name, student, teacher)
    assert losses.make(name)(student - 1e-3 * grad, teacher) < value


@pytest.mark.parametrize('name', NAMES)
def test_jit_is_eager(name):
    student, teacher = batch()
    value, grad = value_and_grad(name, student, teacher, LEFT)
    loss = losses.make(name)
    assert_allclose(loss(student, teacher, where=LEFT), value, rtol=1e-6)
    eager = jax.grad(lambda s: loss(s, teacher, where=LEFT))(student)
    assert_allclose(eager, grad, rtol=1e-5, atol=1e-7)
