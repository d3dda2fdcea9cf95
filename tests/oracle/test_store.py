"""The answer store asks each image once, is exact after a restart, and its bill is right."""

import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ssl_extract import augment, defenses
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import fingerprint
from ssl_extract.oracle import make_oracle, store
from ssl_extract.oracle import queries as queries_lib
from ssl_extract.runtime import files, parallel, rows

ROOT = pathlib.Path(__file__).parent.parent.parent
MESH = parallel.data_mesh()
WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(4 * 4 * 3, 5)), jnp.float32)
ENCODE = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, WEIGHTS)
IMAGES = np.random.default_rng(1).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
NOISE = defenses.make('gaussian_noise(stddev=1.0)')
ORACLE = make_oracle(ENCODE, NOISE, budget=50)


def collect(folder, images=IMAGES, oracle=ORACLE, budget=50, mesh=MESH, batch_size=8):
    queries = images if isinstance(images, queries_lib.Queries) else queries_lib.plain(images)
    return store.collect(
        folder, oracle, jax.random.key(3), queries, budget=budget, batch_size=batch_size, mesh=mesh
    )


@pytest.fixture
def asked(monkeypatch):
    """Counts the rows that really reach the oracle."""
    sent = []

    def encode(w, x):
        jax.debug.callback(lambda x: sent.append(np.asarray(x)), x)
        return x.reshape(len(x), -1) @ w

    encode = jax.tree_util.Partial(encode, WEIGHTS)
    return sent, make_oracle(encode, NOISE, budget=50)


def test_answers_are_the_oracles(tmp_path):
    got = collect(tmp_path)
    batch = augment.to_float(jnp.asarray(IMAGES))
    account = ORACLE.init(jax.random.key(3), batch)
    expected, _ = ORACLE.query(batch, account)
    np.testing.assert_allclose(got.representations, expected.representations, rtol=1e-5, atol=1e-5)
    assert got.bill == (50, 50, 0, 0)


def test_what_is_stored_is_not_asked_again(tmp_path, asked):
    sent, oracle = asked
    first = collect(tmp_path, oracle=oracle)
    jax.effects_barrier()
    calls = len(sent)
    again = collect(tmp_path, oracle=oracle)
    jax.effects_barrier()
    assert calls == 7 and len(sent) == calls
    np.testing.assert_array_equal(first.representations, again.representations)
    assert again.bill == (50, 50, 0, 0)  # what this attack alone would have paid


def test_a_larger_budget_asks_only_the_rest_and_gets_what_it_would_have_got(tmp_path):
    collect(tmp_path / 'a', IMAGES[:13], budget=13)
    grown = collect(tmp_path / 'a')
    whole = collect(tmp_path / 'b')
    np.testing.assert_allclose(grown.representations, whole.representations, rtol=1e-5, atol=1e-6)
    assert len(list((tmp_path / 'a').glob('part-*.npz'))) == 2
    smaller = collect(tmp_path / 'a', IMAGES[:13], budget=13)
    assert smaller.bill == (13, 13, 0, 0)


class Killed(Exception):
    pass


@pytest.fixture
def short_parts(monkeypatch):
    """Parts of 16 answers, whatever writing costs."""
    monkeypatch.setattr(store, 'PART_BYTES', 16 * 5 * 4)
    monkeypatch.setattr(store, 'PART_WRITES', 0)


@pytest.mark.parametrize('writes', range(8))  # a state, its part, and the state's own name
def test_a_run_killed_between_any_two_writes_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, short_parts, writes
):
    oracle = make_oracle(ENCODE, defenses.make('bucket_coverage(bits=3)'), budget=50)
    whole = collect(tmp_path / 'whole', oracle=oracle)
    renamed, rename = [], files.rename

    def killed(path, target):
        if len(renamed) == writes:
            raise Killed
        renamed.append(path)
        rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, 'rename', killed)
        with pytest.raises(Killed):
            collect(tmp_path / 'killed', oracle=oracle)
    resumed = collect(tmp_path / 'killed', oracle=oracle)
    assert resumed.noticed == whole.noticed
    assert store.num_stored(tmp_path / 'killed') == 50
    np.testing.assert_array_equal(resumed.representations, whole.representations)
    names = [path.name for path in sorted((tmp_path / 'whole').iterdir())]
    parts = [f'part-{i:010d}.npz' for i in (0, 16, 32, 48)]
    assert names == ['account-0000000050.npz', *parts]
    assert [path.name for path in sorted((tmp_path / 'killed').iterdir())] == names
    for name in names:
        ours, theirs = tmp_path / 'killed' / name, tmp_path / 'whole' / name
        np.testing.assert_equal(dict(np.load(ours)), dict(np.load(theirs)))


