"""The query strategies: the contract that all keep, and each against its definition."""

import io
import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.special import softmax

from ssl_extract import strategies, testing
from ssl_extract.errors import UserError
from ssl_extract.strategies import knockoff
from ssl_extract.strategies.base import Seen
from ssl_extract.strategies.consistency import instability

SIZE, CLASSES = 60, 4
FAST = {'consistency': "consistency(augmentation='flip')"}  # its default compiles for seconds
SPECS = [FAST.get(name, name) for name in sorted(strategies.STRATEGIES)]
WEIGHTS = np.random.default_rng(5).normal(size=(4 * 4 * 3, CLASSES)).astype(np.float32)


def pool(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)


def logits(images):
    """A linear victim or surrogate."""
    assert images.dtype == np.uint8
    return (images.reshape(-1, len(WEIGHTS)) / np.float32(255) - 0.5) @ WEIGHTS


def see(images, asked=(), round_=1, *, represent=logits, predict=logits, answer=None, **kwargs):
    """What the attacker knows in a round, of a victim that answers with posteriors."""
    asked = np.array(asked, np.int32)
    answers = (answer or (lambda x: softmax(logits(x), axis=1)))(images[asked])
    labels = kwargs.pop('labels', np.arange(len(images), dtype=np.int32) % CLASSES)
    known = (
        {'represent': represent, 'predict': predict}
        if round_
        else dict.fromkeys(['represent', 'predict'])
    )
    given = {'labels': labels, 'seed': 3, 'round': round_} | known | kwargs
    return Seen(inputs=images, asked=asked, answers=answers.astype(np.float32), **given)


