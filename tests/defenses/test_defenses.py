"""The contract of every registered defense, and what the perturbations do.

A new defense needs one line in `CASES`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import sklearn.preprocessing

from ssl_extract import defenses, testing
from ssl_extract.defenses.poisoning import Shadow
from ssl_extract.errors import UserError
from ssl_extract.oracle import make_oracle

CASES = {  # every registered name -> a spec with tiny parameters
    'affine': 'affine(condition=5.0)',
    'binarize': 'binarize(bits=12)',
    'bucket_coverage': 'bucket_coverage(bits=4, tables=3)',
    'diagonal': 'diagonal',
    'dynamarks': 'dynamarks(rate=0.5)',
    'espew': 'espew(rate=0.5)',
    'gaussian_noise': 'gaussian_noise(mean=1.0, stddev=0.5)',
    'normalize': 'normalize',
    'orthogonal': 'orthogonal',
    'pad_shuffle': 'pad_shuffle(pad=3)',
    'prada': 'prada(delta=0.95, window=20, capacity=12, then="refuse")',
    'prediction_poisoning': 'prediction_poisoning',
    'proof_of_work': 'proof_of_work(bits=4, tables=3)',
    'rate_limit': 'rate_limit(queries=5, seconds=100.0)',
    'refuse': 'refuse',
    'region_mark': 'region_mark(bits=2, rate=0.5)',
    'replace': 'replace',
    'round': 'round(decimals=1)',
    'similarity_guard': 'similarity_guard(capacity=12)',
    'top_k': 'top_k(k=3)',
}
MORE = [  # other branches, and chains
    '',
    'binarize',
    'gaussian_noise(keyed_by="image")',
    'normalize | pad_shuffle(pad=2) | gaussian_noise(keyed_by="image") | gaussian_noise | round',
    'similarity_guard(of="projection", then="refuse") | round',
]
SPECS = [CASES[name] for name in CASES if name in defenses.DEFENSES] + MORE

DIM, BUDGET = 8, 60
SCALE = jnp.asarray(np.random.default_rng(0).uniform(1, 3, DIM), jnp.float32)


def represent(scale, images):
    return jnp.sin(images.reshape(len(images), -1)[:, :DIM] * scale[None])


GIVEN = {
    'head': lambda outputs: outputs[:, :4] - outputs[:, 4:],
    'shadow': Shadow(lambda v, images: represent(v['params'], images), {'params': SCALE + 0.1}),
}


def queries():
    """Images [64, 2, 2, 3]: new ones, near and exact copies of earlier ones, in and across tens."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(64, 2, 2, 3))
    images[20:28] = images[2:10] + 0.01 * rng.normal(size=(8, 2, 2, 3))
    images[34:38] = images[33]
    images[40:48] = images[3:11]
    return images.astype(np.float32)


IMAGES = queries()


