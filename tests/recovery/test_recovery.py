"""The recoveries, each against what it undoes; maps against the transforms in closed form."""

import functools
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import halfnorm, ortho_group
from sklearn.datasets import load_digits

from ssl_extract import recovery
from ssl_extract.errors import UserError
from ssl_extract.recovery import Received, Shadow, pairs, recognition, shift, shrink, sybils


def digits(number=600):
    gray = np.minimum(load_digits().images[:number] * 16, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


IMAGES = digits()


def layer(maps, rng, channels):
    """A 3x3 convolution with random weights, and a ReLU."""
    patches = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), axis=(1, 2))
    patches = patches.reshape(*patches.shape[:3], -1)
    patches = patches - patches.mean(axis=(0, 1, 2))
    mapped = patches @ rng.normal(size=(patches.shape[-1], channels))
    return np.maximum(mapped / mapped.std(), 0)


@functools.cache
def represent(seed, width=32):
    """What a random encoder of two layers says of `IMAGES`, float32 [600, width], not negative."""
    rng = np.random.default_rng(seed)
    maps = layer(layer(IMAGES / 255, rng, 24), rng, width)
    return maps.mean(axis=(1, 2)).astype(np.float32)


def received(answers, answered=None, images=IMAGES):
    answers = np.asarray(answers, np.float32)
    answers = answers[:, None] if answers.ndim == 2 else answers
    answered = np.ones(answers.shape[:2], bool) if answered is None else np.array(answered, bool)
    return Received(images[: len(answers)], answers * answered[..., None], answered)


def shadow_of(own):
    return Shadow(lambda images: own[: len(images)], 0)


NO_SHADOW = Shadow(None, 0)  # calling it is an error


# The chain


def test_a_chain_in_the_written_order():
    answers = np.random.default_rng(0).normal(size=(200, 6)) + 10
    answers[:20] = 1000
    own = np.random.default_rng(1).normal(size=(200, 6))
    given = received(answers)
    found = recovery.make('drop_outliers | subtract_shift')(given, shadow_of(own))
    assert abs(found.answers[20:].mean()) < 1
    assert not found.answered[:20].any() and found.answered[20:].all()
    assert_array_equal(found.answers[:20], 0)
    wrong = recovery.make('subtract_shift | drop_outliers')(given, shadow_of(own))
    assert abs(wrong.answers[20:].mean()) > 50


def test_no_recovery_leaves_the_answers_alone():
    given = received(np.ones((3, 2)))
    assert recovery.make('')(given, NO_SHADOW) is given


@pytest.mark.parametrize(
    ('spec', 'mentioned'),
    [
        ('drop_outlier', "did you mean 'drop_outliers'"),
        ('drop_outliers(z=0)', 'z must be a finite number above 0, got 0'),
        ('drop_outliers(z=True)', 'z must be a finite number above 0, got True'),
        ('shrink(stddev=-1)', 'stddev must be a finite number of at least 0'),
        ('project_out(rank=0)', 'rank must be a whole number from 1'),
        ("denoise(known='gausian_noise')", "did you mean 'gaussian_noise'"),
        ("denoise(candidates=['', 'gaussian_noise(stddev=-1)'])", 'stddev'),
        ("denoise(candidates='normalize')", 'candidates must be a list, each item a text'),
        ('subtract_shift(3)', 'subtract_shift'),
    ],
)
def test_wrong_arguments(spec, mentioned):
    with pytest.raises(UserError) as error:
        recovery.make(spec)
    assert mentioned in str(error.value)


@pytest.mark.parametrize('spec', ['drop_outliers', 'subtract_shift', 'denoise'])
def test_without_answers(spec):
    given = received(np.ones((5, 2)), np.zeros((5, 1)))
    with pytest.raises(UserError, match=f'attack.recover={spec}: needs at least .* got 0'):
        recovery.make(spec)(given, NO_SHADOW)


# Outliers


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('stddev', [0.0, 1.0, 100.0])
def test_replaced_answers_are_dropped_and_no_others(seed, stddev):
    rng = np.random.default_rng(seed)
    answers = np.maximum(rng.normal(size=(400, 32)), 0)
    replaced = rng.random(400) < 0.3
    answers[replaced] = rng.normal(1000, stddev, size=(replaced.sum(), 32))
    found = recovery.make('drop_outliers')(received(answers), NO_SHADOW)
    assert_array_equal(found.answered[:, 0], ~replaced)
    assert_array_equal(found.answers[~replaced, 0], answers[~replaced].astype(np.float32))


