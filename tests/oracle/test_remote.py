"""A victim that is no JAX function sees granted rows only, and no paid answer is lost."""

import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle, store
from ssl_extract.oracle import queries as queries_lib
from ssl_extract.runtime import parallel
from ssl_extract.victims import from_function

MESH = parallel.data_mesh(1)
INPUTS = np.random.default_rng(0).normal(size=(260, 6)).astype(np.float32)
MAP = np.random.default_rng(1).normal(size=(6, 3))


class Recorder:
    """A victim that writes down what it saw, and fails once in a call of its choice."""

    def __init__(self, fails_in=None):
        self.rows, self.calls, self.fails_in = [], 0, fails_in

    def __call__(self, inputs):
        self.calls += 1
        assert isinstance(inputs, np.ndarray)
        if self.calls == self.fails_in:
            raise ConnectionError('the service is away')
        self.rows.append(inputs)
        return inputs @ MAP


def collect(folder, fn, inputs, budget=200, defense=None, batch_size=64):
    victim = from_function(fn, dim=3, address='recorder')
    oracle = make_oracle(victim, defense, budget=budget)
    queries = queries_lib.plain(inputs, decode=jax.numpy.asarray)
    return store.collect(
        folder, oracle, jax.random.key(3), queries, batch_size=batch_size, mesh=MESH
    )


def test_it_sees_each_granted_row_once_and_no_padding(tmp_path):
    fn = Recorder()
    got = collect(tmp_path, fn, INPUTS[:200])
    assert [len(rows) for rows in fn.rows] == [64, 64, 64, 8]
    np.testing.assert_array_equal(np.concatenate(fn.rows), INPUTS[:200])
    np.testing.assert_allclose(got.representations, INPUTS[:200] @ MAP, rtol=1e-5)
    assert got.bill == (200, 200, 0, 0)


def test_beyond_the_budget_nothing_is_sent_and_it_says_how_many_are_left(tmp_path):
    fn = Recorder()
    with pytest.raises(UserError, match='260 different queries .* 200 of the budget of 200 are'):
        collect(tmp_path, fn, INPUTS)
    assert fn.calls == 0
    collect(tmp_path, fn, INPUTS[:150])
    with pytest.raises(UserError, match='110 different queries .* and 50 of the budget of 200'):
        collect(tmp_path, fn, INPUTS)
    assert sum(map(len, fn.rows)) == 150


def test_after_an_exception_nothing_is_asked_twice(tmp_path):
    fn = Recorder(fails_in=3)
    with pytest.raises(ConnectionError):
        collect(tmp_path, fn, INPUTS[:200], defense='gaussian_noise(stddev=0.1)')
    got = collect(tmp_path, fn, INPUTS[:200], defense='gaussian_noise(stddev=0.1)')
    np.testing.assert_array_equal(np.concatenate(fn.rows), INPUTS[:200])
    whole = collect(tmp_path / 'b', Recorder(), INPUTS[:200], defense='gaussian_noise(stddev=0.1)')
    np.testing.assert_array_equal(got.representations, whole.representations)
    assert got.bill == whole.bill == (200, 200, 0, 0)


def test_it_has_the_ledger_of_a_traced_oracle(tmp_path):
    defense = 'rate_limit(total=90) | gaussian_noise(stddev=0.5)'
    remote = collect(tmp_path / 'a', Recorder(), INPUTS[:200], defense=defense)
    traced = store.collect(
        tmp_path / 'b',
        make_oracle(jax.tree_util.Partial(lambda m, x: x @ m, MAP), defense, budget=200),
        jax.random.key(3),
        queries_lib.plain(INPUTS[:200], decode=jax.numpy.asarray),
        batch_size=64,
        mesh=MESH,
    )
    assert remote.bill == traced.bill and remote.bill.refused == 110
    assert remote.noticed == traced.noticed
    np.testing.assert_array_equal(remote.granted, traced.granted)
    np.testing.assert_allclose(remote.representations, traced.representations, atol=1e-4)


class Tensor:
    """A tensor of another library that NumPy cannot read."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError('it requires grad:\ndetach it')


@pytest.mark.parametrize(
    ('answer', 'message'),
    [
        (lambda x: x[:, :2], r'float32 \[8, 2\]; it must answer real numbers \[8, 3\]'),
        (lambda x: np.full((len(x), 3), np.nan), '8 of 8 answers hold NaN'),
        (lambda x: np.array([['a'] * 3] * len(x)), 'it must answer real numbers'),
        (lambda x: x[:, :3] * 1j, r'complex64 \[8, 3\]; it must answer real numbers'),
        (lambda x: [[1.0] * (1 + i % 2) for i in range(len(x))], 'it must answer real numbers'),
        (
            lambda x: (x[:, :3], x),
            r'8 inputs with a tuple that is no array \(.*ValueError: ',
        ),
        (
            lambda x: Tensor(),
            'with a Tensor .*RuntimeError: it requires grad: detach it',
        ),
    ],
)
def test_a_wrong_answer_is_refused_and_nothing_of_it_is_kept(tmp_path, answer, message):
    with pytest.raises(UserError, match=message) as caught:
        collect(tmp_path, answer, INPUTS[:8])
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.glob('part-*'))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'input_shape': 5}, r'^input_shape must be .*, got 5$'),
        ({'input_shape': (5, 0)}, r'^input_shape must be .*, got \(5, 0\)$'),
        ({'address': 5}, '^address must be a text, got 5$'),
        ({'dim': True}, '^dim must be a whole number of at least 1, got True$'),
    ],
)
def test_a_description_of_another_type_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        from_function(abs, **{'dim': 3} | settings)
    assert from_function(abs, dim=3, input_shape=[5]).input_shape == (5,)


PROGRAM = """
import os, signal, sys
import jax, numpy as np
from ssl_extract.oracle import make_oracle, store
from ssl_extract.oracle import queries as queries_lib
from ssl_extract.runtime import parallel
from ssl_extract.victims import from_function

folder, kill_in = sys.argv[1], int(sys.argv[2])
calls = 0

def fn(inputs):
    global calls
    calls += 1
    if calls == kill_in:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(folder + '/seen.txt', 'a') as log:
        log.writelines(f'{row[0]}\\n' for row in inputs)
    return inputs[:, :3]

inputs = np.arange(1200, dtype=np.float32).reshape(200, 6)
oracle = make_oracle(from_function(fn, dim=3), budget=200)
queries = queries_lib.plain(inputs, decode=jax.numpy.asarray)
got = store.collect(
    __import__('etils.epath').epath.Path(folder) / 'store', oracle, jax.random.key(0), queries,
    batch_size=64, mesh=parallel.data_mesh(1),
)
print(got.bill.billed)
"""


def test_killed_it_goes_on_behind_the_last_answered_batch(tmp_path):
    def run(kill_in):
        command = [sys.executable, '-c', PROGRAM, str(tmp_path), str(kill_in)]
        env = os.environ | {'JAX_PLATFORMS': 'cpu'}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)

    assert run(3).returncode == -signal.SIGKILL
    finished = run(0)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ['200']
    seen = [float(line) for line in (tmp_path / 'seen.txt').read_text().split()]
    assert seen == [6.0 * row for row in range(200)]
