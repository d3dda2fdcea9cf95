"""The run of a second in several processes, each of which notes what it sees; the tests' own.

Each process writes `process-INDEX.json` into the folder NOTES: how arrays lie on the devices of all
processes, and what the functions of `runtime.hosts` give there.
"""

import json
import os
import pathlib

import jax
import numpy as np
import small

from ssl_extract.runtime import files, hosts, parallel

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)


class Read:
    """An array on the host that keeps which of its rows were read."""

    shape, rows = ROWS.shape, ()

    def __getitem__(self, rows):
        self.rows += tuple(map(int, rows))
        return ROWS[rows]


def notes(folder):
    mesh, read, index = parallel.data_mesh(), Read(), hosts.index()
    indices = np.array([7, 1, 6, 0, 5, 2, 4, 3])
    (batch,) = parallel.put_rows([read], indices, mesh)
    put = parallel.put({'rows': ROWS}, mesh)['rows']
    whole, key = parallel.replicate((ROWS, jax.random.key(3)), mesh)
    doubled = parallel.compile_take(mesh)(whole, indices)
    stacked = parallel.stack([{'x': whole[i]} for i in range(mesh.size)], mesh)
    files.write_text(folder / 'first.txt', f'process {index}')
    hosts.wait()
    (drawn,) = hosts.agreed_arrays(lambda: (np.full(2, index, np.int8),))
    return {
        'devices': mesh.size,
        'read': read.rows,
        'put': [shard.data.tolist() for shard in put.addressable_shards],
        'put_again': parallel.fetch(put, mesh).tolist(),
        'batch': parallel.fetch(batch, mesh).tolist(),
        'taken': parallel.fetch(doubled, mesh).tolist(),
        'stacked': parallel.fetch(stacked, mesh)['x'].tolist(),
        'stacked_shards': len(stacked['x'].addressable_shards),
        'key': jax.random.key_data(key).tolist(),
        'alone': parallel.data_mesh(1).devices.flat[0].process_index,
        'agreed': hosts.agreed(lambda: index),
        'drawn': drawn.tolist(),
        'text': (folder / 'first.txt').read_text(),
    }


def get_config():
    if folder := os.environ.get('NOTES'):
        path = pathlib.Path(folder) / f'process-{hosts.index()}.json'
        path.write_text(json.dumps(notes(pathlib.Path(folder))))
    return small.get_config()
