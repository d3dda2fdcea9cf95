"""Views of tokens: against plain Python, by their statistics, and what they keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import augment
from ssl_extract.errors import UserError

COUNT = 4000  # views of a row; a share of 0.1 deviates by 0.005
ROW = np.array([10, 11, 12, 13, 14, 15, 16, 17, -1, -1], np.float32)
SPECS = ['token_dropout(p=0.3)', 'token_swap(p=0.5)', 'span_crop(share=(0.25, 0.75))']


KEYS = jax.random.split(jax.random.key(3), COUNT)


@functools.cache
def _op(spec):
    return jax.jit(jax.vmap(augment.make(spec)))


@functools.cache
def _views(spec, row):
    return np.asarray(_op(spec)(KEYS, np.tile(np.float32(row), (COUNT, 1))))


def views(spec, row=ROW):
    return _views(spec, tuple(row))


def texts(rows):
    """The tokens of each row; padding stands behind them and nowhere else."""
    lengths = (rows >= 0).sum(axis=1)
    assert ((np.arange(rows.shape[1]) < lengths[:, None]) == (rows != -1)).all()
    return [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]


def test_dropout_removes_a_share_and_keeps_the_order():
    drawn = texts(views('token_dropout(p=0.3)'))
    assert all(text == sorted(set(text)) and set(text) <= {*ROW[:8]} for text in drawn)
    shares = [np.mean([token in text for text in drawn]) for token in ROW[:8]]
    np.testing.assert_allclose(shares, 0.7, atol=0.03)  # each alike: no gap is left


def test_dropout_keeps_one_token_any_of_them():
    drawn = texts(views('token_dropout(p=1.0)'))
    assert {len(text) for text in drawn} == {1}
    counts = np.bincount(np.ravel(drawn).astype(int))[10:]
    np.testing.assert_allclose(counts / COUNT, 1 / 8, atol=0.03)


def swapped(text, drawn):
    """Swaps from the left, where `drawn` says so, a token with the next one."""
    text, place = list(text), 0
    while place < len(text) - 1:
        if drawn[place]:
            text[place : place + 2] = text[place + 1], text[place]
            place += 1
        place += 1
    return text


def test_swaps_are_those_of_a_walk_from_the_left():
    drawn = views('token_swap(p=0.5)')
    uniform = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, ROW.shape))(KEYS))
    wanted = [swapped(ROW[:8].tolist(), row < 0.5) for row in uniform]
    assert texts(drawn) == wanted
    # A swap at a place needs none at the place before: s = p (1 - s'), 1/2, 1/4, 3/8, ...
    shares, moved = [0.0], drawn == np.roll(ROW, -1)
    for _ in range(7):
        shares.append(0.5 * (1 - shares[-1]))
    np.testing.assert_allclose(moved[:, :7].mean(axis=0), shares[1:], atol=0.03)


def test_a_crop_is_a_span_of_the_text_anywhere():
    drawn = texts(views('span_crop(share=(0.25, 0.75))'))
    whole = ROW[:8].tolist()
    assert all(text == whole[int(text[0]) - 10 :][: len(text)] for text in drawn)
    lengths = np.bincount([len(text) for text in drawn]) / COUNT
    # Uniform from 2 to 6, rounded: the bounds have half a token each.
    np.testing.assert_allclose(lengths[2:], [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], atol=0.03)
    starts = np.bincount([int(text[0]) - 10 for text in drawn if len(text) == 4])
    np.testing.assert_allclose(starts / starts.sum(), 1 / 5, atol=0.06)


def test_more_padding_changes_no_token():
    spec = ' | '.join(SPECS)
    assert texts(views(spec, np.pad(ROW, (0, 6), constant_values=-1))) == texts(views(spec))


@pytest.mark.parametrize('spec', SPECS)
def test_views_differ_and_a_text_of_one_token_survives(spec):
    assert len({tuple(text) for text in texts(views(spec))}) > 20
    alone = np.where(np.arange(10) == 0, 5.0, -1.0)
    assert texts(views(spec, alone)) == [[5.0]] * COUNT


@pytest.mark.parametrize('spec', SPECS)
def test_other_inputs_and_bounds_are_refused(spec):
    op, key = augment.make(spec), jax.random.key(0)
    with pytest.raises(
        UserError, match=r'takes decoded tokens, float \[T\], got float32\[8, 8, 3\]'
    ):
        op(key, jnp.zeros((8, 8, 3)))
    with pytest.raises(UserError, match=r'got int32\[4\]'):
        op(key, jnp.zeros(4, jnp.int32))
    name = spec.split('(')[0]
    wrong = 'share=(0.9, 0.2)' if name == 'span_crop' else 'p=1.5'
    with pytest.raises(UserError, match=r'smaller number first|p must be .* from 0 to 1'):
        augment.make(f'{name}({wrong})')