def test_an_image_asked_again_is_billed_as_repeated(tmp_path):
    index, seeds = np.repeat(np.arange(10), 3), np.tile(np.arange(3, dtype=np.uint32), 10)
    got = collect(tmp_path, queries_lib.Queries(IMAGES[:10], index, seeds))
    assert got.bill == (30, 10, 20, 0)
    same = got.representations.reshape(10, 3, 5)
    assert len(np.unique(same[0], axis=0)) == 3  # noise is drawn anew
    clean = IMAGES[:10].reshape(10, -1) / 255 @ WEIGHTS
    np.testing.assert_allclose(same.mean(axis=1), clean, atol=4 / 3**0.5)


def _every_third_refused():
    def apply(outputs, state, *, inputs, where, keys):
        number = state + jnp.cumsum(where, dtype=jnp.int32)
        answered = where & (number % 3 != 0)
        return outputs, answered, state + jnp.sum(where, dtype=jnp.int32)

    return defenses.Defense(lambda key, outputs, inputs: jnp.zeros([], jnp.int32), apply)


def test_a_refused_query_is_stored_as_such_and_not_billed(tmp_path):
    oracle = make_oracle(ENCODE, _every_third_refused(), budget=50)
    got = collect(tmp_path, oracle=oracle)
    np.testing.assert_array_equal(got.granted, np.arange(1, 51) % 3 != 0)
    assert got.bill == (34, 34, 0, 16)
    assert not got.representations[~got.granted].any()
    again = collect(tmp_path, oracle=oracle)  # nothing is left to ask
    np.testing.assert_array_equal(again.granted, got.granted)
    assert again.bill == got.bill


def test_what_the_defense_noticed_comes_with_the_answers(tmp_path):
    defense = defenses.chain(('0_third', _every_third_refused()))
    got = collect(tmp_path, oracle=make_oracle(ENCODE, defense, budget=50))
    assert got.noticed == {'third': 50.0}


def test_the_same_image_twice_is_asked_once(tmp_path):
    got = collect(tmp_path, np.concatenate([IMAGES[:10], IMAGES[5:12]]))
    assert got.bill == (12, 12, 0, 0)
    np.testing.assert_array_equal(got.representations[5:10], got.representations[10:15])


def test_views_of_an_image_are_queries_of_their_own(tmp_path):
    """Each pair of image and seed is asked once, as the view that its seed makes."""
    index, seeds = np.repeat(np.arange(10), 3), np.arange(30, dtype=np.uint32)
    views = queries_lib.Queries(IMAGES[:10], index, seeds, _brightened)
    got = collect(tmp_path, views, oracle=make_oracle(ENCODE, budget=30), budget=30)
    assert got.bill == (30, 30, 0, 0)
    sent = np.stack([IMAGES[i] / 255 + s for i, s in zip(index, seeds, strict=True)])
    np.testing.assert_allclose(got.representations, sent.reshape(30, -1) @ WEIGHTS, rtol=1e-4)
    again = collect(tmp_path, views, oracle=make_oracle(ENCODE, budget=30), budget=30)
    np.testing.assert_array_equal(again.representations, got.representations)
    more = views._replace(seeds=seeds + 1)  # all but the last of each three are known
    with pytest.raises(UserError, match='and 0 of the budget of'):
        collect(tmp_path, more, oracle=make_oracle(ENCODE, budget=30), budget=30)


def _brightened(images, seeds):
    return images + seeds[:, None, None, None].astype(jnp.float32)


@pytest.mark.devices
def test_one_device_gets_what_four_get(tmp_path):
    four = collect(tmp_path / '4')
    one = collect(tmp_path / '1', mesh=parallel.data_mesh(1))
    np.testing.assert_allclose(four.representations, one.representations, rtol=1e-5, atol=1e-5)


def test_more_images_than_the_budget_are_refused_before_asking(tmp_path, asked):
    sent, oracle = asked
    with pytest.raises(
        UserError, match='50 different queries were to be sent, and 49 of the budget of 49 are left'
    ):
        collect(tmp_path, oracle=oracle, budget=49)
    assert not sent


def test_a_spent_account_cannot_be_overdrawn(tmp_path):
    collect(tmp_path, IMAGES[:40])
    with pytest.raises(UserError, match='and 0 of the budget of'):
        collect(tmp_path, IMAGES[30:], budget=20, oracle=make_oracle(ENCODE, NOISE, budget=20))


@pytest.mark.parametrize('keep', [0.5, 0.95])
def test_a_truncated_part_is_named(tmp_path, keep):
    collect(tmp_path)
    part = tmp_path / 'part-0000000000.npz'
    part.write_bytes(part.read_bytes()[: int(part.stat().st_size * keep)])
    with pytest.raises(UserError, match=r'cannot read .*part-0000000000.npz'):
        collect(tmp_path)


