"""Encoders and heads against published sizes, NumPy versions of them, and Flax's BatchNorm."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ssl_extract import encoders, testing
from ssl_extract.encoders.norm import BatchNorm
from ssl_extract.errors import UserError

SMALL = 'resnet18(stem="patch", width=8, stages=(1, 1))'
VIT = 'vit(depth=1, width=8, heads=2, patch=4)'


def images(batch=8, side=8, seed=0):
    return np.random.default_rng(seed).uniform(size=(batch, side, side, 3)).astype(np.float32)


def randomized(variables, seed=0):
    """Other values than the initial zeros and ones, variances positive."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        positive = jax.tree_util.keystr(path).endswith(("['var']", "['scale']"))
        low, high = (0.5, 1.5) if positive else (-0.5, 0.5)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def make(spec, side=8):
    network = encoders.make(spec)
    return network, network.init(jax.random.key(0), images(2, side))


# --- sizes -------------------------------------------------------------------


@pytest.mark.parametrize(
    'spec, side, params, width',
    [
        ('resnet18', 224, 11_176_512, 512),  # torchvision, without fc
        ('resnet34', 224, 21_284_672, 512),
        ('resnet50', 224, 23_508_032, 2048),
        ('resnet34(stem="cifar")', 32, 21_276_992, 512),  # the paper's appendix F
        ('vit_ti', 224, 5_524_416, 192),  # timm's vit_tiny_patch16_224, without head
        ('vit_s', 224, 21_665_664, 384),
        ('resnet18(stem="patch", width=32, stages=(1, 1, 1))', 32, 307_360, 128),
    ],
)
def test_sizes_are_the_published_ones(spec, side, params, width):
    network = encoders.make(spec)
    inputs = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), inputs)
    assert encoders.num_params(variables) == params
    assert encoders.dim(network, (side, side, 3)) == width


@pytest.mark.parametrize(
    'spec, inputs, params, width',
    [
        ('simclr', 512, 512 * 512 + 512 + 512 * 128 + 128, 128),  # the paper's head
        ('simsiam_projector', 2048, 3 * 2048**2 + 2 * 2 * 2048, 2048),
        ('simsiam_predictor', 2048, 2 * 2048 * 512 + 2 * 512 + 2048, 2048),
        ('linear(dim=7)', 5, 5 * 7 + 7, 7),
    ],
)
def test_sizes_of_heads(spec, inputs, params, width):
    head = encoders.make_head(spec)
    shape = jax.ShapeDtypeStruct((1, inputs), jnp.float32)
    variables = jax.eval_shape(head.init, jax.random.key(0), shape)
    assert encoders.num_params(variables) == params
    assert encoders.dim(head, (inputs,)) == width


# --- values ------------------------------------------------------------------


def np_conv(x, kernel, stride):
    half = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum('bhwcij,ijcd->bhwd', windows[:, ::stride, ::stride], kernel)


def np_norm(x, params, stats):
    normal = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
    return normal * params['scale'] + params['bias']


def np_resnet(variables, x, stem_stride, strides):
    """Strides of each block's convolutions, in order: [[(1, 1)], [(2, 1)]] for two basic blocks."""
    params, stats = variables['params'], variables['batch_stats']
    x = np_conv(x, params['stem']['kernel'], stem_stride)
    x = np.maximum(np_norm(x, params['stem_norm'], stats['stem_norm']), 0)
    if params['stem']['kernel'].shape[0] == 7:
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        x = windows[:, ::2, ::2].max(axis=(-1, -2))
    for i, blocks in enumerate(strides):
        for j, block in enumerate(blocks):
            p, s = params[f'stage{i}_block{j}'], stats[f'stage{i}_block{j}']
            y = x
            for k, stride in enumerate(block):
                y = np_conv(np.maximum(y, 0) if k else y, p[f'Conv_{k}']['kernel'], stride)
                y = np_norm(y, p[f'BatchNorm_{k}'], s[f'BatchNorm_{k}'])
            if 'shortcut' in p:
                x = np_conv(x, p['shortcut']['kernel'], max(block))
                x = np_norm(x, p['shortcut_norm'], s['shortcut_norm'])
            x = np.maximum(x + y, 0)
    return x.mean(axis=(1, 2))


