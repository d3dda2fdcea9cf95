"""Rows that come part by part: in memory and in a file the same, and no file is left."""

import gc
import subprocess
import sys

import numpy as np
import pytest

from ssl_extract.runtime import rows as rows_lib
from ssl_extract.runtime.rows import Rows

PARTS = [np.random.default_rng(i).random((n, 3), np.float32) for i, n in enumerate((5, 1, 7))]
WHOLE = np.concatenate(PARTS)
ORDERS = {
    'as they came': np.arange(13),
    'the first': np.arange(4),
    'in another order': np.random.default_rng(9).permutation(13),
    'repeated': np.array([3, 3, 12, 0, 3]),
    'none': np.zeros(0, int),
}


@pytest.fixture(params=['in memory', 'in a file', 'from the second part on'])
def rows(request, tmp_path, monkeypatch):
    most = {'in memory': 10_000, 'in a file': 0, 'from the second part on': 61}[request.param]
    monkeypatch.setattr(rows_lib, 'MAPPED_BYTES', most)
    monkeypatch.setattr(rows_lib, '_BLOCK_BYTES', 30)  # of two rows
    rows = Rows(tmp_path / 'store')
    for part in PARTS:
        rows.append(part)
    return rows


@pytest.mark.parametrize('order', ORDERS.values(), ids=ORDERS)
def test_rows_are_those_that_came(rows, order):
    for _ in range(2):
        np.testing.assert_array_equal(rows.take(order), WHOLE[order])


def test_what_was_taken_may_be_changed_and_stays_when_the_rows_are_gone(rows):
    taken = rows.take(np.arange(13))
    taken[0] = 7
    np.testing.assert_array_equal(rows.take(np.arange(13)), WHOLE)
    del rows
    gc.collect()
    np.testing.assert_array_equal(taken[1:], WHOLE[1:])


def test_no_file_is_left_or_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_lib, 'MAPPED_BYTES', 0)
    rows = Rows(tmp_path)
    rows.append(WHOLE)
    assert isinstance(rows.take(np.arange(13)), np.memmap)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_with_the_folder(tmp_path):
    """A limit of a file's size stands for the full disk."""
    script = f"""
import resource, signal
import numpy as np
from ssl_extract.runtime import rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
rows.MAPPED_BYTES = 0
try:
    filled = rows.Rows({str(tmp_path)!r})
    for _ in range(9):
        filled.append(np.ones((1, 100)))  # less than a buffer of the file
except OSError as error:
    print(error.errno, error.filename)
"""
    command = [sys.executable, '-c', script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (['27', str(tmp_path)], '')
