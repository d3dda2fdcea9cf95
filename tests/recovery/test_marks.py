"""The recoveries that remove marks: what they select, on answers with a mark of known place."""

import numpy as np
import pytest

from ssl_extract import recovery
from ssl_extract.errors import UserError
from ssl_extract.recovery import Received, Shadow

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(400, 6)).astype(np.float32)
CLEAN = np.tanh(INPUTS @ RNG.normal(size=(6, 16))).astype(np.float32)
OWN = np.tanh(INPUTS @ RNG.normal(size=(6, 20))).astype(np.float32)
DIRECTION = np.eye(16)[3]
MARKED = np.arange(400) < 40


def received(answers, answered=None):
    answers = np.asarray(answers, np.float32)
    answers = answers[:, None] if answers.ndim == 2 else answers
    answered = np.ones(answers.shape[:2], bool) if answered is None else answered
    return Received(INPUTS[: len(answers)], answers * answered[..., None], answered)


SHADOW = Shadow(lambda inputs: OWN[: len(inputs)], 0)


def test_the_direction_of_the_mark_is_eliminated():
    toward = np.linalg.norm(CLEAN, axis=1, keepdims=True) * DIRECTION
    answers = np.where(MARKED[:, None], 0.3 * CLEAN + 0.7 * toward, CLEAN).astype(np.float32)
    recover = recovery.make('cluster_select_eliminate(clusters=10)')
    rows = recover(received(answers), SHADOW).answers[:, 0]
    apart = [
        np.linalg.norm(x[MARKED].mean(axis=0) - x[~MARKED].mean(axis=0)) for x in (answers, rows)
    ]
    assert apart[0] > 2 and apart[1] < 0.3
    lost = np.linalg.svd(rows - answers, compute_uv=False)
    assert lost[1] < 1e-4 * lost[0]  # one direction, and nothing else


def test_every_answer_of_an_account_loses_the_same_directions():
    answers = np.stack([CLEAN, CLEAN + 1], axis=1)
    answered = RNG.uniform(size=(400, 2)) < 0.8
    given = received(answers, answered)
    repaired = recovery.make('cluster_select_eliminate(clusters=3, rank=2)')(given, SHADOW)
    np.testing.assert_array_equal(repaired.answered, answered)
    assert not repaired.answers[~answered].any()
    assert np.linalg.matrix_rank((given.answers - repaired.answers)[answered], tol=1e-3) == 2


def test_inputs_with_answers_too_alike_are_dropped():
    views = CLEAN[:, None] + 0.5 * RNG.normal(size=(400, 3, 16))
    views[MARKED] = 0.3 * views[MARKED] + 2 * DIRECTION
    dropped = recovery.make('semantic_perturbation(share=0.1)')(received(views), None)
    gone = ~dropped.answered.any(axis=1)
    assert gone.sum() == 40 and gone[MARKED].mean() > 0.95
    assert not dropped.answers[gone].any()
    np.testing.assert_array_equal(dropped.answers[~gone], received(views).answers[~gone])


def test_an_input_with_one_answer_stays():
    views = np.tile(CLEAN[:, None], (1, 2, 1))
    answered = np.ones((400, 2), bool)
    answered[50:, 1] = False
    dropped = recovery.make('semantic_perturbation(share=0.9)')(received(views, answered), None)
    assert not dropped.answered[:50].any() and dropped.answered[50:, 0].all()


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ('cluster_select_eliminate(clusters=101)', '404 answered inputs, got 400'),
        ('cluster_select_eliminate(share=0.0)', 'share must be'),
        ('semantic_perturbation', 'no input has answers to two views'),
        ('semantic_perturbation(share=1.0)', 'share must be'),
    ],
)
def test_too_few_answers_and_wrong_arguments_are_told(spec, said):
    with pytest.raises(UserError, match=said):
        recovery.make(spec)(received(CLEAN), SHADOW)


def test_equal_answers_stay_finite():
    recover = recovery.make('cluster_select_eliminate(clusters=1)')
    rows = recover(received(np.ones((20, 4))), SHADOW).answers
    np.testing.assert_allclose(rows, 1)
    equal = recovery.make('semantic_perturbation')(received(np.ones((20, 2, 4))), None)
    assert equal.answered.sum() == 32