@pytest.mark.parametrize(('offset', 'scale'), [(1e3, 1.0), (1e4, 1.0), (0, 1e-20), (0, 1e19)])
def test_outliers_of_answers_far_from_the_origin_and_of_any_scale(offset, scale):
    rng = np.random.default_rng(0)
    answers = np.maximum(rng.normal(size=(400, 32)), 0)
    replaced = rng.random(400) < 0.3
    answers[replaced] += rng.normal(5, 1, size=(replaced.sum(), 32))
    found = recovery.make('drop_outliers')(received((answers + offset) * scale), NO_SHADOW)
    assert_array_equal(found.answered[:, 0], ~replaced)


def test_all_views_but_the_first_may_be_replaced():
    rng = np.random.default_rng(0)
    answers = rng.normal(size=(100, 5, 16))
    answers[:, 1:] = rng.normal(1000, 1, size=(100, 4, 16))
    answered = np.ones((100, 5), bool)
    answered[7, 0] = answered[9] = False  # of 7, all that came was replaced
    found = recovery.make('drop_outliers')(received(answers, answered), NO_SHADOW)
    want = np.zeros((100, 5), bool)
    want[:, 0] = answered[:, 0]
    assert_array_equal(found.answered, want)


def test_the_threshold_is_in_standard_deviations():
    """Distances of one coordinate are half normal: the share beyond is known."""
    answers = np.random.default_rng(0).normal(size=(200_000, 1))
    found = recovery.make('drop_outliers(z=3.0)')(received(answers, images=np.zeros(1)), NO_SHADOW)
    # |N(0, 1)|: median 0.67449, median absolute deviation 0.39908 (a root of its definition)
    limit = 0.67449 + 3 * 0.39908 / 0.67449
    share = 1 - found.answered.mean()
    assert abs(share - halfnorm.sf(limit)) < 5 * np.sqrt(halfnorm.sf(limit) / 200_000) + 5e-4


def test_of_equal_answers_none_is_dropped():
    labels = np.eye(4)[np.arange(40) % 4]
    given = received(labels)
    assert recovery.make('drop_outliers')(given, NO_SHADOW).answered.all()


# Shift


@pytest.mark.parametrize('scale', [0.5, 3.0])
@pytest.mark.parametrize('mean', [10.0, 0.0, -4.0])
def test_the_mean_of_noise_is_found(scale, mean):
    own, clean = represent(0, 24), scale * represent(1)
    made = pairs.perturb(f'gaussian_noise(mean={mean}, stddev=1.0)', clean, IMAGES, 3)
    found = recovery.make('subtract_shift')(received(made.perturbed), shadow_of(own))
    taken = (made.perturbed - found.answers[:, 0]).mean()
    assert abs(taken - mean) < 0.5 * clean.mean() + 4 / np.sqrt(clean.size)


def test_a_shift_of_encoders_that_differ_in_scale_is_exact():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(500, 20)) + rng.uniform(0, 3, size=20)
    order = rng.permutation(20)
    assert_allclose(shift.estimate(10 + 7 * own[:, order], own), 10, rtol=1e-6)
    assert_allclose(shift.estimate(own, own), 0, atol=1e-9)


def test_answers_that_did_not_come_stay_zero():
    answered = np.array([[1, 1], [0, 1], [0, 0]])
    given = received(np.ones((3, 2, 4)) * np.arange(4) + 10, answered)
    own = np.tile(np.arange(4.0), (3, 1))
    found = recovery.make('subtract_shift')(given, shadow_of(own))
    assert_allclose(found.answers, np.arange(4) * answered[..., None], atol=1e-5)


# Sybils


@pytest.mark.parametrize('penalties', [sybils.PENALTIES, (1e-10,)])
@pytest.mark.parametrize('kind', ['orthogonal', 'affine', 'pad_shuffle'])
def test_a_transform_is_undone_exactly(kind, penalties):
    rng = np.random.default_rng(0)
    width, clean = 8, rng.normal(size=(60, 8))
    matrix, offset = {
        'orthogonal': lambda: (ortho_group.rvs(width, random_state=0), np.zeros(width)),
        'affine': lambda: (rng.normal(size=(width, width)), rng.normal(size=width)),
        'pad_shuffle': lambda: (np.eye(width, 12)[:, rng.permutation(12)], np.zeros(12)),
    }[kind]()
    source = clean @ matrix + offset
    if kind == 'pad_shuffle':
        source[:, ~matrix.any(axis=0)] = rng.normal(size=4)  # constants in between
    mapped = sybils.fit_map(source[:20], clean[:20], penalties)
    assert_allclose(mapped(source[20:]), clean[20:], atol=1e-4)


