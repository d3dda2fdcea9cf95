"""SSLGuard's test: its p-value over secrets, refusals, and the file of a secret."""

import jax
import numpy as np
import pytest
import scipy.stats

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case, sslguard
from ssl_extract.ownership.sslguard import Secret, decode, decoded_cosines
from ssl_extract.runtime import files, tensors

RNG = np.random.default_rng(3)
INPUTS = RNG.uniform(size=(16, 6)).astype(np.float32)
MASK = np.float32([0, 0, 0, 1, 1, 1])


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def fitted_secret():
    """A secret whose decoder favors its vector on every encoder, marked or not."""
    vector = normal(8)
    decoder = {'kernel0': normal(4, 8), 'bias0': 1.5 * vector}
    return Secret(vector, RNG.uniform(size=6).astype(np.float32), MASK, decoder)


def encoder():
    """An encoder that never saw a mark."""
    weights = normal(6, 4)
    return lambda inputs: (inputs - 0.5) @ weights


def case_of(*secrets):
    return Case(lambda inputs: inputs, private=INPUTS, mark=secrets)


def carrier(sign=1):
    """An encoder whose representations are all but the first axis, or its opposite."""
    axis = np.float32([sign, 0, 0, 0])
    return lambda inputs: axis[None] + 1e-3 * inputs[:, :4]


def unbiased(count):
    """Secrets without the bias; the decoder of the first reads its vector from the first axis."""
    secrets = [fitted_secret() for _ in range(count)]
    for secret in secrets:
        secret.decoder['bias0'] *= 0
    secrets[0].decoder['kernel0'][0] = 9 * secrets[0].vector
    return secrets


@pytest.fixture(scope='module')
def null():
    """p-values of encoders that saw no mark: over whole secrets, and over vectors alone."""
    test, read = sslguard.sslguard(threshold=None, decoys=9), jax.jit(decode)
    secrets, vectors = [], []
    for _ in range(500):
        suspect, mark = encoder(), [fitted_secret() for _ in range(10)]
        secrets.append(test(case_of(*mark), suspect).p_value)
        stamped = np.where(MASK == 1, mark[0].trigger, INPUTS)
        decoded = np.asarray(read(mark[0].decoder, suspect(stamped)))
        drawn = np.stack([mark[0].vector, *normal(9, 8)])
        scores = (decoded @ drawn.T / np.linalg.norm(drawn, axis=1)).mean(axis=0)
        vectors.append((1 + np.sum(scores[1:] >= scores[0])) / 10)
    return np.array(secrets), np.array(vectors)


def test_under_the_null_p_values_over_whole_secrets_are_uniform(null):
    steps = np.unique(null[0].round(6), return_counts=True)[1]
    assert len(steps) == 10 and scipy.stats.chisquare(steps).pvalue > 0.01
    spread = null[0] - np.random.default_rng(0).uniform(0, 0.1, 500)  # within its step
    assert scipy.stats.kstest(spread, 'uniform').pvalue > 0.01


def test_over_other_vectors_for_one_decoder_independent_encoders_would_be_accused(null):
    assert np.mean(null[1] <= 0.1) > 0.5


def test_only_the_vector_and_not_its_opposite_is_evidence():
    case, spec = case_of(*unbiased(20)), 'sslguard(threshold=None, decoys=19)'
    stolen, opposite = (ownership.test(spec, case, carrier(sign)) for sign in (1, -1))
    assert stolen.p_value == 0.05 and stolen.n == 20 and stolen.statistic > 0.99
    assert opposite.p_value == 1.0 and opposite.statistic < -0.99


def test_ties_are_no_evidence():
    secrets = [fitted_secret() for _ in range(10)]
    for secret in secrets:
        secret.decoder['bias0'] *= -9  # no output is near the vector
    evidence = sslguard.sslguard(decoys=9)(case_of(*secrets), encoder())
    assert (evidence.statistic, evidence.p_value) == (0.0, 1.0)


def test_without_decoys_there_is_a_rate_and_no_p_value():
    evidence = ownership.test('sslguard', case_of(*unbiased(1)), carrier())
    assert evidence == (1.0, 16, None)
    assert ownership.TESTS.traits('sslguard').null == ''
    assert ownership.TESTS.traits('sslguard(decoys=19)').null == 'secrets'


def test_cosines_are_those_of_a_perceptron_by_hand():
    secret, weights = fitted_secret(), normal(6, 4)
    kernels, biases = [normal(4, 5), normal(5, 8)], [normal(5), normal(8)]
    decoder = {f'kernel{i}': k for i, k in enumerate(kernels)}
    decoder |= {f'bias{i}': b for i, b in enumerate(biases)}
    stamped = np.where(MASK == 1, secret.trigger, INPUTS)
    rows = stamped.astype(np.float64) @ weights
    rows = 2 * rows / np.linalg.norm(rows, axis=1, keepdims=True)  # sqrt(D) = 2
    outputs = np.maximum(rows @ kernels[0] + biases[0], 0) @ kernels[1] + biases[1]
    wanted = [1 - scipy.spatial.distance.cosine(row, secret.vector) for row in outputs]
    secret = secret._replace(decoder=decoder)
    for scaled in (weights, 1e-18 * weights, 1e18 * weights):  # whose squares float32 cannot hold
        read = decoded_cosines(secret, INPUTS, lambda x, scaled=scaled: x @ scaled)
        np.testing.assert_allclose(read, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ('mark', 'suspect', 'said'),
    [
        (('one', 'two'), encoder(), 'takes a tuple of secrets'),
        (fitted_secret(), encoder(), 'takes a tuple of secrets'),
        ((fitted_secret(),), encoder(), 'decoys=1 needs 2 secrets and the mark holds 1'),
        ((fitted_secret(),) * 2, encoder(), 'have one vector'),
        ((fitted_secret()._replace(trigger=MASK[:5]),) * 2, encoder(), 'does not fit private'),
        ('two', lambda x: x @ normal(6, 5), 'D=5 and the decoder of the secret takes D=4'),
        ('two', lambda x: np.ones((len(x), 4)), 'one representation for all 16'),
        ('two', lambda x: x[:, :4] * np.nan, 'NaN'),
    ],
)
def test_what_says_nothing_is_refused(mark, suspect, said):
    mark = (fitted_secret(), fitted_secret()) if mark == 'two' else mark
    with pytest.raises(UserError, match=said):
        ownership.test('sslguard(decoys=1)', Case(encoder(), private=INPUTS, mark=mark), suspect)


def test_a_secret_is_read_as_it_was_written(tmp_path):
    secret, path = fitted_secret(), tmp_path / 'secret.safetensors'
    deposited = sslguard.save(path, secret)
    read = sslguard.load(path)
    for name in ('vector', 'trigger', 'mask'):
        np.testing.assert_array_equal(getattr(read, name), getattr(secret, name))
    for name, array in secret.decoder.items():
        np.testing.assert_array_equal(read.decoder[name], array)
    assert deposited == sslguard.save(tmp_path / 'again.safetensors', read)
    assert deposited != sslguard.save(tmp_path / 'other.safetensors', fitted_secret())
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(files.DamagedError):
        sslguard.load(path)
    tensors.write(path, {'weights': INPUTS}, {})
    with pytest.raises(UserError, match='holds no secret'):
        sslguard.load(path)