@pytest.mark.parametrize(
    'spec, side, stem_stride, strides',
    [
        ('resnet18(stem="patch", width=4, stages=(2, 1))', 9, 2, [[(1, 1), (1, 1)], [(2, 1)]]),
        ('resnet50(stem="cifar", width=2, stages=(1, 1))', 6, 1, [[(1, 1, 1)], [(1, 2, 1)]]),
        ('resnet34(width=4, stages=(1,))', 16, 2, [[(1, 1)]]),
    ],
)
def test_resnet_equals_numpy(spec, side, stem_stride, strides):
    network, variables = make(spec, side)
    variables, x = randomized(variables), images(2, side)
    desired = np_resnet(variables, x.astype(np.float64), stem_stride, strides)
    np.testing.assert_allclose(network.apply(variables, x), desired, rtol=1e-3, atol=1e-4)


def test_vit_equals_numpy():
    network, variables = make(VIT)
    variables, x = randomized(variables), images(2, 8)
    p = variables['params']

    def layer_norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p['scale'] + p['bias']

    def dense(x, p):
        return x @ p['kernel'] + p['bias']

    tokens = [  # patches from left to right, then down; pixels of a patch likewise
        dense(x[:, i : i + 4, j : j + 4].reshape(2, -1), p['patches'])
        for i in (0, 4)
        for j in (0, 4)
    ]
    x = np.stack([np.broadcast_to(p['token'][0, 0], (2, 8)), *tokens], axis=1) + p['position']

    b = p['block0']
    attention = b['MultiHeadDotProductAttention_0']
    y = layer_norm(x, b['LayerNorm_0'])
    q, k, v = (
        np.einsum('btd,dhe->bhte', y, attention[n]['kernel']) + attention[n]['bias'][:, None]
        for n in ('query', 'key', 'value')
    )
    weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(4))
    y = (weights / weights.sum(-1, keepdims=True)) @ v
    x = x + np.einsum('bhte,hed->btd', y, attention['out']['kernel']) + attention['out']['bias']
    y = dense(layer_norm(x, b['LayerNorm_1']), b['Dense_0'])
    y = y * special.ndtr(y)  # GELU
    x = x + dense(y, b['Dense_1'])
    desired = layer_norm(x, p['norm'])[:, 0]
    np.testing.assert_allclose(
        network.apply(variables, images(2, 8)), desired, rtol=1e-3, atol=1e-4
    )


def test_batch_norm_equals_flax():
    x = 3 + 2 * np.random.default_rng(0).normal(size=(16, 4, 4, 5)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = randomized(theirs.init(jax.random.key(0), x))

    def run(module, params, x):
        y, updated = module.apply({**variables, 'params': params}, x, mutable=['batch_stats'])
        return jnp.vdot(jnp.tanh(y), weights), (y, updated)

    results = [
        jax.value_and_grad(lambda p, x, m=m: run(m, p, x), argnums=(0, 1), has_aux=True)(
            variables['params'], x
        )
        for m in (BatchNorm(train=True, dtype=jnp.float32), theirs)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), *results)
    frozen = BatchNorm(train=False, dtype=jnp.float32).apply(variables, x)
    desired = nn.BatchNorm(use_running_average=True).apply(variables, x)
    np.testing.assert_allclose(frozen, desired, rtol=1e-4, atol=1e-4)


def test_heads_equal_numpy_in_training():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6)).astype(np.float32)

    def normalized(x, p=None):
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        return x * p['scale'] + p['bias'] if p else x

    def run(spec):
        head = encoders.make_head(spec)
        variables = randomized(head.init(jax.random.key(0), x))
        outputs, _ = head.train(variables, x)
        return outputs, variables['params']

    outputs, p = run('simclr(hidden=5, dim=3)')
    hidden = np.maximum(x @ p['Dense_0']['kernel'] + p['Dense_0']['bias'], 0)
    desired = hidden @ p['Dense_1']['kernel'] + p['Dense_1']['bias']
    np.testing.assert_allclose(outputs, desired, rtol=1e-3, atol=1e-4)

    outputs, p = run('simsiam_projector(hidden=5, dim=3)')
    hidden = np.maximum(normalized(x @ p['Dense_0']['kernel'], p['BatchNorm_0']), 0)
    hidden = np.maximum(normalized(hidden @ p['Dense_1']['kernel'], p['BatchNorm_1']), 0)
    desired = normalized(hidden @ p['Dense_2']['kernel'])
    np.testing.assert_allclose(outputs, desired, rtol=1e-3, atol=1e-3)

    outputs, p = run('simsiam_predictor(hidden=5, dim=6)')
    hidden = np.maximum(normalized(x @ p['Dense_0']['kernel'], p['BatchNorm_0']), 0)
    desired = hidden @ p['Dense_1']['kernel'] + p['Dense_1']['bias']
    np.testing.assert_allclose(outputs, desired, rtol=1e-3, atol=1e-4)