def stored(state):
    """The state as it comes back from disk."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def run(spec, counts, images, keep=stored, **kwargs):
    """All rounds of a strategy; the order in which it asks, and its state."""
    strategy, asked, state = strategies.make(spec), np.empty(0, np.int32), {}
    for round_, count in enumerate(counts):
        chosen, state = strategy.choose(see(images, asked, round_, **kwargs), count, state)
        assert isinstance(chosen, np.ndarray)
        assert chosen.dtype == np.int32
        assert chosen.shape == (count,)
        asked = np.concatenate([asked, chosen])
        state = keep(state)
    return asked, state


# The contract


def counts_of(spec, total):
    """Unequal shares of `total` for each round of the strategy."""
    rounds = strategies.make(spec).rounds
    shares = np.full(rounds, total // rounds)
    shares[: total % rounds] += 1
    return shares.tolist()


@pytest.mark.parametrize('spec', SPECS)
def test_contract(spec):
    testing.check_strategy(spec)


FREE = ['random', 'kcenter', 'diverse', 'stay_close']  # of labels and of what a pool holds


@pytest.mark.parametrize('spec', [*FREE, FAST['consistency']])
def test_the_first_round_is_that_of_chance(spec):
    order = np.random.default_rng((3, 1)).permutation(SIZE)
    for count in (5, 20):
        asked, _ = run(spec, [count], pool())
        assert_array_equal(asked, order[:count])


@pytest.mark.parametrize('spec', [*FREE, 'longest', FAST['consistency']])
def test_needs_no_labels(spec):
    testing.check_strategy(spec, labeled=False)


@pytest.mark.parametrize(
    ('spec', 'mentioned'),
    [
        ('kcentre', "did you mean 'kcenter'"),
        ('random(rounds=2)', 'rounds'),
        ('kcenter(rounds=1)', 'rounds must be a whole number from 2 to 1000, got 1'),
        ('kcenter(rounds=True)', 'rounds'),
        ('stay_close(rounds=1)', 'rounds must be a whole number from 2 to 1000, got 1'),
        ('consistency(rounds=2.0)', 'rounds'),
        ('consistency(views=1)', 'views must be a whole number from 2 to 100'),
        ("consistency(augmentation='blurr')", 'blurr'),
        ("knockoff(rounds='8')", 'rounds'),
        ('knockoff(learning_rate=0)', 'learning_rate must be a finite number above 0'),
        ('knockoff(window=0)', 'window must be a whole number from 1'),
    ],
)
def test_wrong_arguments(spec, mentioned):
    with pytest.raises(UserError, match='query strategy') as error:
        strategies.make(spec)
    assert mentioned in str(error.value)


# diverse


def test_diverse_draws_in_proportion_to_the_squared_distance():
    images, asked = pool(8), [0, 5]
    points = np.array([0, 1, 2, 4, 7, 10, 3, 0], np.float32)[:, None]
    place = {image.tobytes(): point for image, point in zip(images, points, strict=True)}

    def represent(rows):
        return np.stack([place[row.tobytes()] for row in rows])

    choose = strategies.make('diverse').choose
    firsts = [
        choose(see(images, asked, represent=represent, seed=seed), 1, {})[0][0]
        for seed in range(3_000)
    ]
    squared = cdist(points, points[asked]).min(axis=1) ** 2
    assert_allclose(np.bincount(firsts, minlength=8) / 3_000, squared / squared.sum(), atol=0.03)
    assert 7 not in firsts  # as near to what was asked as can be
    both = choose(see(images, asked, represent=represent), 6, {})[0]
    assert sorted(both) == [1, 2, 3, 4, 6, 7] and both[-1] == 7


# longest


def test_longest_asks_the_longest_clips_and_ties_go_by_chance():
    lengths = np.array([3, 9, 5, 9, 1, 9, 7])
    clips = np.where(np.arange(9) < lengths[:, None], 0, -(2**15)).astype(np.int16)
    texts = np.where(np.arange(9) < lengths[:, None], 1, -1).astype(np.int32)
    seen = [set(), set()]
    for seed in range(30):
        for inputs, orders in zip((clips, texts), seen, strict=True):
            given = Seen(inputs, None, np.array([6]), np.zeros((1, 2)), None, None, seed, 0)
            chosen, _ = strategies.make('longest').choose(given, 5, {})
            assert lengths[chosen].tolist() == [9, 9, 9, 5, 3]
            orders.add(tuple(chosen[:3]))
    assert len(seen[0]) == 6 and seen[0] == seen[1]


# k-center


def test_kcenter_is_the_greedy_algorithm():
    images = pool(300)
    asked = np.random.default_rng(1).permutation(300)[:70]
    found, _ = strategies.make('kcenter').choose(see(images, asked), 60, {})
    points = logits(images).astype(np.float64)
    centers = list(asked)
    for image in found:
        nearest = cdist(points, points[centers]).min(axis=1)
        assert image == nearest.argmax()
        centers.append(image)


@pytest.mark.parametrize('blocks', [(1, 1), (7, 5)])
def test_kcenter_does_not_depend_on_its_blocks(monkeypatch, blocks):
    given = see(pool(), range(20))
    expected, _ = strategies.make('kcenter').choose(given, 15, {})
    monkeypatch.setattr(strategies.kcenter, '_BLOCK', blocks[0])
    monkeypatch.setattr(strategies.base, '_BLOCK', blocks[1])
    assert_array_equal(strategies.make('kcenter').choose(given, 15, {})[0], expected)


@pytest.mark.parametrize('seed', range(10))
def test_kcenter_is_at_most_twice_the_best(seed):
    images, asked, count = pool(11, seed), [0, 1], 3
    distances = cdist(logits(images), logits(images))

    def radius(centers):
        return distances[:, [*asked, *centers]].min(axis=1).max()

    found, _ = strategies.make('kcenter').choose(see(images, asked), count, {})
    best = min(radius(c) for c in itertools.combinations(range(2, 11), count))
    assert best <= radius(found) <= 2 * best + 1e-6


@pytest.mark.parametrize('spec', ['kcenter', 'stay_close', FAST['consistency']])
@pytest.mark.parametrize(('offset', 'scale'), [(1e3, 1.0), (0.0, 1e-20), (0.0, 1e19)])
def test_choices_do_not_depend_on_a_common_offset_or_the_scale(spec, offset, scale):
    if spec == FAST['consistency'] and offset:
        return  # its angles depend on the offset
    images = pool(100)

    def shifted(images):
        return ((logits(images).astype(np.float64) + offset) * scale).astype(np.float32)

    choose = strategies.make(spec).choose
    found, _ = choose(see(images, range(10), represent=shifted), 10, {})
    assert_array_equal(found, choose(see(images, range(10)), 10, {})[0])


def test_kcenter_of_a_collapsed_surrogate_is_random():
    given = see(pool(), [5, 7], represent=lambda x: np.ones((len(x), 3), np.float32))
    order = np.random.default_rng((3, 1)).permutation(SIZE)
    expected = order[~np.isin(order, [5, 7])][:58]
    assert_array_equal(strategies.make('kcenter').choose(given, 58, {})[0], expected)


# Stay close


def clusters(seed=0, size=1500, groups=12):
    """Images in clusters of pixels, and which one each belongs to."""
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 256, (groups, 4, 4, 3))
    labels = rng.integers(groups, size=size)
    noise = rng.normal(scale=25, size=(size, 4, 4, 3))
    return np.clip(centers[labels] + noise, 0, 255).astype(np.uint8), labels


def num_buckets(points, bits=12, seed=0):
    """Of the sign patterns of random projections of the centered points, how many occur."""
    planes = np.random.default_rng(seed).normal(size=(points.shape[1], bits))
    centered = points - points.mean(axis=1, keepdims=True)
    return len(np.unique(centered @ planes > 0, axis=0))


@pytest.mark.parametrize('seed', range(5))
def test_stay_close_fills_fewer_buckets_than_chance(seed):
    images, _ = clusters(seed)
    rng = np.random.default_rng(50 + seed)
    weights = rng.normal(size=(48, 32))
    learnt = weights + 0.3 * rng.normal(size=weights.shape)

    def encode(images, weights):
        return np.maximum((pixels(images) / 255 - 0.5) @ weights, 0)

    def filled(spec):
        asked, _ = run(
            spec, counts_of(spec, 120), images, represent=lambda x: encode(x, learnt), seed=seed
        )
        return num_buckets(encode(images[asked], weights))

    assert filled('stay_close(rounds=8)') < 0.75 * filled('random')


def test_stay_close_asks_the_neighbors_of_the_medoid():
    images = pool(200)
    asked = np.random.default_rng(1).permutation(200)[:30]
    found, _ = strategies.make('stay_close').choose(see(images, asked), 20, {})
    points = logits(images).astype(np.float64)
    far = cdist(points, points, 'correlation')  # one minus the cosine of centered rows
    medoid = asked[far[np.ix_(asked, asked)].sum(axis=1).argmin()]
    left = np.setdiff1d(np.arange(200), asked)
    assert_array_equal(found, left[np.argsort(far[left, medoid])[:20]])


def test_stay_close_goes_where_its_images_are_dense():
    images, labels = clusters()
    asked = np.concatenate([np.flatnonzero(labels == 3)[:9], np.flatnonzero(labels != 3)[:11]])
    found, _ = strategies.make('stay_close').choose(see(images, asked, represent=pixels), 20, {})
    assert_array_equal(labels[found], 3)


def test_stay_close_does_not_depend_on_its_blocks(monkeypatch):
    given = see(pool(), range(20))
    expected, _ = strategies.make('stay_close').choose(given, 15, {})
    monkeypatch.setattr(strategies.base, '_BLOCK', 7)
    assert_array_equal(strategies.make('stay_close').choose(given, 15, {})[0], expected)


def test_stay_close_of_a_collapsed_surrogate_is_random():
    given = see(pool(), [5, 7], represent=lambda x: np.ones((len(x), 3), np.float32))
    order = np.random.default_rng((3, 1)).permutation(SIZE)
    expected = order[~np.isin(order, [5, 7])][:58]
    assert_array_equal(strategies.make('stay_close').choose(given, 58, {})[0], expected)


# Consistency


def pixels(images):
    return images.reshape(len(images), -1).astype(np.float32)


def test_consistency_asks_the_unstable():
    images = pool(40)
    images[:, :, 2:] = images[:, :, 1::-1]  # mirror images of themselves: a flip changes nothing
    unstable = [3, 8, 21, 33]
    images[unstable] = pool(4, 9)
    strategy = strategies.make("consistency(views=12, augmentation='flip')")
    found, _ = strategy.choose(see(images, [0, 1], represent=pixels), 6, {})
    assert sorted(found[:4]) == unstable
    order = np.random.default_rng((3, 1)).permutation(40)
    rest = order[~np.isin(order, [0, 1, *unstable])]  # ties
    assert_array_equal(found[4:], rest[:2])


def test_consistency_sees_fresh_views_of_every_image_in_every_round():
    shown = []

    def represent(images):
        shown.append(images.copy())
        return pixels(images)

    images = np.broadcast_to(pool(1), (SIZE, 4, 4, 3))
    strategy = strategies.make("consistency(views=3, augmentation='color_jitter(p=1.0)')")
    for round_ in (1, 2):
        strategy.choose(see(images, range(10), round_, represent=represent), 5, {})
    assert [x.shape for x in shown] == [(50, 4, 4, 3)] * 6
    assert len(np.unique(np.concatenate(shown), axis=0)) > 290


def test_consistency_in_blocks(monkeypatch):
    monkeypatch.setattr(strategies.consistency, '_BLOCK', 16)
    given = see(pool(), range(10))
    strategy = strategies.make("consistency(augmentation='')")
    expected = np.random.default_rng((3, 1)).permutation(SIZE)
    found, _ = strategy.choose(given, 50, {})  # plain images: all tie, at zero
    assert_array_equal(found, expected[~np.isin(expected, range(10))])


def test_instability_is_one_minus_the_squared_length_of_the_mean():
    views = np.random.default_rng(0).normal(size=(5, 7, 3))
    units = views / np.linalg.norm(views, axis=-1, keepdims=True)
    expected = 1 - np.sum(units.mean(axis=0) ** 2, axis=-1)
    assert_allclose(instability(views), expected, rtol=1e-12)
    assert_array_equal(instability(np.zeros((2, 1, 3))), [0])


def test_consistency_with_its_own_augmentation():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    found, _ = strategies.make('consistency').choose(
        see(images[:, :4, :4], [0, 1])._replace(inputs=images, represent=pixels), 10, {}
    )
    assert sorted(found) == list(range(2, 12))


# Knockoff


def test_knockoff_rewards_by_hand():
    answers = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2]], np.float32)
    predictions = np.log([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [1, 1, 1]])
    losses = [
        -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)),
        -(0.1 * np.log(0.5) + 0.9 * np.log(0.25)),
        np.log(3),
    ]
    certainty = [0.5, 0.7, 0.0]
    diversity = [1.0, 0.6, 0.1]  # of means 0, (.7, .2, .1) and (.4, .5, .1)
    expected = np.stack([certainty, diversity, losses], axis=1)
    assert_allclose(knockoff.rewards(answers, 0, 100, predictions), expected, atol=1e-6)
    assert_allclose(knockoff.rewards(answers, 2, 9, predictions[2:]), expected[2:], atol=1e-6)
    assert_allclose(knockoff.rewards(answers, 0, 100, None), expected[:, :2], atol=1e-6)
    short = knockoff.rewards(answers, 0, 1, None)
    assert_allclose(short[:, 1], [1.0, 0.6, 0.4], atol=1e-6)  # the last, against the one before
    assert_allclose(knockoff.rewards(answers, 2, 1, None), short[2:], atol=1e-6)


def test_knockoff_updates_by_hand():
    gained = np.array([[0.0], [1.0], [0.0]])
    found, draws = knockoff.learn(np.zeros(2), np.zeros(2, int), [0, 1, 0], gained, 1.0, 100)
    # the first has no mean to beat; the second is 1 above it, at policy (1/2, 1/2)
    preferences = np.array([-0.5, 0.5])
    # the third, of the class drawn before, is 1/2 below the mean: half of -1/2
    policy = np.array([1, np.e]) / (1 + np.e)
    preferences += -0.25 * (np.array([1, 0]) - policy)
    assert_allclose(found, preferences, rtol=1e-12)
    assert_array_equal(draws, [2, 1])
    # with a window of one it is 1 below, at twice the rate
    found, _ = knockoff.learn(np.zeros(2), np.zeros(2, int), [0, 1, 0], gained, 2.0, 1)
    policy = np.array([1, np.e**2]) / (1 + np.e**2)
    assert_allclose(found, [-1, 1] - (np.array([1, 0]) - policy), rtol=1e-12)


def test_knockoff_rescales_each_reward_and_sums_them():
    gained = np.array([[0.0, 10.0, 5.0], [0.2, 40.0, 5.0], [0.1, 20.0, 5.0]])
    found, _ = knockoff.learn(np.zeros(2), np.zeros(2, int), [1, 0, 1], gained, 1.0, 100)
    preferences = np.array([1.0, -1.0])  # both rewards 1 above the mean: 2 * 1/2
    advantage = 0.0 + (20 - 25) / 30  # the third reward never varies
    preferences += advantage / 2 * (np.array([0, 1]) - softmax(preferences))
    assert_allclose(found, preferences, rtol=1e-12)


def test_knockoff_pays_a_round_when_the_next_is_chosen():
    images = pool()
    strategy = strategies.make('knockoff(learning_rate=0.5)')
    first, state = strategy.choose(see(images, [], 0), 6, {})
    assert_array_equal(state['preferences'], 0)
    second, state = strategy.choose(see(images, first), 6, stored(state))
    answers = softmax(logits(images[first]), axis=1)
    gained = knockoff.rewards(answers, 0, 100, None)  # nothing had been predicted
    expected, draws = knockoff.learn(
        np.zeros(CLASSES), np.zeros(CLASSES), first % CLASSES, gained, 0.5, 100
    )
    assert_allclose(state['preferences'], expected, rtol=1e-5)
    asked = np.concatenate([first, second])
    _, state = strategy.choose(see(images, asked, 2, predict=None), 6, stored(state))
    answers = softmax(logits(images[asked]), axis=1)
    gained = knockoff.rewards(answers, 6, 100, logits(images[second]))  # predicted when asked
    expected, draws = knockoff.learn(expected, draws, second % CLASSES, gained, 0.5, 100)
    assert_allclose(state['preferences'], expected, rtol=1e-5)
    assert_array_equal(draws, state['draws'])
    assert draws.sum() == 12


def planted(images):
    """Sure of the images with a bright first pixel, in various ways, and of no other."""
    bright = images[:, 0, 0, 0] > 127
    sure = np.eye(CLASSES)[images[:, 1, 1, 1] % CLASSES]
    return np.where(bright[:, None], sure, 1 / CLASSES)


@pytest.mark.parametrize('seed', range(3))
def test_knockoff_learns_to_prefer_what_is_rewarded(seed):
    images, labels = pool(1200), np.arange(1200, dtype=np.int32) % 3 * 10  # any three numbers
    images[:, 0, 0, 0] = np.where(labels == 20, 255, 0)
    asked, state = run(
        'knockoff',
        [40] * 8,
        images,
        labels=labels,
        answer=planted,
        predict=lambda x: np.zeros((len(x), CLASSES), np.float32),
        seed=seed,
    )
    assert np.argmax(state['preferences']) == 2
    assert (labels[asked[:40]] == 20).mean() < 0.6
    assert (labels[asked[-80:]] == 20).mean() > 0.75


def test_knockoff_goes_on_when_its_class_runs_out():
    images, labels = pool(300), (np.arange(300) >= 20).astype(np.int32)
    images[:, 0, 0, 0] = np.where(labels == 0, 255, 0)
    asked, _ = run('knockoff', [30] * 10, images, labels=labels, answer=planted)
    assert_array_equal(np.sort(asked), np.arange(300))


def test_knockoff_of_labels_and_of_a_refused_image():
    """A labels oracle is always certain; answers may lack an image that was chosen."""
    images = pool()
    strategy = strategies.make('knockoff')
    first, state = strategy.choose(see(images), 10, {})
    kept = np.delete(first, 4)
    seen = see(images, kept, answer=lambda x: np.eye(CLASSES)[logits(x).argmax(axis=1)])
    _, state = strategy.choose(seen, 10, stored(state))
    gained = knockoff.rewards(seen.answers, 0, 100, logits(images[kept]))
    assert_array_equal(gained[:, 0], 1)
    expected, _ = knockoff.learn(
        np.zeros(CLASSES), np.zeros(CLASSES), kept % CLASSES, gained, 1.0, 100
    )
    assert_allclose(state['preferences'], expected, rtol=1e-5)


@pytest.mark.parametrize(
    'answer',
    [
        logits,
        lambda x: np.full((len(x), CLASSES), 0.3),
        lambda x: np.tile([1.2, -0.2, 0, 0], (len(x), 1)),
        lambda x: np.ones((len(x), 1)),
        lambda x: np.full((len(x), CLASSES), np.nan),
    ],
    ids=['logits', 'sum', 'negative', 'one class', 'nan'],
)
def test_knockoff_needs_probabilities(answer):
    choose = strategies.make('knockoff').choose
    with pytest.raises(UserError, match='attack.strategy=knockoff.*`posteriors` or `labels`'):
        choose(see(pool(), [1, 2, 3], answer=answer), 5, {})


def test_knockoff_needs_labels():
    with pytest.raises(UserError, match=r'attack\.strategy=knockoff.*attack\.data'):
        strategies.make('knockoff').choose(see(pool(), [], 0, labels=None), 5, {})


def test_what_a_strategy_needs():
    assert strategies.needs('knockoff(rounds=3)') == {'labels', 'probabilities'}
    assert strategies.needs('longest') == {'lengths'}
    assert not any(strategies.needs(name) for name in FREE)