def raw(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [
        np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        for leaf in jax.tree.leaves(tree)
    ]


def assert_same(tree, expected, tolerance=0.0):
    """The same structure, types and values; `tolerance`, relative and absolute, is for floats."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, other in zip(raw(tree), raw(expected), strict=True):
        assert (leaf.shape, leaf.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(leaf, other, rtol=tolerance, atol=tolerance)


def test_every_registered_defense_is_tested():
    assert set(CASES) == set(defenses.DEFENSES)


@pytest.mark.parametrize(
    'spec',
    [*SPECS[:-2], *(pytest.param(spec, marks=pytest.mark.wide) for spec in SPECS[-2:])],
)
def test_contract(spec):
    testing.check_defense(spec, **GIVEN)


# The chain


def apply(spec, outputs, inputs=None, seed=0, query_seed=7):
    """What one account gets for `outputs` [B, D] from the defense alone: outputs, where, state."""
    outputs = jnp.asarray(outputs, jnp.float32)
    inputs = jnp.zeros((len(outputs), 1)) if inputs is None else jnp.asarray(inputs)
    return open_and_apply(spec, outputs, inputs, jax.random.key(seed), jax.random.key(query_seed))


@functools.partial(jax.jit, static_argnums=0)
def open_and_apply(spec, outputs, inputs, key, query_key):
    defense = defenses.make(spec)
    state = defense.init(key, outputs, inputs)
    keys = jax.random.split(query_key, len(outputs))
    where = jnp.ones(len(outputs), bool)
    return defense.apply(outputs, state, inputs=inputs, where=where, keys=keys)


OUTPUTS = np.random.default_rng(3).normal(size=(16, DIM)).astype(np.float32)


@pytest.mark.parametrize(
    'parts',
    [
        ['gaussian_noise(stddev=0.3)', 'round(1)'],
        ['round(1)', 'gaussian_noise(stddev=0.3)'],
        ['orthogonal', 'gaussian_noise(keyed_by="image")', 'gaussian_noise', 'top_k(3)'],
        ['refuse', 'pad_shuffle(pad=5)', 'binarize(bits=7)'],
    ],
)
def test_a_chain_is_its_parts_in_the_written_order(parts):
    found, answered, state = apply(' | '.join(parts), OUTPUTS, IMAGES[:16])
    outputs, where, states = jnp.asarray(OUTPUTS), jnp.ones(16, bool), {}
    keys = jax.random.split(jax.random.key(7), 16)
    for i, part in enumerate(parts):
        defense = defenses.DEFENSES.make(part)
        before = defense.init(jax.random.fold_in(jax.random.key(0), i), outputs, IMAGES[:16])
        folded = jnp.stack([jax.random.fold_in(key, i) for key in keys])
        outputs, where, after = defense.apply(
            outputs, before, inputs=jnp.asarray(IMAGES[:16]), where=where, keys=folded
        )
        states[f'{i}_{defenses.DEFENSES.names(part)[0]}'] = after
    assert_same((found, answered, state), (outputs, where, states), 1e-5)


def test_the_same_defense_twice_draws_twice():
    for spec in ('gaussian_noise', 'gaussian_noise(keyed_by="image")'):
        noise = apply(f'{spec} | {spec}', np.zeros((16, 4000)), IMAGES[:16])[0]
        assert np.std(noise) == pytest.approx(2**0.5, rel=0.02)


def test_empty_chain_is_the_identity():
    np.testing.assert_array_equal(apply('', OUTPUTS)[0], OUTPUTS)


def test_a_defense_may_change_the_width(registries_restored):
    @defenses.register('first_two')
    def first_two():
        return defenses.stateless(lambda outputs, keys: outputs[:, :2])

    outputs, _, state = apply('first_two | affine(condition=1.0, stddev=0.0)', OUTPUTS)
    assert state['1_affine'].matrix.shape == (2, 2)
    norms = np.linalg.norm(OUTPUTS[:, :2], axis=1)
    np.testing.assert_allclose(np.linalg.norm(outputs, axis=1), norms, rtol=1e-5)


# Noise, and what a detector does


def noise_of(spec, images, account=0, asking=0):
    """float[B, 50], what `spec` adds to the answers about `images`."""
    return np.asarray(apply(spec, np.zeros((len(images), 50)), images, account, asking)[0])


@pytest.mark.parametrize('keyed_by', ['query', 'image'])
def test_gaussian_noise_has_the_stated_distribution(keyed_by):
    images = np.random.default_rng(4).normal(size=(400, 3)).astype(np.float32)
    noise = noise_of(f'gaussian_noise(10.0, 2.0, keyed_by="{keyed_by}")', images)
    assert scipy.stats.kstest((noise.ravel() - 10) / 2, 'norm').pvalue > 0.01
    for one, other in [(noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:])]:
        assert scipy.stats.pearsonr(one.ravel(), other.ravel()).pvalue > 0.01


def test_noise_keyed_by_the_image_cannot_be_averaged_away():
    images = np.repeat(IMAGES[:1], 64, axis=0)
    by_query, by_image = (
        noise_of(f'gaussian_noise(keyed_by="{k}")', images) for k in ('query', 'image')
    )
    assert np.std(by_query.mean(axis=0)) == pytest.approx(1 / 8, rel=0.3)
    assert np.ptp(by_image, axis=0).max() == 0 and np.std(by_image[0]) > 0.5


def test_noise_keyed_by_the_image_is_the_accounts_and_the_images_own():
    spec = 'gaussian_noise(keyed_by="image")'
    first = noise_of(spec, IMAGES[:32], account=0, asking=0)
    np.testing.assert_array_equal(noise_of(spec, IMAGES[31::-1], asking=1)[::-1], first[:32])
    other = noise_of(spec, IMAGES[:32], account=1)
    assert scipy.stats.pearsonr(first.ravel(), other.ravel()).pvalue > 0.01
    assert not np.any(np.isclose(first[2:10], noise_of(spec, IMAGES[20:28])).all(axis=1))  # views


def test_the_bill_and_the_noise_know_an_image_by_the_same_hash():
    from ssl_extract import fingerprint
    from ssl_extract.oracle import queries

    assert queries.fingerprint is fingerprint.fingerprint


def test_replace_leaves_nothing_of_the_answer():
    outputs = np.random.default_rng(5).normal(scale=1e4, size=(200, 20))
    found = np.asarray(apply('replace', outputs)[0])
    assert scipy.stats.kstest((found.ravel() - 1000) / 20, 'norm').pvalue > 0.01
    np.testing.assert_array_equal(apply('replace', -outputs)[0], found)


def test_refuse_refuses_and_nothing_is_billed():
    oracle = make_oracle(lambda images: represent(SCALE, images), 'refuse', budget=BUDGET)
    found, account = oracle.query(IMAGES, oracle.init(jax.random.key(0), IMAGES))
    assert not np.any(found.granted) and not np.any(found.representations)
    assert (int(account.num_queries), int(account.num_withheld)) == (0, BUDGET)


@pytest.mark.parametrize('then', ['refuse', 'replace(mean=5.0, stddev=0.0)'])
def test_an_action_reaches_the_flagged_queries_only(then):
    action, flagged, where = defenses.make(then), np.arange(16) % 4 == 0, np.arange(16) < 10
    state = action.init(jax.random.key(0), OUTPUTS, IMAGES[:16])
    outputs, answered, _ = defenses.apply_where(
        flagged,
        action,
        jnp.asarray(OUTPUTS),
        state,
        inputs=IMAGES[:16],
        where=where,
        keys=jax.random.split(jax.random.key(1), 16),
    )
    np.testing.assert_array_equal(outputs[~flagged], OUTPUTS[~flagged])
    if then == 'refuse':
        np.testing.assert_array_equal(answered, where & ~flagged)
    else:
        np.testing.assert_array_equal(answered, where)
        np.testing.assert_array_equal(outputs[flagged], 5.0)


# Coarser answers


@pytest.mark.parametrize('decimals', [-1, 0, 1, 3])
def test_round_is_numpys(decimals):
    outputs = 30 * OUTPUTS
    found = apply(f'round(decimals={decimals})', outputs)[0]
    np.testing.assert_allclose(found, np.round(outputs, decimals), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('k', [1, 3, DIM])
def test_top_k_is_a_sort(k):
    expected = np.zeros_like(OUTPUTS)
    for row, answer in zip(OUTPUTS, expected, strict=True):
        kept = sorted(range(DIM), key=lambda j, row=row: -abs(row[j]))[:k]
        answer[kept] = row[kept]
    np.testing.assert_array_equal(apply(f'top_k(k={k})', OUTPUTS)[0], expected)


def test_top_k_keeps_k_of_equal_coordinates():
    found = np.asarray(apply('top_k(k=3)', [[2.0, -2.0, 2.0, -2.0, 1.0]])[0])
    np.testing.assert_array_equal(found, [[2, -2, 2, 0, 0]])


def test_top_k_wider_than_the_answers_is_refused_when_an_account_is_opened():
    defense = defenses.make('round | top_k(k=9)')
    assert apply('round | top_k(k=8)', OUTPUTS)[0].shape == (16, 8)
    with pytest.raises(UserError, match=r'top_k\(k=9\): the answers have 8 coordinates; write a k'):
        make_oracle(lambda x: x, defense, budget=9).init(jax.random.key(0), OUTPUTS)


def test_normalize_is_scikit_learns():
    outputs = np.concatenate([OUTPUTS * np.geomspace(1e-6, 1e6, 16)[:, None], np.zeros((1, DIM))])
    expected = sklearn.preprocessing.normalize(outputs)
    np.testing.assert_allclose(apply('normalize', outputs)[0], expected, rtol=1e-5, atol=1e-7)


def test_binarize_compares_with_the_answers_own_mean():
    shifted = OUTPUTS + np.arange(16, dtype=np.float32)[:, None]
    expected = [[float(x > sum(row) / DIM) for x in row] for row in shifted.tolist()]
    np.testing.assert_array_equal(apply('binarize', shifted)[0], expected)


def test_simhash_bits_differ_as_often_as_the_angle_says():
    angles = np.linspace(0, np.pi, 9)
    around = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    bits = np.asarray(apply('binarize(bits=4000)', around)[0])
    assert bits.shape == (9, 4000) and set(np.unique(bits)) == {0, 1}
    share = np.mean(bits != bits[0], axis=1)
    np.testing.assert_allclose(share, angles / np.pi, atol=4 * 0.5 / 4000**0.5)
    assert 0.4 < np.mean(bits != np.asarray(apply('binarize(bits=4000)', around, seed=1)[0])) < 0.6


# Secret maps


def test_orthogonal_keeps_distances_and_is_the_accounts_own():
    one, other = (np.asarray(apply('orthogonal', OUTPUTS, seed=seed)[0]) for seed in (0, 1))
    distances = scipy.spatial.distance.pdist
    for metric in ('euclidean', 'cosine'):
        np.testing.assert_allclose(distances(one, metric), distances(OUTPUTS, metric), rtol=1e-4)
    assert not np.allclose(one, other, atol=0.1) and not np.allclose(one, OUTPUTS, atol=0.1)


def drawn(spec, number, width):
    """The states of `number` accounts."""
    defense = defenses.DEFENSES.make(spec)
    outputs = jax.ShapeDtypeStruct((1, width), jnp.float32)
    keys = jax.random.split(jax.random.key(11), number)
    return jax.jit(jax.vmap(lambda key: defense.init(key, outputs, outputs)))(keys)


def test_orthogonal_is_haar_distributed():
    matrices = np.asarray(drawn('orthogonal', 500, 5).matrix, np.float64)
    identity = np.broadcast_to(np.eye(5), matrices.shape)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), identity, atol=1e-5)
    for i, j in [(0, 0), (3, 1)]:  # a coordinate of a random direction in five dimensions
        squares = matrices[:, i, j] ** 2
        assert scipy.stats.kstest(squares, scipy.stats.beta(0.5, 2).cdf).pvalue > 0.01
        assert scipy.stats.binomtest(int((matrices[:, i, j] > 0).sum()), 500).pvalue > 0.01


def test_affine_has_exactly_the_condition_number():
    accounts = drawn('affine(condition=1000.0, stddev=3.0)', 100, 6)
    found = np.linalg.cond(np.asarray(accounts.matrix, np.float64))
    np.testing.assert_allclose(found, 1000, rtol=1e-3)
    assert scipy.stats.kstest(np.ravel(accounts.offset) / 3, 'norm').pvalue > 0.01


def test_affine_has_log_uniform_singular_values():
    values = np.linalg.svd(np.asarray(drawn('affine(100.0)', 300, 5).matrix), compute_uv=False)
    np.testing.assert_allclose(values[:, [0, -1]], [[10, 0.1]] * 300, rtol=1e-4)
    inner = np.log10(values[:, 1:-1]).ravel()
    assert scipy.stats.kstest(inner, scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_affine_is_undone_by_its_secret():
    found, _, state = apply('affine', OUTPUTS)
    secret = state['0_affine']
    undone = np.linalg.solve(
        np.asarray(secret.matrix).T, np.asarray(found - secret.offset[None]).T
    ).T
    np.testing.assert_allclose(undone, OUTPUTS, atol=1e-4)
    assert not np.allclose(found, apply('affine', OUTPUTS, seed=1)[0], atol=0.1)


def test_diagonal_scales_and_shifts_each_coordinate_as_the_public_code_of_b4b():
    accounts = drawn('diagonal', 200, 6)
    matrices = np.asarray(accounts.matrix)
    factors = np.einsum('aii->ai', matrices)
    np.testing.assert_array_equal(matrices, factors[:, :, None] * np.eye(6))
    for numbers in (factors, np.asarray(accounts.offset)):  # from U(-1, 1)
        assert scipy.stats.kstest(numbers.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert abs(np.corrcoef(factors.ravel(), np.ravel(accounts.offset))[0, 1]) < 0.1


@pytest.mark.parametrize('pad', [0, 5])
def test_pad_shuffle_is_undone_by_its_secret(pad):
    found, _, state = apply(f'pad_shuffle(pad={pad})', OUTPUTS)
    secret = state['0_pad_shuffle']
    assert found.shape == (16, DIM + pad)
    undone = np.asarray(found)[:, np.argsort(secret.order)]
    np.testing.assert_array_equal(undone[:, :DIM], OUTPUTS)
    np.testing.assert_array_equal(undone[:, DIM:], np.tile(secret.constants, (16, 1)))
    assert np.sum(np.ptp(found, axis=0) == 0) == pad
    other = apply(f'pad_shuffle(pad={pad})', OUTPUTS, seed=1)[2]['0_pad_shuffle']
    assert not np.array_equal(other.order, secret.order)


def test_pad_shuffle_draws_constants_and_orders_evenly():
    accounts = drawn('pad_shuffle(pad=2)', 600, 4)
    assert scipy.stats.kstest(np.ravel(accounts.constants), 'norm').pvalue > 0.01
    for place in (0, 5):
        counts = np.bincount(np.asarray(accounts.order)[:, place], minlength=6)
        assert scipy.stats.chisquare(counts).pvalue > 0.01


# Wrong input


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('gausian_noise', "did you mean 'gaussian_noise'"),
        (
            'gaussian_noise(std=1)',
            r'it takes \(mean: float = 0.0, stddev: float of at least 0 = 1.0, keyed_by',
        ),
        ('gaussian_noise(stddev=-1.0)', 'stddev must be a finite number of at least 0, got -1.0'),
        ('gaussian_noise(mean=1e999)', 'mean must be a finite number, got inf'),
        ('gaussian_noise(keyed_by="account")', "keyed_by must be 'query' or 'image', got 'acc"),
        ('replace(stddev="2")', "stddev must be a finite number of at least 0, got '2'"),
        ('replace(mean=None)', 'mean must be a finite number, got None'),
        ('round(decimals=0.5)', 'decimals must be a whole number from -10 to 10, got 0.5'),
        ('round(decimals=True)', 'decimals must be a whole number from -10 to 10, got True'),
        ('round(decimals=40)', 'decimals must be a whole number from -10 to 10, got 40'),
        ('top_k(k=0)', 'k must be a whole number from 1 to 65536, got 0'),
        ('top_k(k=2.0)', 'k must be a whole number from 1 to 65536, got 2.0'),
        ('binarize(bits=-1)', 'bits must be a whole number from 0 to 65536, got -1'),
        ('affine(condition=0.5)', 'condition must be a finite number of at least 1, got 0.5'),
        ('affine(stddev=-1)', 'stddev must be a finite number of at least 0, got -1'),
        ('pad_shuffle(pad=False)', 'pad must be a whole number from 0 to 65536, got False'),
        ('normalize(2)', 'too many positional arguments'),
        ('refuse(True)', 'too many positional arguments'),
        ('round |', 'cannot read'),
        ('round(decimals=x)', 'an argument is a number'),
    ],
)
def test_wrong_specs_say_what_to_write(spec, message):
    with pytest.raises(UserError, match=message) as error:
        defenses.make(spec)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('spec', 'reason'),
    [
        ('binarize | round(1)', '0 and 1 are round already; put round.1. before it'),
        ('binarize | top_k', 'ones or added constants would be kept'),
        ('pad_shuffle | top_k(3)', r'ones or added constants .*; put top_k\(3\) before it'),
        ('binarize | binarize(bits=8)', 'its answers are zeros and ones already'),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(spec, reason):
    with pytest.raises(UserError, match=f'makes no sense: {reason}'):
        defenses.make(spec)


@pytest.mark.parametrize(
    'spec',
    ['round | gaussian_noise', 'normalize | gaussian_noise | normalize', 'top_k | pad_shuffle'],
)
def test_an_order_that_makes_sense_is_not(spec):
    defenses.make(spec)


# Traits


@pytest.mark.parametrize(
    ('spec', 'needs'),
    [
        ('', set()),
        ('round | gaussian_noise', set()),
        ('similarity_guard', set()),
        ("similarity_guard(of='projection')", {'head'}),
        ("similarity_guard(then='similarity_guard(of=\\'projection\\')')", {'head'}),
        ('prediction_poisoning(radius=0.5) | round', {'shadow'}),
    ],
)
def test_what_the_owner_must_give(spec, needs):
    assert defenses.needs(spec) == needs


@pytest.mark.parametrize('detector', ['similarity_guard', 'prada', 'proof_of_work'])
@pytest.mark.parametrize('before', ['gaussian_noise', 'affine', 'binarize', 'bucket_coverage'])
def test_nothing_is_compared_after_it_was_moved(detector, before):
    with pytest.raises(UserError, match=f'{detector} after {before} makes no sense'):
        defenses.make(f'{before} | {detector}')


def test_a_third_partys_noise_stands_behind_detectors_too(registries_restored):
    defenses.register('shake', moves_answers=True)(lambda: defenses.stateless(lambda y, keys: -y))
    defenses.make('prada | shake')
    with pytest.raises(UserError, match='prada after shake makes no sense: it measures distances'):
        defenses.make('shake | round | prada')


def test_the_part_that_marks():
    assert defenses.mark_of('top_k | round') is None
    assert defenses.mark_of('dynamarks(5, rate=0.1) | round') == 'dynamarks(5, rate=0.1)'


def test_two_marks_are_refused(registries_restored):
    mark = defenses.stateless(lambda y, keys: y)
    defenses.register('sign', marks=True)(lambda: mark)
    with pytest.raises(UserError, match='sign and dynamarks both mark the answers'):
        defenses.make('sign | dynamarks')
