"""Encoders of tokens: against NumPy on texts without padding, masks, and unknown tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

import ssl_extract
from ssl_extract import data, encoders, testing
from ssl_extract.errors import UserError

BAG = 'bag_of_tokens(vocabulary=20, width=6)'
UNIT = 'bag_of_tokens(vocabulary=20, width=6, unit=True)'
TRANSFORMER = 'text_transformer(vocabulary=20, width=6, depth=1, heads=2, length=9)'
TEXTS = [[3, 1, 4, 1, 5], [19, 0], [7], [2, 2, 2, 8, 9, 10, 11]]
ROWS = np.array([text + [-1] * (7 - len(text)) for text in TEXTS], np.float32)


def make(spec):
    network = encoders.make(spec)
    return network, jax.tree.map(np.asarray, network.init(jax.random.key(0), ROWS))


def normed(x, p):
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6) * p['scale'] + p['bias']


def attended(x, p):
    """Attention of all tokens of one text to all: [T, D]."""
    query, key, value = (
        np.einsum('td,dhe->the', x, p[name]['kernel']) + p[name]['bias']
        for name in ('query', 'key', 'value')
    )
    weights = softmax(np.einsum('the,she->hts', query, key) / np.sqrt(query.shape[-1]), axis=-1)
    seen = np.einsum('hts,she->the', weights, value)
    return np.einsum('the,hed->td', seen, p['out']['kernel']) + p['out']['bias']


def transformed(text, p):
    """The transformer on one text without padding: [D]."""
    x = p['embedding']['table'][text] + p['position'][: len(text)]
    block = p['block0']
    x = x + attended(normed(x, block['LayerNorm_0']), block['MultiHeadDotProductAttention_0'])
    y = normed(x, block['LayerNorm_1'])
    y = y @ block['Dense_0']['kernel'] + block['Dense_0']['bias']
    y = y * (1 + erf(y / np.sqrt(2))) / 2
    x = x + y @ block['Dense_1']['kernel'] + block['Dense_1']['bias']
    return normed(x, p['norm']).mean(axis=0)


def test_outputs_are_those_of_numpy_on_each_text_alone():
    network, variables = make(BAG)
    means = np.stack([variables['params']['embedding']['table'][text].mean(0) for text in TEXTS])
    np.testing.assert_allclose(network.apply(variables, ROWS), means, rtol=1e-5, atol=1e-6)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    unit = encoders.make(UNIT).apply(variables, ROWS)
    np.testing.assert_allclose(unit, units, rtol=1e-5, atol=1e-6)

    network, variables = make(TRANSFORMER)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), variables)
    wanted = np.stack([transformed(text, variables['params']) for text in TEXTS])
    np.testing.assert_allclose(network.apply(variables, ROWS), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('spec', [BAG, TRANSFORMER])
def test_padding_changes_nothing(spec):
    network, variables = make(spec)
    longer = np.pad(ROWS, ((0, 0), (0, 2)), constant_values=-1)
    outputs = [network.apply(variables, rows) for rows in (ROWS, longer)]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5)


@pytest.mark.wide
def test_contract():
    """The contract's inputs lie in [0, 1); a token is their twentyfold."""
    network = encoders.make(TRANSFORMER)
    wrapped = network._replace(
        apply=lambda variables, x: network.apply(variables, jnp.floor(20 * x)),
        train=lambda variables, x: network.train(variables, jnp.floor(20 * x)),
    )
    testing.check_encoder(wrapped, input_shape=(7,))


@pytest.mark.parametrize('spec', [BAG, TRANSFORMER])
def test_what_is_no_token_gives_nan_and_not_another_token(spec):
    network, variables = make(spec)
    rows = [np.where(np.arange(7) == 1, wrong, ROWS[0]) for wrong in (20, 1e9, -2, 0.5, np.nan)]
    batches = np.float32([*rows, np.full(7, -1), ROWS[0], ROWS[1]]).reshape(2, 4, 7)
    outputs = np.concatenate([network.apply(variables, batch) for batch in batches])
    assert np.isnan(outputs[:6]).all() and np.isfinite(outputs[6:]).all()


def test_an_unknown_token_reaches_the_parameters_whatever_the_loss_does():
    network, variables = make(BAG)
    rows = np.where(ROWS == 7, 20, ROWS)  # the only token of its text

    def loss(params):
        outputs, _ = network.train({'params': params, 'batch_stats': {}}, rows)
        return jnp.mean(jnp.square(outputs))

    assert np.isnan(jax.grad(loss)(variables['params'])['embedding']['table']).any()


def test_a_set_with_unknown_tokens_is_refused_before_training():
    tokens = data.Dataset(ROWS.astype(np.int32), np.array([0, 1, 0, 1]), 2, decode='tokens')
    message = r'has a vocabulary of 19, and .* has the token 19: write vocabulary=20 or more'
    small = 'bag_of_tokens(vocabulary=19)'
    with pytest.raises(UserError, match=message):
        ssl_extract.pretrain(tokens, encoder=small, augmentation='none', batch_size=4)
    with pytest.raises(UserError, match='field=.*' + message):
        encoders.check_vocabulary('field', small, tokens)
    encoders.check_vocabulary('field', BAG, tokens)
    encoders.check_vocabulary('field', 'resnet18', tokens)


def test_wrong_arguments_and_inputs_are_named():
    with pytest.raises(UserError, match='width=6 of a transformer is not a multiple of heads=4'):
        encoders.make('text_transformer(vocabulary=9, width=6, heads=4)')
    with pytest.raises(UserError, match="missing a required argument: 'vocabulary'"):
        encoders.make('bag_of_tokens')
    network, variables = make(TRANSFORMER)
    with pytest.raises(UserError, match='has length=9 and got rows of 10 tokens: write length=10'):
        network.apply(variables, np.ones((1, 10), np.float32))
    with pytest.raises(UserError, match=r'a network got inputs int32\[4, 7\]'):
        network.apply(variables, ROWS.astype(np.int32))