def test_more_overlap_helps_against_noise_and_the_penalty_is_chosen():
    rng = np.random.default_rng(0)
    width, clean = 16, rng.normal(size=(3000, 16))
    matrix = rng.normal(size=(width, width)) / 4
    noisy = clean @ matrix + 0.3 * rng.normal(size=clean.shape)

    def error(overlap, penalties=sybils.PENALTIES):
        mapped = sybils.fit_map(noisy[:overlap], clean[:overlap], penalties)
        return np.mean((mapped(noisy[2000:]) - clean[2000:]) ** 2)

    few, some, many = error(20), error(60), error(2000)
    assert many < some < few < 1.1  # of a variance of 1
    assert few < error(20, (1e-10,))
    # the best linear map of the whole distribution, in closed form
    best = (
        np.trace(
            np.eye(width)
            - matrix @ np.linalg.solve(matrix.T @ matrix + 0.09 * np.eye(width), matrix.T)
        )
        / width
    )
    assert abs(many / best - 1) < 0.1


def test_constant_answers_map_to_the_mean():
    target = np.random.default_rng(0).normal(size=(9, 3))
    mapped = sybils.fit_map(np.ones((9, 4)), target)
    assert_allclose(mapped(np.zeros((2, 4))), np.tile(target.mean(axis=0), (2, 1)), rtol=1e-5)


def test_one_target_coordinate():
    source = np.random.default_rng(0).normal(size=(30, 4))
    assert_allclose(sybils.fit_map(source, source[:, 1:2])(source), source[:, 1:2], atol=1e-5)


@pytest.mark.parametrize(
    ('budget', 'accounts', 'overlap'), [(100, 1, 50), (100, 2, 10), (101, 4, 5), (1000, 7, 64)]
)
def test_what_is_dealt_costs_the_budget(budget, accounts, overlap):
    number = sybils.num_images(budget, accounts, overlap)
    dealt = sybils.deal(number, accounts, overlap)
    assert len(dealt) == accounts
    assert sum(map(len, dealt)) == budget
    assert_array_equal(np.unique(np.concatenate(dealt)), np.arange(number))
    sizes = [len(rows) for rows in dealt]
    assert max(sizes) - min(sizes) <= 1
    if accounts > 1:
        own = np.concatenate([rows[overlap:] for rows in dealt])
        assert len(np.unique(own)) == len(own) == number - overlap
        for rows in dealt:
            assert_array_equal(rows[:overlap], np.arange(overlap))


def test_a_larger_budget_asks_each_account_more():
    small, large = (sybils.deal(sybils.num_images(b, 3, 5), 3, 5) for b in (50, 80))
    for few, many in zip(small, large, strict=True):
        assert_array_equal(few, many[: len(few)])


@pytest.mark.parametrize(
    ('args', 'mentioned'),
    [
        ((100, 4, 25), 'attack.overlap=25: 4 accounts.*a budget of 104 inputs, and it is 100'),
        ((100, 0, 5), 'attack.accounts must be a whole number of at least 1, got 0'),
        ((100, True, 5), 'attack.accounts'),
        ((100, 2, -1), 'attack.overlap'),
        ((100, 2, 5.0), 'attack.overlap'),
    ],
)
def test_sybils_that_cannot_be(args, mentioned):
    with pytest.raises(UserError, match=mentioned):
        sybils.num_images(*args)