@pytest.mark.parametrize(('share', 'parts'), [(0, 7), (1e9, 2)])
def test_a_part_ends_after_some_time_unless_writing_takes_it(tmp_path, monkeypatch, share, parts):
    monkeypatch.setattr(store, 'PART_SECONDS', 0)
    monkeypatch.setattr(store, 'PART_WRITES', share)
    collect(tmp_path)
    assert len(list(tmp_path.glob('part-*'))) == parts


@pytest.mark.parametrize('name', ['account[1]', 'a*', '?'])
def test_an_account_in_a_folder_of_any_name_is_asked_once(tmp_path, asked, name):
    sent, oracle = asked
    first = collect(epath.Path(tmp_path / name), oracle=oracle)
    jax.effects_barrier()
    calls = len(sent)
    again = collect(epath.Path(tmp_path / name), oracle=oracle)
    jax.effects_barrier()
    assert len(sent) == calls > 0
    np.testing.assert_array_equal(first.representations, again.representations)


@pytest.mark.parametrize(
    ('lost', 'lacks'),
    [((16,), '17 to 32'), ((48,), '49 to 50'), ((0, 16, 32, 48), '1 to 50')],
)
def test_nothing_is_sent_where_paid_answers_are_missing(tmp_path, asked, short_parts, lost, lacks):
    sent, oracle = asked
    first = collect(tmp_path / 'account', oracle=oracle)
    jax.effects_barrier()
    sent.clear()
    for start in lost:
        (tmp_path / f'account/part-{start:010d}.npz').unlink()
    with pytest.raises(UserError, match=f'account lacks its answers {lacks}, which are paid') as e:
        collect(tmp_path / 'account', oracle=oracle)
    jax.effects_barrier()
    assert not sent and len(list((tmp_path / 'account').iterdir())) == 5 - len(lost)
    assert f'or move {tmp_path / "account"} elsewhere' in str(e.value)
    shutil.move(tmp_path / 'account', tmp_path / 'elsewhere')
    again = collect(tmp_path / 'account', oracle=oracle)
    np.testing.assert_array_equal(first.representations, again.representations)


def test_fingerprints_tell_images_apart_and_know_them_again():
    images = np.random.default_rng(0).integers(0, 256, (4000, 8, 8, 3), dtype=np.uint8)
    images[1:] = images[0]  # all alike but for one pixel value
    flat = images.reshape(4000, -1)
    for i in range(1, 4000):
        flat[i, i % 192] ^= np.uint8(1 + i // 192)
    prints = np.asarray(fingerprint(augment.to_float(jnp.asarray(images))))
    assert len(np.unique(prints, axis=0)) == len(np.unique(flat, axis=0)) == 4000
    again = fingerprint(augment.to_float(jnp.asarray(images[::-1])))
    np.testing.assert_array_equal(prints[::-1], again)
    for column in prints.T:  # each half tells nearly all of them apart: 2e-3 collisions expected
        assert len(np.unique(column)) >= 3998


def test_the_bill_counts_repetitions():
    prints = np.array([[1, 2], [1, 2], [2, 1], [1, 2]], np.uint32)
    assert store.make_bill(prints, refused=3) == (4, 2, 2, 3)
    assert store.make_bill(np.zeros((0, 2), np.uint32)) == (0, 0, 0, 0)


def test_many_answers_lie_in_a_file_and_are_the_same(tmp_path, monkeypatch):
    few = collect(tmp_path / 'few')
    monkeypatch.setattr(rows, 'MAPPED_BYTES', 0)
    monkeypatch.setattr(store, 'PART_BYTES', 1)
    for _ in range(2):  # collected, and read
        many = collect(tmp_path / 'many')
        assert isinstance(many.representations, np.memmap)
        np.testing.assert_array_equal(many.representations, few.representations)
        assert many.bill == few.bill


def test_a_part_ends_when_it_is_large_whatever_writing_costs(monkeypatch):
    pace = store._Pace()
    pace.cost = 1e9
    monkeypatch.setattr(store, 'PART_MOST', 100)
    assert [pace.ends(40) for _ in range(3)] == [False, False, True]


def test_a_large_attack_holds_a_part_of_its_answers_in_memory():
    """160 MB of answers are collected, read again and trained on."""
    command = [sys.executable, '-m', 'benchmarks.answers', '--queries=20000', '--steps=20']
    command += ['--folder=/var/tmp']  # on a disk: files in memory count as memory
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines()[2:]:
        name, anonymous, of_files = re.fullmatch(
            r'(.*?) +[\d.]+ s +\d+ MB/s +([\d,]+) +([\d,]+)', line
        ).groups()
        found[name] = int(anonymous.replace(',', '')), int(of_files.replace(',', ''))
    assert list(found) == ['plain write', 'plain read', 'collect', 'read again', '20 steps']
    assert found['read again'][0] < 80 and found['20 steps'][0] < 120