def test_convolutions_start_with_he_variance_over_their_outputs():
    _, variables = make('resnet18(stem="patch", width=64, stages=(1,))')
    kernel = np.asarray(variables['params']['stem']['kernel'])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.05)
    np.testing.assert_allclose(kernel.mean(), 0, atol=0.005)


# --- what a Network promises -------------------------------------------------

CASES = {  # every registered name -> a spec of its architecture, as small as it goes
    'normalize': 'normalize | resnet18(stem="patch", width=4, stages=(1,))',
    'resnet': 'resnet(block="basic", stem="patch", width=4, stages=(1, 1))',
    'resnet18': SMALL,
    'resnet34': 'resnet34(stem="patch", width=4, stages=(1,))',
    'resnet50': 'resnet50(stem="cifar", width=2, stages=(1,))',
    'vit': VIT,
    'vit_s': VIT,  # of twelve blocks
    'vit_ti': VIT,
}
OF_WAVEFORMS = {
    'speech_transformer': 'speech_transformer(rate=8000, strides=(4,), width=8, depth=1, heads=2)',
    'wave_transformer': 'wave_transformer(strides=(40, 4), width=8, depth=1, heads=2)',
    'ge2e': 'ge2e(width=8, depth=1, dim=16)',
}


OF_TOKENS = {'bag_of_tokens', 'text_transformer'}  # tested in test_text_encoders.py


def test_every_registered_encoder_is_tested():
    assert {*CASES, *OF_WAVEFORMS, *OF_TOKENS} == set(encoders.ENCODERS)


@pytest.mark.wide
@pytest.mark.parametrize('spec', OF_WAVEFORMS.values())
def test_contract_of_encoders_of_waveforms(spec):
    testing.check_encoder(spec, input_shape=(25_600 if 'ge2e' in spec else 800,))


@pytest.mark.parametrize('spec', sorted(set(CASES.values())))
def test_contract(spec):
    testing.check_encoder(spec)


@pytest.mark.parametrize('spec', [SMALL, VIT])
def test_apply_treats_every_row_alone_and_changes_nothing(spec):
    network, variables = make(spec)
    variables = randomized(variables)
    before = jax.tree.map(np.array, variables)
    outputs = network.apply(variables, images(4))
    assert outputs.shape == (4, encoders.dim(network, (8, 8, 3)))
    assert outputs.dtype == jnp.float32
    others = images(4, seed=1)
    others[2] = images(4)[2]
    np.testing.assert_allclose(network.apply(variables, others)[2], outputs[2], 1e-5, 1e-6)
    assert np.abs(network.apply(variables, others)[3] - outputs[3]).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, variables, before)


@pytest.mark.parametrize('spec', [SMALL, VIT])
def test_init_is_a_function_of_key_and_shape(spec):
    network = encoders.make(spec)
    shape = jax.ShapeDtypeStruct((5, 8, 8, 3), jnp.float32)
    a = network.init(jax.random.key(1), images())
    b = network.init(jax.random.key(1), shape)
    assert set(a) == {'params', 'batch_stats'}
    assert {leaf.dtype for leaf in jax.tree.leaves(a)} == {jnp.dtype('float32')}
    jax.tree.map(np.testing.assert_array_equal, a, b)
    c = network.init(jax.random.key(2), shape)
    differs = jax.tree.map(lambda x, y: bool(np.any(x != y)), a['params'], c['params'])
    assert any(jax.tree.leaves(differs))


def test_train_uses_the_batchs_statistics_and_moves_the_running_ones_by_a_tenth():
    network, variables = make(SMALL)
    _, stats = network.train(variables, images())
    stem = np_conv(images(), np.asarray(variables['params']['stem']['kernel']), 2)
    new = stats['stem_norm']
    np.testing.assert_allclose(new['mean'], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new['var'], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)
    assert jax.tree.structure(stats) == jax.tree.structure(variables['batch_stats'])

    for _ in range(150):  # 0.9 ** 150 of the initial ones is left
        _, stats = network.train({**variables, 'batch_stats': stats}, images())
    trained, _ = network.train(variables, images())
    frozen = network.apply({**variables, 'batch_stats': stats}, images())
    np.testing.assert_allclose(frozen, trained, rtol=1e-3, atol=1e-4)