@pytest.mark.parametrize('m', [1, 2])
def test_merged_accounts_are_one(m):
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(100, m, 6)).astype(np.float32)
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    dealt = sybils.deal(100, 3, 20)
    accounts = []
    for rows in dealt:
        matrix, offset = rng.normal(size=(6, 7)), rng.normal(size=7)
        accounts.append(received(clean[rows] @ matrix + offset, images=images[rows]))
    accounts[2].answered[3] = accounts[2].answered[-1] = False
    found = sybils.merge(accounts, 20)
    assert_array_equal(found.inputs, images)
    assert found.answers.dtype == np.float32 and found.answers.shape == (100, m, 7)
    want = np.ones((100, m), bool)
    want[dealt[2][-1]] = False
    assert_array_equal(found.answered, want)
    # in the first account's space
    back = sybils.fit_map(accounts[0].answers.reshape(-1, 7), clean[dealt[0]].reshape(-1, 6))
    assert_allclose(back(found.answers[found.answered]), clean[found.answered], atol=2e-3)
    assert_array_equal(found.answers[~found.answered], 0)


def test_one_account_is_itself():
    given = received(np.ones((3, 2)))
    assert sybils.merge([given], 5) is given


def test_accounts_without_common_answers_cannot_be_merged():
    given = received(np.ones((6, 2)))
    other = received(np.ones((6, 2)), np.arange(6)[:, None] > 2)
    with pytest.raises(UserError, match='attack.overlap=3: accounts 0 and 1 have 0 answers'):
        sybils.merge([given, other], 3)


# Denoise


def error(answers, clean):
    """Mean squared error of the deviations from the coordinates' means, in spreads of `clean`."""
    off = answers - answers.mean(axis=0) - (clean - clean.mean(axis=0))
    return np.mean(off**2) / pairs.spread(clean) ** 2


def recovered(spec, clean, own, known='', candidates=()):
    """(error of the answers, error after `denoise`)."""
    answers = pairs.perturb(spec, clean, IMAGES, 3).perturbed
    recover = recovery.make(f'denoise(known={known!r}, candidates={candidates!r})')
    found = recover(received(answers), shadow_of(own))
    return error(answers, clean), error(found.answers[:, 0], clean)


@pytest.mark.parametrize('scale', [1.0, 5.0])
@pytest.mark.parametrize('seed', range(2))
def test_noise_is_taken_out_of_the_answers_of_another_encoder(seed, scale):
    clean = scale * represent(10 + seed)
    stddev = pairs.spread(clean)
    spec = f'gaussian_noise(stddev={stddev})'
    before, after = recovered(spec, clean, represent(seed), spec)
    assert abs(before - 1) < 0.03
    assert after < 0.5  # shrinking each coordinate towards its mean alone leaves 1/2


@pytest.mark.parametrize('spec', ['round(decimals=0)', 'top_k(k=8)'])
def test_rounding_and_top_k_are_lessened(spec):
    before, after = recovered(spec, represent(10), represent(0), spec)
    assert after < 0.9 * before


FAMILIES = ('', 'round(decimals=1)', 'top_k(k=3)', 'normalize', 'binarize')


@pytest.mark.parametrize('spec', [*FAMILIES, 'gaussian_noise(stddev=0.15)'])
def test_it_recognizes_the_defense_of_another_encoder(spec):
    candidates = (*FAMILIES, 'gaussian_noise(stddev=0.15)')
    answers = pairs.perturb(spec, represent(10), IMAGES, 3).perturbed
    found, votes = recognition.recognize(answers, represent(0), IMAGES, candidates, 0)
    assert found == spec
    assert votes > 0.5


def test_by_default_it_knows_every_family_and_measures_the_noise():
    own, clean = represent(0), represent(10)
    stddev = 1.2 * pairs.spread(clean)
    answers = pairs.perturb(f'gaussian_noise(stddev={stddev})', clean, IMAGES, 3).perturbed
    candidates = recognition.default_candidates(60, pairs.spread(answers))
    assert set(FAMILIES) <= set(candidates)
    found, _ = recognition.recognize(answers, own, IMAGES, candidates[:6], 0)
    assert found.startswith('gaussian_noise(stddev=')
    assert 0.7 < float(found[:-1].split('=')[1]) / stddev < 1.4


def test_recognized_noise_is_taken_out_and_clean_answers_stay():
    own, clean = represent(0), represent(10)
    spec = f'gaussian_noise(stddev={pairs.spread(clean)})'
    candidates = ['', spec, 'normalize']
    before, after = recovered(spec, clean, own, candidates=candidates)
    assert after < 0.5 < before
    given = received(clean)
    recover = recovery.make(f'denoise(candidates={candidates!r})')
    assert_array_equal(recover(given, shadow_of(own)).answers, given.answers)


