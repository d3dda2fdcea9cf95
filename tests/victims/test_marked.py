"""A victim with the rotation watermark: its predictor is trained, learns, and is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import augment, data, training, victims
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.ownership import rotation_watermark
from ssl_extract.runtime import loggers, parallel
from ssl_extract.victims import endpoints, exported
from ssl_extract.victims.pretraining.rotation_watermark import rotated

SPEC = 'resnet18(stem="patch", width=8, stages=(1,))'
SHAPE = (8, 8, 3)
RECIPE = victims.VICTIMS.make(
    'rotation_watermark(hidden=8, dim=8, predictor=16)',
    encoder=trained.make(SPEC),
    augmentation=augment.make('random_crop(padding=1)'),
)


def encoder_of(state):
    heads = {name: chain.part(state, name) for name, _ in RECIPE.heads}
    return Encoder(SPEC, chain.part(state, 'encoder'), SHAPE, RECIPE.heads, heads)


@pytest.fixture(scope='module')
def start():
    return training.init_state(RECIPE, 'adam', jax.random.key(0), SHAPE)


def test_the_predictor_is_trained_and_learns(tmp_path, start):
    digits = data.load('digits', 'train')
    fit = training.fit(
        RECIPE,
        {'inputs': digits.inputs},
        num_steps=120,
        batch_size=64,
        learning_rate=5e-3,
        folder=tmp_path,
        mesh=parallel.data_mesh(1),
    )
    before, after = (jax.tree.leaves(chain.part(s, 'rotation')) for s in (start, fit.state))
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(after, before, strict=True))
    rows = loggers.read_parts(tmp_path / 'metrics')
    assert rows[0]['mark_loss'] > 0.6 and np.mean([r['mark_loss'] for r in rows[-10:]]) < 0.5
    test = data.load('digits', 'test[:200]').inputs / np.float32(255)
    halves = jax.jit(rotated)(jax.random.key(1), test)
    rates = []
    for state in (start, fit.state):
        encoder = encoder_of(state)
        mark = rotation_watermark.mark_of(encoder)
        read = lambda x, e=encoder, m=mark: m(e.apply(x))  # noqa: E731
        rates.append(rotation_watermark.scores(read, halves).mean())
    assert abs(rates[0] - 0.5) < 0.1 and rates[1] > 0.7


def test_the_objective_is_both_losses(start):
    """A predictor whose last layer is nothing costs log 2, whatever the weight of SimCLR's part."""
    views = tuple(jax.random.uniform(jax.random.key(i), (4, *SHAPE)) for i in range(2))
    params = start.params | {'rotation': jax.tree.map(jnp.zeros_like, start.params['rotation'])}
    losses = []
    for weight in (1.0, 3.0):
        recipe = victims.VICTIMS.make(
            f'rotation_watermark(hidden=8, dim=8, predictor=16, weight={weight})',
            encoder=trained.make(SPEC),
            augmentation=augment.make(''),
        )
        batch = {'views': views, 'rotated': views}
        loss, (_, measured) = recipe.objective(params, start.batch_stats, batch)
        assert float(measured['mark_loss']) == pytest.approx(np.log(2), rel=1e-6)
        losses.append(float(loss))
    assert losses[1] - losses[0] == pytest.approx(2 * np.log(2), rel=1e-5)


def test_a_marked_victim_is_read_as_it_was_written(tmp_path, start):
    encoder, images = encoder_of(start), np.random.default_rng(0).random((3, *SHAPE), np.float32)
    trained.save(tmp_path / 'folder', encoder)
    exported.export(encoder, tmp_path / 'file.safetensors')
    wanted = rotation_watermark.mark_of(encoder)(encoder.apply(images))
    for path in (tmp_path / 'folder', tmp_path / 'file.safetensors'):
        read = exported.load(path)
        assert read.heads == encoder.heads
        found = rotation_watermark.mark_of(read)(read.apply(images))
        np.testing.assert_array_equal(found, wanted)


def test_the_predictor_is_no_part_of_what_is_answered(start):
    encoder, images = encoder_of(start), np.random.default_rng(0).random((3, *SHAPE), np.float32)
    apply, variables = encoder.through_heads()
    projections = apply(variables, images)
    victim = endpoints.at(victims.from_encoder(encoder), 'projection')
    assert projections.shape == (3, 8) and victim.dim == 8
    np.testing.assert_array_equal(victim.answer(images), projections)
