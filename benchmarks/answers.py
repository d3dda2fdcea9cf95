"""A large attack by collected answers: `python -m benchmarks.answers [--queries=250000 ...]`.

Collects answers of a victim that is one matrix product, so that the store is what takes time and
memory, collects them again, which only reads, and trains a surrogate on them. Prints seconds, MB/s
of answers, and by how much memory grew at its peak: `anonymous` is what the process holds, `of
files` are pages that the system may drop and read again. A plain file of as many bytes, written and
read before, stands beside them; what was just written is read from memory, on both sides.
"""

import contextlib
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from etils import epath

from benchmarks import commands, pieces
from ssl_extract import training
from ssl_extract.attacks.plans import stored_arrays
from ssl_extract.encoders import trained
from ssl_extract.oracle import make_oracle, store
from ssl_extract.oracle.queries import Queries
from ssl_extract.runtime import parallel

_QUERIES = flags.DEFINE_integer('queries', 250_000, 'Answers.', lower_bound=1)
_DIM = flags.DEFINE_integer('dim', 2_048, 'Numbers of an answer.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch_size', 1_024, 'Queries sent at a time.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 200, 'Of the training, 64 images each.', lower_bound=1)
_FOLDER = flags.DEFINE_string('folder', None, 'On the disk to measure; else the temporary one.')
SIDE = 8  # of the images, which are small beside their answers
ENCODER = 'resnet18(stem="patch", width=4, stages=(1,))'
CHUNK = 2**24  # bytes of the plain file, at a time


def memory() -> np.ndarray:
    """Returns the anonymous memory of this process and its pages of files, in MB."""
    status = pathlib.Path('/proc/self/status').read_text()
    found = dict(line.split(':', 1) for line in status.splitlines())
    sizes = [int(found[name].split()[0]) for name in ('RssAnon', 'RssShmem', 'RssFile')]
    return np.array([sizes[0] + sizes[1], sizes[2]]) * 1024 / 1e6


@contextlib.contextmanager
def measured(what: str, megabytes: float) -> Iterator[None]:
    """Prints the time of the block, and the growth of memory at its peak."""
    before, done = memory(), threading.Event()
    most = before.copy()

    def watch() -> None:
        while not done.wait(0.01):
            np.maximum(most, memory(), out=most)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        took = time.perf_counter() - start
        done.set()
        watcher.join()
    anonymous, files = np.maximum(most, memory()) - before
    print(
        f'{what:16s}{took:7.1f} s{megabytes / took:8.0f} MB/s{anonymous:12,.0f}{files:12,.0f}',
        flush=True,
    )


def plain(folder: str, nbytes: int) -> None:
    """Writes and reads a file of `nbytes` bytes."""
    path, chunk = pathlib.Path(folder) / 'plain', os.urandom(CHUNK)
    with measured('plain write', nbytes / 1e6), path.open('wb') as file:
        for start in range(0, nbytes, CHUNK):
            file.write(chunk[: nbytes - start])
        file.flush()
        os.fsync(file.fileno())
    with measured('plain read', nbytes / 1e6), path.open('rb') as file:
        while file.read(CHUNK):
            pass
    path.unlink()


def train(folder: epath.Path, images: np.ndarray, answers: store.Answers) -> None:
    """Trains a surrogate on the answers, as runs do."""
    recipe = pieces.imitation(trained.make(ENCODER), _DIM.value)
    seeds = np.zeros((len(images), 1), np.uint32)
    arrays = stored_arrays(seeds, answers.representations, answers.granted)
    training.fit(
        recipe,
        {'inputs': images, **arrays},
        num_steps=_STEPS.value,
        batch_size=min(64, len(images)),
        learning_rate=1e-3,
        folder=folder,
        mesh=parallel.data_mesh(),
    )


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    logging.set_verbosity(logging.WARNING)
    count, dim = _QUERIES.value, _DIM.value
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    matrix = jnp.asarray(rng.normal(size=(3 * SIDE**2, dim)).astype(np.float32))
    victim = jax.tree_util.Partial(lambda matrix, x: x.reshape(len(x), -1) @ matrix, matrix)
    rows = np.arange(count)
    queries = Queries(images, rows, np.zeros(count, np.uint32), None, lambda x: x / 255.0)
    size, mesh = 4 * count * dim, parallel.data_mesh()
    print(
        f'{mesh.size} x {jax.devices()[0].device_kind}, {count:,} x {dim:,}: '
        f'{size / 1e6:,.0f} MB; memory in MB\n{"":36s}{"anonymous":>12s}{"of files":>12s}'
    )
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as folder:
        plain(folder, size)
        for what in ('collect', 'read again'):
            with measured(what, size / 1e6):
                answers = store.collect(
                    epath.Path(folder) / 'answers',
                    make_oracle(victim, budget=count),
                    jax.random.key(0),
                    queries,
                    batch_size=_BATCH.value,
                    mesh=mesh,
                )
            assert answers.granted.all() and answers.representations.shape == (count, dim)
        with measured(f'{_STEPS.value} steps', 4e-6 * min(64, count) * dim * _STEPS.value):
            train(epath.Path(folder) / 'training', images, answers)


if __name__ == '__main__':
    commands.start(main)