def test_the_same_recovery_every_time():
    given = received(represent(10)[:64])
    recover = recovery.make("denoise(known='gaussian_noise(stddev=0.1)')")
    first, again = (recover(given, shadow_of(represent(0))) for _ in range(2))
    assert_array_equal(first.answers, again.answers)
    assert np.abs(first.answers - given.answers).max() > 0.01


def test_views_that_did_not_come_stay_zero():
    clean, own = represent(10)[:80], represent(0)
    answered = np.random.default_rng(0).random((80, 2)) < 0.7
    given = received(np.stack([clean, clean], axis=1), answered)
    found = recovery.make("denoise(known='round(decimals=0)')")(given, shadow_of(own))
    assert found.answers.shape == given.answers.shape and found.answers.dtype == np.float32
    assert_array_equal(found.answers[~answered], 0)
    assert_array_equal(found.answered, answered)
    both = answered.all(axis=1)
    assert_allclose(found.answers[both, 0], found.answers[both, 1], rtol=1e-5, atol=1e-5)


def test_an_encoder_of_another_width_is_refused():
    with pytest.raises(UserError, match='answers have 32 coordinates and .* encoder has 24'):
        recovery.make('denoise')(received(represent(10)), shadow_of(represent(0, 24)))


def test_a_defense_that_changes_the_width_is_refused():
    with pytest.raises(UserError, match=r'binarize\(bits=7\) changes the width of the answers'):
        recovery.make("denoise(known='binarize(bits=7)')")
    with pytest.raises(UserError, match='prediction_poisoning has no shadow'):
        recovery.make("denoise(candidates=('', 'prediction_poisoning'))")


def test_the_scale_is_that_at_which_the_defense_did_it():
    own, clean = represent(0), 6 * represent(10)
    for spec in ('gaussian_noise(stddev=0.5)', 'round(decimals=0)', 'top_k(k=8)', ''):
        target = pairs.spread(pairs.perturb(spec, clean, IMAGES, 3).perturbed)
        factor = pairs.scale(spec, own, IMAGES, target, 0)
        made = pairs.perturb(spec, factor * own[:256], IMAGES, 0)
        assert abs(pairs.spread(made.perturbed) / target - 1) < 0.05


@pytest.mark.parametrize('scale', [1e-13, 1e15])
def test_noise_is_taken_out_at_every_scale(scale):
    clean, spread = represent(10), pairs.spread(represent(10))
    tiny, spec = np.float32(scale) * clean, f'gaussian_noise(stddev={spread / 2 * scale})'
    before, after = recovered(spec, tiny, represent(0), known=spec)
    assert after < 0.7 * before and before == pytest.approx(0.25, rel=0.1)
    unit = recognition.features(clean[:64], spread)[6:]
    assert_allclose(recognition.features(tiny[:64], scale * spread)[6:], unit, rtol=1e-4)


def test_features_by_hand():
    rows = np.array([[0.0, 2.0], [-1.0, 0.0], [0.0, 0.3]])
    found = recognition.features(rows, 1.0)
    assert_allclose(10 ** found[:2], [3 / 6, 1 / 6], rtol=1e-3)
    assert_allclose(found[2:5], [2 / 3, 1, 1])  # of 2, -1 and 0.3 on grids of 1, 0.1, 0.01
    assert_allclose(found[5], 4 / 6)
    assert_allclose(found[6:8], [0, 1 / 2])  # each row has one of two
    assert_allclose(found[9], np.log(1.1 / np.sqrt(2)))


# Traits


@pytest.mark.parametrize(
    ('spec', 'needs', 'same_width'),
    [
        ('', set(), False),
        ('harden', set(), False),
        ('drop_outliers(z=3.0) | subtract_shift', {'shadow'}, False),
        ("drop_outliers | denoise(known='normalize')", {'shadow'}, True),
    ],
)
def test_what_a_chain_needs(spec, needs, same_width):
    assert recovery.needs(spec) == needs and recovery.same_width(spec) is same_width


def closest(received, shadow):
    """Takes the attacker's own representations for answers."""
    return received._replace(answers=shadow.represent(received.inputs)[:, None])


def test_a_third_partys_recovery_gets_the_shadow_that_it_declares(registries_restored):
    recovery.register('closest', needs=('shadow',))(lambda: closest)
    assert recovery.needs('harden | closest') == {'shadow'}
    assert not recovery.same_width('closest')
    found = recovery.make('closest')(received(np.zeros((5, 2))), shadow_of(np.ones((5, 2))))
    assert_array_equal(found.answers[:, 0], np.ones((5, 2)))


