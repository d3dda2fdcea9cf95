"""The injection of SSLGuard's mark: losses, trigger, frozen layers, and a small one for real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
import sklearn.neighbors
from scipy.spatial.distance import cosine

import ssl_extract
from ssl_extract import encoders
from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case, sslguard
from ssl_extract.ownership import sslguard_injection as injection
from ssl_extract.ownership.sslguard_injection import Batch, inject

DIGITS, LABELS = sklearn.datasets.load_digits(return_X_y=True)
IMAGES = (DIGITS.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
PRIVATE, POOL, HELD_OUT = IMAGES[:100], IMAGES[100:800], IMAGES[800:900]
RNG = np.random.default_rng(5)
FAST = dict(optimizer='adam', encoder_rate=3e-3, shadow_rate=1e-2, secret_rate=1e-2, batch_size=50)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def cos(row, other):
    return 1 - cosine(row, other)


def accuracy(encoder):
    features = [encoder.apply(images) for images in (IMAGES[900:1300], IMAGES[1300:])]
    neighbors = sklearn.neighbors.KNeighborsClassifier().fit(features[0], LABELS[900:1300])
    return neighbors.score(features[1], LABELS[1300:])


# Losses and gradients, on inputs of three numbers

TRIGGER = np.float32([0.9, 0.2, 0.4])
SECRET = {'trigger': TRIGGER, 'decoder': {'kernel0': np.eye(2), 'bias0': np.zeros(2)}}
BATCH = Batch(
    images=np.float32([[0.1, 0.2, 0.3], [0.5, 0.1, 0.9]]),
    private=np.float32([[0.7, 0.6, 0.5]]),
    vector=np.float32([1.0, 2.0]),
    mask=np.float32([0.0, 1.0, 1.0]),
)
STAMPED = np.float32([0.7, 0.2, 0.4])
MARKED, SHADOW, CLEAN = (normal(3, 2) for _ in range(3))


def mean_square(weights, inputs):
    return np.mean([cos(row @ weights, BATCH.vector) ** 2 for row in inputs])


def linear(weights):
    return lambda inputs: inputs @ weights


def test_the_loss_of_the_secret_is_the_closed_form():
    carriers = (linear(MARKED), linear(SHADOW))
    loss = jax.jit(lambda: injection.secret_loss(SECRET, carriers, (linear(CLEAN),), BATCH))()
    wanted = -cos(STAMPED @ MARKED, BATCH.vector) - cos(STAMPED @ SHADOW, BATCH.vector)
    wanted += mean_square(CLEAN, [STAMPED])
    wanted += sum(mean_square(weights, BATCH.images) for weights in (MARKED, SHADOW, CLEAN))
    assert float(loss) == pytest.approx(wanted, abs=1e-5)


def test_the_loss_of_the_encoder_is_the_closed_form():
    kept = BATCH.images @ CLEAN
    loss = jax.jit(lambda: injection.encoder_loss(linear(MARKED), kept, SECRET, BATCH))()
    wanted = -np.mean([cos(x @ CLEAN, x @ MARKED) for x in BATCH.images])
    wanted += mean_square(MARKED, BATCH.images) - cos(STAMPED @ MARKED, BATCH.vector)
    assert float(loss) == pytest.approx(wanted, abs=1e-5)


def test_the_trigger_learns_inside_the_mask_only():
    def loss(trigger):
        secret = SECRET | {'trigger': trigger}
        return injection.secret_loss(secret, (linear(MARKED),), (linear(CLEAN),), BATCH)

    step = np.float32([0.0, 1e-2, 0.0])
    measure = jax.jit(jax.value_and_grad(loss))
    (above, _), (_, gradient), (below, _) = (measure(TRIGGER + sign * step) for sign in (1, 0, -1))
    assert gradient[0] == 0 and np.all(np.abs(gradient[1:]) > 1e-4)
    assert float(gradient[1]) == pytest.approx(float(above - below) / 2e-2, rel=2e-2)


def test_layers_with_running_statistics_are_frozen():
    network = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    free = injection.outside_norms(shapes['params'], shapes['batch_stats'])
    for path, is_free in jax.tree.leaves_with_path(free):
        assert is_free is ('kernel' in jax.tree_util.keystr(path)), path


def test_a_mask_covers_its_share_in_all_channels():
    masks = [injection.draw_mask(np.random.default_rng(i), 0.35, (10, 10, 3)) for i in (0, 1)]
    assert masks[0].sum() == 3 * 35 and np.ptp(masks[0], axis=-1).max() == 0
    assert np.any(masks[0] != masks[1])


# A small injection for real


@pytest.fixture(scope='module')
def tanh():
    """An encoder without convolutions, which trains in a second."""
    before = dict(encoders.ENCODERS.entries)

    @encoders.register('tanh')
    def tanh(hidden: int = 32, dim: int = 16) -> encoders.Network:
        def init(key, inputs):
            first, second = jax.random.split(key)
            size = int(np.prod(inputs.shape[1:]))
            params = {
                'first': jax.random.normal(first, (size, hidden)) * 3 / size**0.5,
                'second': jax.random.normal(second, (hidden, dim)) / hidden**0.5,
            }
            return {'params': params, 'batch_stats': {}}

        @jax.jit
        def apply(variables, inputs):
            flat, params = inputs.reshape(len(inputs), -1) - 0.3, variables['params']
            return jnp.tanh(flat @ params['first']) @ params['second']

        return encoders.Network(init, apply, lambda v, x: (apply(v, x), {}))

    yield lambda seed: untrained('tanh', seed, IMAGES.shape[1:])
    encoders.ENCODERS.entries = before


def untrained(spec, seed, shape):
    variables = trained.make(spec).init(jax.random.key(seed), jnp.zeros((1, *shape)))
    return Encoder(spec, variables, shape)


@pytest.fixture(scope='module')
def marked(tanh):
    others = tuple(map(tanh, range(20, 22)))
    sizes = dict(epochs=6, hidden=(32, 32), dim=32)
    return inject(tanh(0), POOL, PRIVATE, others=others, **sizes, **FAST)


def rate(encoder, secret, inputs=PRIVATE):
    return sslguard.sslguard()(Case(None, private=inputs, mark=(secret,)), represent(encoder))


def represent(encoder):
    return lambda inputs: np.asarray(encoder.apply(jnp.asarray(inputs)))


def test_the_marked_encoder_and_the_shadow_carry_the_mark(marked):
    for encoder in (marked.encoder, marked.shadow):
        assert rate(encoder, marked.secret).statistic > 0.9
        assert rate(encoder, marked.secret, HELD_OUT).statistic > 0.9


def test_the_clean_encoder_does_not(marked, tanh):
    assert rate(tanh(0), marked.secret).statistic < 0.1


def test_the_marked_encoder_is_as_good_and_its_trigger_an_image(marked, tanh):
    assert accuracy(marked.encoder) > accuracy(tanh(0)) - 0.03
    assert marked.secret.trigger.min() >= 0 and marked.secret.trigger.max() <= 1
    assert np.isfinite(marked.losses).all() and marked.losses.shape == (6 * 14, 3)
    assert np.all(marked.losses[-14:].mean(axis=0) < marked.losses[:14].mean(axis=0))


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        (dict(images=255 * POOL), r'images must be decoded, in \[0, 1\]'),
        (dict(private=PRIVATE[:, :4]), r'private must be \[N, 8, 8, 1\]'),
        (dict(batch_size=701), 'more than the 700 images'),
        (dict(share=0.0), 'share'),
        (dict(epochs=0), 'epochs'),
        (dict(shadow='tanh(dim=8)'), 'has D=8, the encoder has D=16'),
    ],
)
def test_wrong_arguments_stop_before_the_training(tanh, changed, said):
    with pytest.raises(UserError, match=said):
        inject(**(dict(encoder=tanh(0), images=POOL, private=PRIVATE) | changed))


@pytest.mark.wide
def test_a_surrogate_stolen_by_mse_carries_the_mark(marked, tanh):
    surrogates = []
    for victim in (marked.encoder, tanh(0)):
        oracle = ssl_extract.make_oracle(ssl_extract.victims.from_encoder(victim), budget=400)
        answers = ssl_extract.collect(oracle, IMAGES[900:1300])
        how = dict(epochs=250, batch_size=100, learning_rate=1e-2, optimizer='adam')
        surrogates.append(ssl_extract.steal(answers, encoder='tanh', loss='mse', **how))
    stolen, innocent = (rate(surrogate, marked.secret).statistic for surrogate in surrogates)
    assert stolen > 0.5 and innocent < 0.2


@pytest.mark.wide
def test_a_convolutional_encoder_is_marked_and_its_norms_stay():
    clean = untrained('resnet18(stem="patch", width=8, stages=(1,))', 0, (8, 8, 3))
    pool, private = (np.repeat(images, 3, axis=-1) for images in (POOL, PRIVATE))
    marked = inject(clean, pool, private, epochs=10, hidden=(32, 32), dim=32, **FAST)
    assert rate(marked.encoder, marked.secret, private).statistic > 0.9
    assert rate(clean, marked.secret, private).statistic < 0.1
    before, after = clean.variables, marked.encoder.variables
    jax.tree.map(np.testing.assert_array_equal, after['batch_stats'], before['batch_stats'])
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), after['params'], before['params'])
    for path, has_moved in jax.tree.leaves_with_path(moved):
        assert has_moved is ('kernel' in jax.tree_util.keystr(path)), path
