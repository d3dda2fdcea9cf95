"""The store of an account's answers: `python -m benchmarks.answers [--queries=250000 --dim=2048]`.

Collects answers of a victim that is one matrix product, so that the store is what takes time and
memory, then collects them again, which only reads. Prints seconds, MB/s of answers, and by how much
the process grew at its peak, beside the size of the answers.
"""

import resource
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from etils import epath

from ssl_extract.oracle import make_oracle, store
from ssl_extract.oracle.queries import Queries
from ssl_extract.runtime import parallel

_QUERIES = flags.DEFINE_integer('queries', 250_000, 'Answers.', lower_bound=1)
_DIM = flags.DEFINE_integer('dim', 2_048, 'Numbers of an answer.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch_size', 1_024, 'Queries sent at a time.', lower_bound=1)
SIDE = 8  # of the images, which are small beside their answers


def peak() -> float:
    """Returns the largest size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


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
    size, mesh = 4e-6 * count * dim, parallel.data_mesh()
    print(f'{mesh.size} x {jax.devices()[0].device_kind}, {count:,} x {dim:,}: {size:,.0f} MB')
    with tempfile.TemporaryDirectory() as folder:
        for what in ('collected', 'read again'):
            before, start = peak(), time.perf_counter()
            answers = store.collect(
                epath.Path(folder),
                make_oracle(victim, budget=count),
                jax.random.key(0),
                queries,
                batch_size=_BATCH.value,
                mesh=mesh,
            )
            took = time.perf_counter() - start
            assert answers.granted.all() and answers.representations.shape == (count, dim)
            print(
                f'{what:12s}{took:8.1f} s{size / took:8.0f} MB/s, '
                f'grown by {peak() - before:,.0f} MB',
                flush=True,
            )
            del answers


if __name__ == '__main__':
    app.run(main)