def test_a_network_without_batch_norm_has_no_statistics():
    network, variables = make(VIT)
    outputs, stats = network.train(variables, images())
    assert variables['batch_stats'] == stats == {}
    np.testing.assert_allclose(outputs, network.apply(variables, images()), rtol=1e-5, atol=1e-6)


@pytest.mark.devices
def test_training_on_four_devices_equals_one():
    network, variables = make(SMALL)
    targets = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)

    @jax.jit
    def step(params, batch_stats, x, y):
        def loss(params):
            outputs, stats = network.train({'params': params, 'batch_stats': batch_stats}, x)
            return jnp.mean((outputs - y) ** 2), (outputs, stats)

        return jax.value_and_grad(loss, has_aux=True)(params)

    one = step(variables['params'], variables['batch_stats'], images(), targets)
    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jax.device_put((images(), targets), jax.NamedSharding(mesh, jax.P('data')))
    whole = jax.device_put(variables, jax.NamedSharding(mesh, jax.P()))
    four = step(whole['params'], whole['batch_stats'], *batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-5), four, one)


@pytest.mark.parametrize('spec', [SMALL, VIT])
def test_bfloat16_computes_in_it_and_keeps_float32(spec):
    network, variables = make(spec)
    half = encoders.make(spec[:-1] + ', dtype="bfloat16")')
    kept = half.init(jax.random.key(0), images())
    outputs, stats = half.train(kept, images())
    assert {x.dtype for x in jax.tree.leaves((kept, outputs, stats))} == {jnp.dtype('float32')}
    jax.tree.map(np.testing.assert_array_equal, kept, variables)

    desired, _ = network.train(variables, images())
    error = np.linalg.norm(outputs - desired) / np.linalg.norm(desired)
    assert 1e-4 < error < 0.03  # bfloat16 has 8 bits: 0.4 % per rounding
    frozen = half.apply(kept, images())
    np.testing.assert_allclose(frozen, network.apply(variables, images()), rtol=0.1, atol=0.1)


# --- wrong input -------------------------------------------------------------


@pytest.mark.parametrize(
    'spec, message',
    [
        ('resnet19', 'resnet18'),
        ('resnet18(stem="tiny")', "stem 'tiny'"),
        ('resnet18(depth=3)', 'stem'),
        ('resnet18(stages=())', 'stages'),
        ('resnet18(stages=(2, 0))', r'each item a whole number from 1 to 100, got \(2, 0\)'),
        ('resnet18(stages=4)', 'stages=4'),
        ('resnet18(width=0)', 'width=0'),
        ('resnet18(width=1.5)', 'width=1.5'),
        ('resnet18(dtype="float16")', "dtype 'float16'"),
        ('resnet(block="wide")', "block 'wide'"),
        ('vit(width=10, heads=3)', 'heads=3'),
        ('vit(patch=-4)', 'patch=-4'),
        ('vit_ti(dtype="half")', "dtype 'half'"),
    ],
)
def test_wrong_encoders_are_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message) as error:
        encoders.make(spec)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'spec, message',
    [
        ('simclr(dim=0)', 'dim=0'),
        ('simclr2', 'simclr'),
        ('simsiam_projector(hidden=-1)', 'hidden=-1'),
        ('linear(dim="a")', "dim must be a whole number from 1 to 65536, got 'a'"),
        ('simsiam_predictor(dtype="int8")', "dtype 'int8'"),
    ],
)
def test_wrong_heads_are_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message) as error:
        encoders.make_head(spec)
    assert '\n' not in str(error.value)


def test_wrong_inputs_are_refused_in_one_line():
    vit, variables = make(VIT)
    head = encoders.make_head('linear(dim=2)')
    calls = [
        (lambda: vit.init(jax.random.key(0), images(1, 10)), 'patch=4'),
        (lambda: vit.init(jax.random.key(0), images(1, 8)[:, :4]), '4x8'),
        (lambda: vit.apply(variables, images(1, 12)), '10 tokens'),
        (lambda: vit.train(variables, images(1, 12)), '10 tokens'),
        (lambda: vit.apply(variables, images()[0]), 'images'),
        (lambda: vit.apply(variables, np.zeros((1, 8, 8, 3), np.uint8)), 'uint8'),
        (lambda: head.init(jax.random.key(0), images()), 'representations'),
    ]
    for call, message in calls:
        with pytest.raises(UserError, match=message) as error:
            call()
        assert '\n' not in str(error.value)