def test_a_third_partys_recovery_that_declares_none_gets_none(registries_restored):
    recovery.register('closest')(lambda: closest)
    assert recovery.needs('closest') == set()
    with pytest.raises(UserError, match=r"register it with needs=\('shadow',\)"):
        recovery.make('closest')(received(np.zeros((5, 2))), shadow_of(np.ones((5, 2))))


def test_recovered_answers_that_are_not_finite_are_refused(registries_restored):
    def divided(received, shadow):
        return received._replace(answers=received.answers / np.float32(0))

    recovery.register('divided')(lambda: divided)
    message = "attack.recover='harden | divided': divided makes answers that are not finite"
    with pytest.raises(UserError, match=re.escape(message)), np.errstate(all='ignore'):
        recovery.make('harden | divided')(received(np.ones((5, 2))), NO_SHADOW)


def test_a_need_that_nobody_serves_is_refused(registries_restored):
    with pytest.raises(UserError, match="'victim' is none of shadow"):
        recovery.register('closest', needs=('victim',))


# The spectrum


def test_shrinking_reaches_the_best_linear_estimate_of_a_few_strong_components():
    """Against the Wiener filter of the whole distribution, in closed form."""
    rng = np.random.default_rng(0)
    basis = ortho_group.rvs(40, random_state=1)[:4]
    variances = np.array([9.0, 4.0, 2.0, 1.0])
    clean = rng.normal(size=(2000, 4)) * np.sqrt(variances) @ basis + 3
    noisy = clean + 0.5 * rng.normal(size=clean.shape)
    best = np.sum(variances * 0.25 / (variances + 0.25)) / 40
    for spec in ('shrink', 'shrink(stddev=0.5)'):
        found = recovery.make(spec)(received(noisy, images=np.zeros(2000)), NO_SHADOW)
        assert np.mean((found.answers[:, 0] - clean) ** 2) < 1.25 * best
    assert best < 0.1 * 0.25  # of the noise


@pytest.mark.parametrize('shape', [(500, 40), (40, 500), (100, 100)])
def test_the_deviation_of_noise_is_found_beside_strong_components(shape):
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, shape[1]))
    noisy = strong + 0.3 * rng.normal(size=shape)
    assert abs(np.sqrt(shrink.noise_of(noisy)) / 0.3 - 1) < 0.1


def test_the_median_of_the_law_of_noise_is_the_published_one():
    """omega(1) = 2.858 of Gavish and Donoho is 4 / sqrt(3) over the root of the median."""
    assert abs(4 / np.sqrt(3) / np.sqrt(shrink.marchenko_pastur_median(1.0)) - 2.858) < 1e-3
    assert abs(shrink.marchenko_pastur_median(1e-6) - 1) < 1e-2
    values = np.linalg.svd(np.random.default_rng(0).normal(size=(900, 300)), compute_uv=False) ** 2
    assert abs(np.median(values) / 900 / shrink.marchenko_pastur_median(1 / 3) - 1) < 0.02


def test_a_poisoning_of_rank_one_is_projected_out():
    """Pushed to either side along one direction by its own length, an answer loses that direction
    alone: of D = 32 equal coordinates a share of 1 / 32."""
    rng = np.random.default_rng(0)
    clean = np.abs(rng.normal(size=(600, 32)))
    direction = ortho_group.rvs(32, random_state=2)[0]
    sides = rng.choice([-1, 1], size=(600, 1))
    poisoned = clean + sides * np.linalg.norm(clean, axis=1, keepdims=True) * direction

    def error(rows):
        return np.mean((rows - clean) ** 2) / clean.var()

    found = recovery.make('project_out')(received(poisoned), NO_SHADOW).answers[:, 0]
    assert error(poisoned) > 2
    assert error(found) < 1.5 / 32
    centered = found - found.mean(axis=0)
    assert np.linalg.norm(centered @ direction) < 0.05 * np.linalg.norm(centered)


def test_noise_in_every_direction_is_not_projected_out():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(600, 32))
    noisy = clean + rng.normal(size=clean.shape)
    found = recovery.make('project_out')(received(noisy), NO_SHADOW).answers[:, 0]
    assert np.mean((found - clean) ** 2) > 0.9
